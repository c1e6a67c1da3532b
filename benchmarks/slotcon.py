"""SlotCon's step without the backbone: ours beside a plain transcription of the paper's equations.

Batch 16, features 2048x7x7, K = 256, D = 256, hidden 4096: projectors of student and teacher on both views, grouping,
slots, inverse augmentation, both losses, backward to the features, and the teacher's move over these 26 M parameters.
Both sides are correct code for the same numbers (the losses are compared); the transcription takes what the paper
says term by term: 1x1 convolutions, einsum over (b, k, h, w), RoIAlign and a flip, a loop over parameters. They take
turns in one process; each repeat is one step of either.

Also: the teacher's move alone, over 26 M parameters.

    python benchmarks/slotcon.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from selfseg.methods.slotcon import SlotCon, SlotConConfig, _cells_last
from selfseg.models.decoders import Projector
from selfseg.models.embedder import EmbedderConfig
from selfseg.models.twin import Twin
from selfseg.ops.geometry import overlap

CHANNELS, CELLS, PROTOTYPES, DIM, HIDDEN = 2048, 7, 256, 256, 4096


def affines(batch: int, seed: int) -> Tensor:
    """(B, 2, 3): crops of 20 to 100 % of the area, half of them flipped, all with the image's middle inside."""
    generator = torch.Generator().manual_seed(seed)
    scale = 0.45 + 0.5 * torch.rand(batch, 2, generator=generator)
    shift = (2 * torch.rand(batch, 2, generator=generator) - 1) * torch.minimum(1 - scale, scale - 0.1)
    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    linear = torch.stack([scale[:, 0] * flip, scale[:, 1]], dim=1)
    return torch.cat([torch.diag_embed(linear), shift[:, :, None]], dim=2)


