import math

import pytest
import torch
from torch import Tensor

from selfseg.ops.objectives.mutual_information import displaced_joint, mutual_information


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("displacement", [0, 1, 3])
def test_the_joint_equals_loops_over_cells_and_displacements(displacement: int) -> None:
    first, second = maps(0, 2, 3, 5, 6), maps(1, 2, 4, 5, 6)
    joint = displaced_joint(first, second, displacement)
    assert joint.shape == (2 * displacement + 1, 2 * displacement + 1, 3, 4)
    for down in range(-displacement, displacement + 1):
        for right in range(-displacement, displacement + 1):
            expected = torch.zeros(3, 4, dtype=torch.float64)
            for image in range(2):
                for y in range(5):
                    for x in range(6):
                        if 0 <= y + down < 5 and 0 <= x + right < 6:
                            expected += torch.outer(first[image, :, y, x], second[image, :, y + down, x + right])
            torch.testing.assert_close(joint[displacement + down, displacement + right], expected)


def test_the_joints_gradient_is_that_of_finite_differences() -> None:
    first, second = maps(0, 2, 3, 3, 4).requires_grad_(), maps(1, 2, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: displaced_joint(a, b, 1), (first, second))


def test_the_information_equals_its_definition() -> None:
    joint = maps(2, 5, 6).T
    share = joint / joint.sum()
    expected = 0.0
    for row in share:
        for column in range(share.shape[1]):
            value = row[column].item()
            expected += value * math.log(value / (row.sum().item() * share[:, column].sum().item()))
    assert mutual_information(joint).item() == pytest.approx(expected)


def test_zeros_have_finite_information_and_gradient() -> None:
    for joint in (torch.zeros(2, 3, 3), torch.eye(3).expand(2, 3, 3).clone()):
        joint.requires_grad_()
        information = mutual_information(joint)
        information.sum().backward()
        assert torch.isfinite(information).all()
        assert joint.grad is not None
        assert torch.isfinite(joint.grad).all()
