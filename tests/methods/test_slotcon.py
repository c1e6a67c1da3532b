from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.errors import ConfigError
from selfseg.methods.slotcon import SlotCon
from selfseg.types import Batch, View

CONFIG = tiny.slotcon(Path("images"), Path("run")).method
SAME = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def make(**changes: Any) -> SlotCon:
    torch.manual_seed(0)
    return SlotCon(replace(CONFIG, **changes)).train()


def projections(images: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 4, 4, 8, generator=generator).requires_grad_() for _ in range(2)]


def affines(images: int = 3) -> tuple[Tensor, Tensor]:
    return SAME.expand(images, 2, 3), SAME.expand(images, 2, 3)


def slots_that_never_match(method: SlotCon) -> tuple[list[Tensor], list[Tensor]]:
    """Student's cells at the first prototype, the teacher's at the second."""
    student = [method.student.prototypes[0].detach().expand(2, 4, 4, 8).clone().requires_grad_() for _ in range(2)]
    teacher = [method.teacher.prototypes[1].expand(2, 4, 4, 8).clone() for _ in range(2)]
    return student, teacher


def test_no_matched_slot_gives_zero_with_gradient() -> None:
    method = make()
    student, teacher = slots_that_never_match(method)
    output = method.compare(student, teacher, affines(2))
    output.loss.backward()
    assert output.logs["matched_slots"] == 0
    assert output.logs["loss_slots"] == 0
    assert torch.isfinite(output.loss)
    assert all(p.grad is not None and (p.grad == 0).all() for p in method.predictor.parameters())


def test_one_matched_slot_works() -> None:
    method = make()
    cell = method.student.prototypes[0].detach().expand(1, 4, 4, 8)
    output = method.compare([cell.clone().requires_grad_() for _ in range(2)], [cell.clone()] * 2, affines(1))
    output.loss.backward()
    assert output.logs["matched_slots"] == 1
    assert torch.isfinite(output.loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.predictor.parameters())


def test_views_without_an_overlap_do_no_harm() -> None:
    """The plan never makes them."""
    method = make()
    corners = (torch.tensor([[0.2, 0, sign], [0, 0.2, sign]]).expand(3, 2, 3) for sign in (-0.8, 0.8))
    student = projections()
    output = method.compare(student, [x.detach() for x in projections(seed=1)], (next(corners), next(corners)))
    output.loss.backward()
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in student)
    assert torch.isfinite(method.centre).all()


def test_the_grouping_loss_of_identical_views_is_that_of_each_cell_with_itself() -> None:
    method = make()
    (view, _), (other, _) = projections(seed=1), projections(seed=2)
    output = method.compare([view, view], [other, other], affines())
    cosine = F.normalize(view, dim=3) @ F.normalize(method.student.prototypes, dim=1).T
    target = (F.normalize(other, dim=3) @ F.normalize(method.teacher.prototypes, dim=1).T / 0.07).softmax(3)
    expected = -(target * (cosine / 0.1).log_softmax(3)).sum(3).mean()
    torch.testing.assert_close(output.logs["loss_group"], (2 * expected).detach())


def test_a_mirrored_view_is_turned_back() -> None:
    method = make().eval()
    (view, _), (other, _) = projections(seed=1), projections(seed=2)
    mirror = torch.diag(torch.tensor([-1.0, 1.0])) @ SAME
    plain = method.compare([view, view], [other, other], affines()).logs["loss_group"]
    mirrored = method.compare(
        [view, view.flip(2)], [other, other.flip(2)], (SAME.expand(3, 2, 3), mirror.expand(3, 2, 3))
    )
    torch.testing.assert_close(mirrored.logs["loss_group"], plain)


def test_the_teacher_moves_in_training_only_and_gets_no_gradient() -> None:
    method = make()
    image = torch.rand(2, 3, 64, 64)
    view = View(image, affines(2)[0], torch.zeros(2, 0, 0, dtype=torch.int64))
    batch = Batch((view, view), torch.arange(2))
    with torch.no_grad():
        method.student.prototypes.add_(1)
    before = method.teacher.prototypes.clone()
    method.eval()(batch, 0.0)
    assert torch.equal(method.teacher.prototypes, before)
    method.train()(batch, 0.0).loss.backward()
    torch.testing.assert_close(method.teacher.prototypes, before + 0.01)
    assert all(p.grad is None for p in method.teacher.parameters())


def test_momentum_rises_to_one() -> None:
    method = make()
    values = [method.momentum(progress) for progress in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([0.99, 0.995, 1.0])


def test_the_centre_takes_out_what_all_cells_share() -> None:
    method = make(centre_momentum=0.0)
    student, teacher = projections(seed=1), [x.detach() for x in projections(seed=2)]
    method.compare(student, teacher, affines())
    cosines = F.normalize(torch.stack(teacher), dim=4) @ F.normalize(method.teacher.prototypes, dim=1).T
    torch.testing.assert_close(method.centre, cosines.mean((0, 1, 2, 3)))


@pytest.mark.parametrize(
    "changes", [{"slots": "regression"}, {"align": "projections"}, {"image_weight": 1.0}, {"group_weight": 1.0}]
)
def test_the_papers_ablations_train(changes: dict[str, Any]) -> None:
    method = make(**changes)
    image = torch.rand(2, 3, 64, 64)
    view = View(image, affines(2)[0], torch.zeros(2, 0, 0, dtype=torch.int64))
    output = method(Batch((view, view), torch.arange(2)), 0.5)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert (output.logs["loss_image"] > 0) == ("image_weight" in changes)


@pytest.mark.slow
def test_prototypes_that_find_nothing_are_counted_dead() -> None:
    method = make()
    student, teacher = slots_that_never_match(method)
    for _ in range(700):
        output = method.compare([x.detach() for x in student], teacher, affines(2))
    assert output.logs["dead_prototypes"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"student_temperature": 0.0}, "student_temperature must be above 0, not 0.0"),
        ({"group_weight": 1.5}, r"group_weight must be in \[0, 1\], not 1.5"),
        ({"image_weight": -1.0}, "image_weight can't be negative: -1.0"),
    ],
)
def test_settings_that_cannot_work_say_why(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(CONFIG, **change)