class Ours:
    """The package's method; its embedder stays unused, the projectors get the features."""

    def __init__(self, mixed: bool) -> None:
        self.mixed = mixed
        # The smallest backbone that timm has: none of it runs.
        embedder = EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="linear", dim=DIM)
        self.method = SlotCon(SlotConConfig(embedder=embedder, prototypes=PROTOTYPES, predictor_hidden=HIDDEN))
        torch.manual_seed(0)
        self.projectors = Twin(Projector([CHANNELS], HIDDEN, DIM), buffers="own")
        self.student, self.teacher = cast(Projector, self.projectors.student), cast(Projector, self.projectors.teacher)

    def step(self, features: list[Tensor], to_image: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            student = [_cells_last(x) for x in self.student.views([[x] for x in features])]
        with torch.no_grad():
            momentum = self.method.momentum(0.0)
            self.projectors.update(momentum)
            self.method.twin.update(momentum)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                teacher = [_cells_last(y) for y in self.teacher.views([[x] for x in features])]
        loss = self.method.compare([x.float() for x in student], [y.float() for y in teacher], to_image).loss
        loss.backward()
        return loss.detach()


class Transcription:
    """The equations, one after the other, in the paper's layout (b, c, h, w)."""

    def __init__(self, ours: Ours) -> None:
        self.mixed = ours.mixed

        def projector() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(CHANNELS, HIDDEN, 1),
                nn.BatchNorm2d(HIDDEN),
                nn.GELU(),
                nn.Conv2d(HIDDEN, HIDDEN, 1),
                nn.BatchNorm2d(HIDDEN),
                nn.GELU(),
                nn.Conv2d(HIDDEN, DIM, 1),
            )

        def predictor() -> nn.Module:
            return nn.Sequential(
                nn.Linear(DIM, HIDDEN),
                nn.BatchNorm1d(HIDDEN),
                nn.GELU(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.BatchNorm1d(HIDDEN),
                nn.GELU(),
                nn.Linear(HIDDEN, DIM),
            )

        self.student, self.teacher, self.predictor = projector(), projector(), predictor()
        weights = {
            key.removeprefix("mlp."): value[:, :, None, None] if value.ndim == 2 else value
            for key, value in ours.projectors.student.state_dict().items()
        }
        self.student.load_state_dict(weights)
        self.teacher.load_state_dict(weights)
        self.predictor.load_state_dict(ours.method.predictor.state_dict())
        self.prototypes = nn.Parameter(ours.method.student.prototypes.detach().clone())
        self.teacher_prototypes = ours.method.teacher.prototypes.detach().clone()
        self.centre = torch.zeros(1, PROTOTYPES, 1, 1)
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False

    def step(self, features: list[Tensor], to_image: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            loss = self.forward(features, to_image)
        loss.backward()
        return loss.detach()

    def forward(self, features: list[Tensor], to_image: tuple[Tensor, Tensor]) -> Tensor:
        x = [self.student(each) for each in features]
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.data = mine.data * 0.99 + theirs.data * 0.01
            self.teacher_prototypes = self.teacher_prototypes * 0.99 + self.prototypes.data * 0.01
            y = [self.teacher(each) for each in features]
        q = [self.group(each, self.prototypes) for each in x]
        with torch.no_grad():
            k = [self.group(each, self.teacher_prototypes) for each in y]
        box = overlap(*to_image)
        aligned_q = [self.invert(dots, box, affine) for (_, dots, _), affine in zip(q, to_image, strict=True)]
        aligned_k = [self.invert(dots, box, affine) for (_, dots, _), affine in zip(k, to_image, strict=True)]
        group = self.cells(aligned_q[0], aligned_k[1]) + self.cells(aligned_q[1], aligned_k[0])
        slots = self.slots(q[0], k[1]) + self.slots(q[1], k[0])
        with torch.no_grad():
            dots = torch.cat([k[0][1], k[1][1]])
            self.centre = self.centre * 0.9 + 0.1 * dots.mean((0, 2, 3), keepdim=True)
        return 0.5 * group + 0.5 * slots

    def group(self, z: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dots = torch.einsum("kd,bdhw->bkhw", F.normalize(prototypes, dim=1), F.normalize(z, dim=1))
        attention = torch.softmax(dots / 0.07, dim=1) + 1e-6
        attention_sum = attention.sum(dim=(2, 3))
        slots = torch.einsum("bdhw,bkhw->bkd", z, attention / attention_sum[:, :, None, None])
        active = F.one_hot(dots.argmax(1), PROTOTYPES).flatten(1, 2).any(1)
        return slots, dots, active

    def invert(self, dots: Tensor, box: Tensor, affine: Tensor) -> Tensor:
        corner = []
        for axis in (0, 1):
            scale, shift = affine[:, axis, axis], affine[:, axis, 2]
            ends = torch.stack([(box[:, axis] - shift) / scale, (box[:, axis + 2] - shift) / scale], dim=1)
            corner.append((ends.sort(1).values + 1) / 2 * CELLS)
        number = torch.arange(len(dots), dtype=dots.dtype)[:, None]
        rois = torch.cat([number, torch.stack([corner[0], corner[1]], dim=2).flatten(1)], dim=1)
        out = roi_align(dots, rois, (CELLS, CELLS), spatial_scale=1.0, sampling_ratio=1, aligned=True)
        flipped = affine[:, 0, 0] < 0
        return torch.where(flipped[:, None, None, None], out.flip(3), out)

    def cells(self, q: Tensor, k: Tensor) -> Tensor:
        target = torch.softmax((k - self.centre) / 0.07, dim=1)
        return torch.sum(-target * torch.log_softmax(q / 0.1, dim=1), dim=1).mean()

    def slots(self, q: tuple[Tensor, Tensor, Tensor], k: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        both = q[2] & k[2]
        query = F.normalize(self.predictor(q[0][both]), dim=1)
        key = F.normalize(k[0][k[2]], dim=1)
        label = (torch.cumsum(k[2].flatten(), 0) - 1)[both.flatten()]
        return F.cross_entropy(torch.einsum("nc,mc->nm", query, key) / 0.2, label) * (2 * 0.2)


def compare(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if repeat:  # the first is for warming up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def measure(precision: str, threads: int, repeats: int, batch: int) -> dict[str, Any]:
    """Both sides' step and the teacher's move; prints as it goes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    to_image = affines(batch, 1), affines(batch, 2)
    # Features as a network leaves them: not negative, half of them zero, neighbours alike.
    smooth = [torch.randn(batch, CHANNELS, 3, 3) for _ in range(2)]
    plain = [F.relu(F.interpolate(x, size=(CELLS, CELLS), mode="bilinear")).requires_grad_() for x in smooth]
    cells_last = [x.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for x in plain]
    ours = Ours(precision == "bf16-mixed")
    literal = Transcription(ours)
    first = float(ours.step(cells_last, to_image)), float(literal.step(plain, to_image))
    largest = max(b.grad.abs().max().item() for b in plain)
    gradient = max((a.grad - b.grad).abs().max().item() for a, b in zip(cells_last, plain, strict=True)) / largest

    steps = compare(
        {"ours": lambda: ours.step(cells_last, to_image), "transcription": lambda: literal.step(plain, to_image)},
        repeats,
    )

    def loop() -> None:
        for mine, theirs in zip(literal.teacher.parameters(), literal.student.parameters(), strict=True):
            mine.data = mine.data * 0.99 + theirs.data * 0.01

    moves = compare({"ours": lambda: ours.projectors.update(0.99), "loop": loop}, 5 * repeats)
    record: dict[str, Any] = {
        "loss": {"ours": first[0], "transcription": first[1]},
        "gradient_difference": gradient,
    }
    sys.stdout.write(f"{precision}: loss {first[0]:.6f} and {first[1]:.6f}; gradients differ by {gradient:.1e}\n")
    for title, seconds in (("step", steps), ("teacher_move", moves)):
        median = {name: statistics.median(values) for name, values in seconds.items()}
        mine, other = median.values()
        paired = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
        record[title] = {"median_seconds": median, "median_ratio": paired}
        sys.stdout.write(
            f"  {title:13} ours {1e3 * mine:8.1f} ms   {list(median)[1]} {1e3 * other:8.1f} ms   ratio {paired:.3f}\n"
        )
    return record


def main(argv: list[str] | None = None) -> int:
    """Measure in both precisions, write JSON; 1 if the two sides disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "slotcon.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(argv)
    # In bfloat16 the transcription's cosines have three digits, ours are taken in float32: other cells win, so other
    # slots are active, and gradients can't be compared.
    allowed = {"32-true": (1e-4, 1e-3), "bf16-mixed": (2e-2, math.inf)}
    record: dict[str, Any] = {
        "command": f"python benchmarks/slotcon.py --threads {options.threads}",
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {options.threads} threads",
        "torch": torch.__version__,
    }
    agree = True
    for precision, (loss, gradient) in allowed.items():
        found = measure(precision, options.threads, options.repeats, options.batch)
        record[precision] = found
        agree &= abs(found["loss"]["ours"] - found["loss"]["transcription"]) < loss
        agree &= found["gradient_difference"] < gradient
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
