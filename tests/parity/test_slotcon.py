"""SlotCon's mathematics in float64 against numbers of its reference implementation (the file beside this one).

Their convention: an overlap is given as (x0, y0, x1, y1) in [0, 1] of each crop; here it is turned into the affines
that have this overlap.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfseg.methods.slotcon import SlotCon, SlotConConfig, _cut
from selfseg.models.embedder import EmbedderConfig
from selfseg.ops.geometry import interpolation_matrices, overlap

FILE = Path(__file__).parent / "slotcon_seed0.npz"


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=0)


def affine_with_overlap(box: Tensor) -> Tensor:
    """(B, 2, 3) of a view of which `box` (B, 4) in [0, 1] is the image's [-1, 1]."""
    low, high = box[:, :2], box[:, 2:]
    scale = 1 / (high - low)
    return torch.cat([torch.diag_embed(scale), ((1 - 2 * low) * scale - 1)[:, :, None]], dim=2)


def cells_last(value: Tensor) -> Tensor:
    return value.permute(0, 2, 3, 1)


@pytest.fixture(name="golden")
def _golden() -> dict[str, Tensor]:
    with np.load(FILE, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@pytest.fixture(name="method")
def _method(golden: dict[str, Tensor]) -> Iterator[SlotCon]:
    prototypes, dim = golden["protos_student"].shape
    embedder = EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="linear", dim=dim)
    config = SlotConConfig(
        embedder=embedder,
        prototypes=prototypes,
        predictor_hidden=golden["predictor.mlp.0.bias"].shape[0],
        student_temperature=float(golden["student_temp"]),
        teacher_temperature=float(golden["teacher_temp"]),
        slot_temperature=float(golden["tau"]),
        group_weight=float(golden["group_loss_weight"]),
        momentum=float(golden["teacher_momentum"]),
        centre_momentum=float(golden["center_momentum"]),
    )
    method = SlotCon(config).double()
    with torch.no_grad():
        method.student.prototypes.copy_(golden["protos_student"])
        method.teacher.prototypes.copy_(golden["protos_teacher_before_ema"])
        method.centre.copy_(golden["center_before"][0])
        prefix = "predictor.mlp."
        method.predictor.load_state_dict(
            {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        )
    return method


def test_every_intermediate_equals_the_reference(golden: dict[str, Tensor], method: SlotCon) -> None:
    assert not golden["flags1"].any()
    assert not golden["flags2"].any()
    progress = float(golden["ema_k"] / golden["ema_K"])
    method.twin.update(method.momentum(progress))
    close(method.teacher.prototypes, golden["protos_teacher_after_ema"])

    affines = affine_with_overlap(golden["coords1"]), affine_with_overlap(golden["coords2"])
    box = overlap(*affines)
    close(box, torch.tensor([[-1.0, -1, 1, 1]], dtype=torch.float64).expand(len(box), 4))
    for networks, names in ((method.student, "x q"), (method.teacher, "y k")):
        for view, affine in enumerate(affines, start=1):
            kind, letter = names.split()
            groups = method._group(cells_last(golden[f"{kind}{view}"]), networks.prototypes)
            close(cells_last(golden[f"dots_{letter}{view}"]), groups.cosines)
            close(groups.slots, golden[f"slots_{letter}{view}"])
            assert torch.equal(groups.active, golden[f"active_{letter}{view}"])
            aligned = _cut(groups.cosines, interpolation_matrices(affine, box, (7, 7)))
            close(aligned, cells_last(golden[f"aligned_{letter}{view}"]))


def test_loss_gradients_and_state_equal_the_reference(golden: dict[str, Tensor], method: SlotCon) -> None:
    method.twin.update(method.momentum(0.0))
    x = [golden[name].requires_grad_() for name in ("x1", "x2")]
    y = [cells_last(golden[name]) for name in ("y1", "y2")]
    affines = affine_with_overlap(golden["coords1"]), affine_with_overlap(golden["coords2"])
    output = method.compare([cells_last(each) for each in x], y, affines)
    output.loss.backward()

    close(output.loss.detach(), golden["total"])
    close(output.logs["loss_group"], golden["loss_group"])
    close(output.logs["loss_slots"], golden["loss_ctr"])
    for value, name in zip(x, ("grad_x1", "grad_x2"), strict=True):
        assert value.grad is not None
        close(value.grad, golden[name])
    assert method.student.prototypes.grad is not None
    close(method.student.prototypes.grad, golden["grad_protos_student"])
    for name, parameter in method.predictor.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, golden[f"grad_predictor.mlp.{name}"])
    close(method.centre, golden["center_after"][0])
    for name, buffer in method.predictor.named_buffers():
        if "running" in name:
            close(buffer, golden[f"predictor_after.mlp.{name}"])
