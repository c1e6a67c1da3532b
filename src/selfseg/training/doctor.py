"""What machine this is, what is installed, and whether one tiny training step works."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

_REQUIRED = (
    "torch torchvision timm lightning numpy scipy numba opencv-python-headless pillow safetensors fsspec tyro rich "
    "matplotlib jinja2 pyyaml tensorboard"
).split()
_OPTIONAL = {
    "segmentation-models-pytorch": "DeepLabV3+ (the high-resolution recipes): pip install 'selfseg[smp]'",
    "onnx": "export to ONNX: pip install 'selfseg[onnx]'",
    "scikit-image": "make demo's photographs: pip install 'selfseg[demo]'",
    "triton": "fast superpixels on an NVIDIA GPU; comes with torch's CUDA build",
}


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Attributes:
        machine: lines about processor, memory, disk and GPUs, as (what, value).
        packages: (name, version or "missing", what it is for).
        step_seconds: duration of one tiny training step, the second of two; None if it failed.
        problem: what failed, or "".
    """

    machine: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str, str], ...]
    step_seconds: float | None
    problem: str

    @property
    def healthy(self) -> bool:
        """Whether training works here."""
        return not self.problem

    def table(self) -> Table:
        """The findings as a table for a terminal."""
        table = Table(show_header=False, title="selfseg doctor")
        for what, value in self.machine:
            table.add_row(what, escape(value))
        table.add_section()
        for name, version, purpose in self.packages:
            table.add_row(name, version if version != "missing" else f"[yellow]missing[/] {escape(purpose)}")
        table.add_section()
        verdict = f"[green]works[/], {self.step_seconds:.2f} s" if self.healthy else f"[red]{escape(self.problem)}[/]"
        table.add_row("one tiny training step", verdict)
        return table


def doctor() -> Diagnosis:
    """Look at the machine and the installation, and train one tiny step on drawn images.

    Returns:
        What was found; nothing is written and nothing raises.
    """
    gpus = [
        f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    disk = shutil.disk_usage(os.getcwd())
    machine = (
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("python", sys.version.split()[0]),
        ("processor", f"{len(os.sched_getaffinity(0))} cores usable, torch uses {torch.get_num_threads()}"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("disk, here", f"{disk.free / 2**30:.0f} GiB free"),
        ("GPU", "; ".join(gpus) or "none: training runs on the processor"),
    )
    packages = [(name, _version(name), "required") for name in _REQUIRED]
    packages += [(name, _version(name), purpose) for name, purpose in _OPTIONAL.items()]
    seconds, problem = None, ""
    try:
        seconds = _tiny_step()
    except Exception as error:  # whatever it is, it is what the user wants to know
        problem = f"{type(error).__name__}: {error}"
    return Diagnosis(machine, tuple(packages), seconds, problem)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _tiny_step() -> float:
    # Here so that a broken dependency becomes a finding instead of an import error.
    from selfseg.data.loader import Sample, collate
    from selfseg.data.views.content_centred import ContentCentredViews
    from selfseg.methods.vice import ViCE, ViCEConfig
    from selfseg.models.embedder import EmbedderConfig
    from selfseg.training.optimizer import make_optimizer
    from selfseg.training.recipe import OptimizerConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = ContentCentredViews(views=2, size=64, short_side=64)
    rng = np.random.default_rng(0)
    image = plan.prepare(rng.integers(0, 256, (80, 96, 3), np.uint8))
    crops = plan.make(image, plan.regions.compute(image), rng)
    batch = collate([Sample(crops, 0)]).to(device)
    method = ViCE(ViCEConfig(embedder=EmbedderConfig(output_stride=32, dim=16), views=plan, prototypes=8, queue=0))
    method.to(device)
    optimizer = make_optimizer(method, OptimizerConfig())
    for _ in range(2):
        begin = time.perf_counter()
        method(batch, 0.5).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0.5)
        if device == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - begin
