import pytest
import torch
from torch import nn

from selfseg.models.twin import Twin


def _twin(policy: str) -> Twin:
    twin = Twin(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), policy)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in twin.student.parameters():
            parameter.fill_(1.0)
        for parameter in twin.teacher.parameters():
            parameter.fill_(0.0)
    twin.student[1].running_mean.fill_(1.0)  # type: ignore[index, union-attr, operator]
    return twin


@pytest.mark.parametrize(("policy", "mean"), [("own", 0.0), ("copy", 1.0), ("average", 0.25)])
def test_the_teacher_follows(policy: str, mean: float) -> None:
    twin = _twin(policy)
    twin.update(0.75)
    assert all(torch.allclose(p, torch.tensor(0.25)) for p in twin.teacher.parameters())
    assert torch.allclose(twin.teacher[1].running_mean, torch.tensor(mean))  # type: ignore[index, union-attr, arg-type]
    assert all(torch.equal(p, torch.ones_like(p)) for p in twin.student.parameters())


def test_only_the_student_learns() -> None:
    assert not any(p.requires_grad for p in _twin("own").teacher.parameters())
