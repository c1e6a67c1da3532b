import torch

from selfseg.models.queue import FeatureQueue


def test_newest_first_and_full_only_when_every_place_was_filled() -> None:
    queue = FeatureQueue(4, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert not queue.full
    queue.push(torch.tensor([[3.0], [4.0], [5.0]]))
    assert queue.full
    assert queue.vectors.flatten().tolist() == [3, 4, 5, 1]
    queue.push(torch.arange(10.0, 20.0)[:, None])
    assert queue.vectors.flatten().tolist() == [10, 11, 12, 13]


def test_it_survives_in_a_state_dict() -> None:
    queue, other = FeatureQueue(3, 2), FeatureQueue(3, 2)
    queue.push(torch.ones(2, 2))
    other.load_state_dict(queue.state_dict())
    assert int(other.filled) == 2
    assert torch.equal(other.vectors, queue.vectors)


def test_a_queue_of_size_0_stays_empty() -> None:
    queue = FeatureQueue(0, 2)
    queue.push(torch.ones(5, 2))
    assert not queue.full
    assert queue.vectors.shape == (0, 2)


def test_the_newest_are_the_real_ones_and_stay_when_more_are_pushed() -> None:
    queue = FeatureQueue(3, 1)
    assert queue.newest.shape == (0, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    newest = queue.newest
    queue.push(torch.tensor([[3.0]]))
    assert newest.flatten().tolist() == [1, 2]
    assert queue.newest.flatten().tolist() == [3, 1, 2]


def test_whole_numbers_stay_whole() -> None:
    queue = FeatureQueue(2, 1, torch.int64)
    queue.push(torch.tensor([[2**53 + 1]]))
    assert queue.newest.tolist() == [[2**53 + 1]]
