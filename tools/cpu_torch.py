"""Install PyTorch's build for CPUs where it is enough and can be had; `make setup` calls this first.

PyTorch's usual build for Linux brings several gigabytes of CUDA libraries. On a machine without an NVIDIA GPU they are
of no use. The build for CPUs has the same version with "+cpu" behind it, and pip finds it if an index or a folder of
wheels that pip is set up for has it (`PIP_EXTRA_INDEX_URL`, `PIP_FIND_LINKS`). If it can't be had, nothing is installed
here, and the next step installs the usual build.

    python tools/cpu_torch.py constraints.txt

`TORCH=cpu` takes the build for CPUs even with a GPU, and fails if it can't be had. `TORCH=usual` leaves the choice to
pip.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision")  # both, because torchvision's operators are built for one build of torch

GPU = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""What the driver of an NVIDIA GPU puts there; the last is Windows' GPU within WSL."""


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU runs on this machine."""
    return any(Path(path).exists() for path in GPU)


def cpu_builds(constraints: str) -> list[str]:
    """["torch==2.15.0+cpu", ...] from the text of constraints.txt; a ValueError if it pins none."""
    found = []
    for package in PACKAGES:
        pin = re.search(rf"^{package}==([\w.]+)\s*$", constraints, re.MULTILINE)
        if pin is None:
            raise ValueError(f"the constraints pin no {package}, so its build for CPUs can't be looked for")
        found.append(f"{package}=={pin[1]}+cpu")
    return found


def installed() -> list[str]:
    """The packages of `PACKAGES` that this environment has already, with their versions."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def pip_install(requirements: list[str]) -> bool:
    """Install them without what they need (the next step does that); False if pip can't."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return subprocess.run([*words, *requirements], stderr=subprocess.DEVNULL, check=False).returncode == 0


def choose(constraints: str, wish: str, install: Callable[[list[str]], bool] = pip_install) -> tuple[bool, str]:
    """(whether all is well, what to tell): install the builds for CPUs if they are wanted and can be had.

    wish: "" (without a GPU), "cpu" (in any case) or "usual" (never).
    """
    if wish not in ("", "cpu", "usual"):
        return False, f"TORCH={wish} is not known; give TORCH=cpu or TORCH=usual, or leave it away"
    if wish == "usual":
        return True, "PyTorch: the usual build, as TORCH=usual asks"
    if wish == "" and (sys.platform != "linux" or platform.machine() != "x86_64"):
        return True, ""  # elsewhere the usual build has no CUDA, or a machine like that is rarely without a GPU
    if wish == "" and has_gpu():
        return True, "PyTorch: the usual build, because this machine has an NVIDIA GPU"
    if already := installed():
        return True, f"PyTorch: {', '.join(already)} is here already and stays"
    builds = cpu_builds(constraints)
    if install(builds):
        return True, f"PyTorch: the build for CPUs ({', '.join(builds)})"
    if wish == "cpu":
        return False, (
            f"TORCH=cpu: pip can't find {' and '.join(builds)}; "
            "set PIP_EXTRA_INDEX_URL to the index of CPU builds that PyTorch's page of installation names"
        )
    return True, (
        "PyTorch: the usual build, with several GB of CUDA libraries. This machine has no NVIDIA GPU, so the build for "
        "CPUs would do, but pip can't find it. To use it, stop this, set PIP_EXTRA_INDEX_URL to the index of CPU "
        "builds that PyTorch's page of installation names, and run make setup again"
    )


def main() -> int:
    """Choose for the constraints that the command line names."""
    fine, told = choose(Path(sys.argv[1]).read_text(encoding="utf-8"), os.environ.get("TORCH", ""))
    if told:
        print(told, file=sys.stdout if fine else sys.stderr, flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
