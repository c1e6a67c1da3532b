import pytest
import torch
from torch.autograd import gradcheck

from selfseg.ops.regions.pool_regions import common_regions, pool_regions


def test_only_regions_of_all_views_get_rows_and_id_0_is_legal() -> None:
    regions = torch.tensor([[[[0, 3, 9]], [[1, -1, 2]]], [[[3, 0, 0]], [[2, 2, -1]]]])  # (V=2, B=2, 1, 3)
    found = common_regions(regions)
    assert found.image.tolist() == [0, 0, 1]
    assert found.id.tolist() == [0, 3, 2]
    assert found.row.tolist() == [[[[0, 1, -1]], [[-1, -1, 2]]], [[[1, 0, 0]], [[2, 2, -1]]]]


def test_no_common_region_gives_no_rows() -> None:
    found = common_regions(torch.tensor([[[[0, 0]]], [[[1, -1]]]]))
    assert found.count == 0
    assert (found.row == -1).all()
    assert common_regions(torch.full((2, 1, 4, 4), -1)).count == 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_means_equal_a_loop(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(2, 5, 6, 7, generator=generator).contiguous(memory_format=memory_format)
    row = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    row[row == 2] = 3  # row 2 stays empty
    means = pool_regions(embedding, row, 4)
    flat = embedding.permute(0, 2, 3, 1)
    for i in (0, 1, 3):
        torch.testing.assert_close(means[i], flat[row == i].mean(0))
    assert (means[2] == 0).all()


# gradcheck wants float64, but pooling sums in float32; the wide eps allows for it.
@pytest.mark.filterwarnings("ignore:Input #0 requires gradient:UserWarning")
def test_gradient_is_that_of_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(1, 3, 4, 5, generator=generator, requires_grad=True)
    row = torch.randint(-1, 3, (1, 4, 5), generator=generator)
    weight = torch.randn(3, 3, generator=generator)
    (pool_regions(embedding, row, 3) * weight).sum().backward()
    assert embedding.grad is not None
    reference = embedding.detach().clone().requires_grad_()
    flat = reference.permute(0, 2, 3, 1)
    sum((flat[row == i].mean(0) * weight[i]).sum() for i in range(3)).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(embedding.grad, reference.grad)
    leaf = embedding.detach().requires_grad_()
    assert gradcheck(lambda x: pool_regions(x, row, 3).double(), leaf, eps=1e-2, atol=1e-3)


def test_half_precision_is_summed_in_float32() -> None:
    embedding = torch.full((1, 1, 100, 100), 0.1, dtype=torch.bfloat16)
    mean = pool_regions(embedding, torch.zeros(1, 100, 100, dtype=torch.int64), 1)
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(float(embedding[0, 0, 0, 0]), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_gpu_pools_the_same_each_time(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(3, 40, 60, 70, generator=generator).to(dtype).contiguous(memory_format=memory_format)
    row = torch.randint(-1, 30, (3, 60, 70), generator=generator)
    row[0] = 31  # a large one; 30 stays empty
    expected = pool_regions(embedding, row, 33)
    first, second = (pool_regions(embedding.cuda(), row.cuda(), 33) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.cpu(), expected, rtol=1e-5, atol=1e-6)
