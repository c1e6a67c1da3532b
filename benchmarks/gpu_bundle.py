"""A folder with everything that `gpu.py` needs on a machine with a GPU and without a network.

    make gpu-bundle                     # or: python benchmarks/gpu_bundle.py --data ../shared/data

The machine has Python 3.12 on x86-64 Linux and the packages of `THERE`. The folder has the wheels of what else selfseg
requires (but for `SPARED`), selfseg's own wheel, the benchmark, the tests, 64 images of CamVid with their labels and 64
photographs. It ends by printing its size and the line to run there. DATA holds camvid/{train,val}/{images,labels},
camvid/classes.txt and imagenet1000/train.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from email.parser import Parser
from pathlib import Path

import cv2
import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
THERE = (
    *("torch", "torchvision", "triton", "timm", "numba", "numpy", "scipy", "scikit-image", "scikit-learn"),
    *("opencv-python-headless", "pillow", "lightning", "lightning-utilities", "torchmetrics", "safetensors", "onnx"),
    *("onnxruntime", "einops", "rich", "tqdm", "typer", "jinja2", "matplotlib", "pytest", "pytest-xdist", "tifffile"),
    *("fsspec", "pip"),
)
"""What the machine has; nothing of it is carried."""

SPARED = ("imagecodecs", "pydicom", "zarr")
"""What selfseg requires for images that the benchmark has none of, and imports only for them: 40 MiB and more."""

PYTHON = "3.12"
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 40)))
MOST_MIB = 60.0
LINE = (
    "python3 -m pip install --no-index --find-links {wheels} -r requirements.txt && "
    "python3 -m pip install --no-index --no-deps {wheels}/selfseg-*.whl && python3 benchmarks/gpu.py"
)
ENVIRONMENT = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}


class BundleError(Exception):
    """The bundle can't be made; the sentence says why and what helps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the bundle; 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "gpu-bundle")
    parser.add_argument("--images", type=int, default=64, help="of each kind (64)")
    options = parser.parse_args(argv)
    try:
        make(options.data, options.out, options.images)
    except BundleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def make(data: Path, out: Path, images: int) -> None:
    """Make the folder beside its place, and put it there in one rename.

    Raises:
        BundleError: if the images are not there, a wheel can't be had, or the folder is too large.
    """
    for needed in ("camvid/train/images", "camvid/val/images", "camvid/classes.txt", "imagenet1000/train"):
        if not (data / needed).exists():
            raise BundleError(
                f"{data / needed} is missing; give the folder that holds camvid/ and imagenet1000/: "
                "--data FOLDER, or make gpu-bundle DATA=FOLDER"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gpu-bundle-", dir=out.parent) as temporary:
        made = Path(temporary) / out.name
        wheels = made / "wheels"
        wheels.mkdir(parents=True)
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(REPOSITORY))
        collect(own_requirements(), lambda requirement: _download(requirement, wheels))
        (made / "requirements.txt").write_text("\n".join(carried(own_requirements())) + "\n", encoding="utf-8")
        copy_images(data, made / "images", images)
        copy_code(REPOSITORY, made)
        (made / "COMMIT").write_text(_commit() + "\n", encoding="utf-8")
        line = LINE.format(wheels="wheels")
        (made / "README.txt").write_text(
            "What only a GPU can tell about selfseg. On a machine with an NVIDIA GPU, in this folder:\n\n"
            f"    {line}\n\nIt takes at most eight minutes and writes benchmarks/results/gpu_*/*.json and .md.\n",
            encoding="utf-8",
        )
        sizes = {part.name: _mib([part]) for part in sorted(made.iterdir())}
        check_size(sizes)
        if out.exists():
            os.rename(out, Path(temporary) / "old")
        os.rename(made, out)
    told = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.05)
    sys.stdout.write(f"{out}: {sum(sizes.values()):.1f} MiB ({told})\n")
    sys.stdout.write("".join(f"  {wheel.name}\n" for wheel in sorted((out / "wheels").iterdir())))
    sys.stdout.write(f"On the machine with the GPU, in that folder:\n  {line}\n")


def own_requirements() -> list[str]:
    """What pyproject.toml says that selfseg needs, extras left out."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["project"]["dependencies"])


def carried(requirements: Iterable[str]) -> list[str]:
    """Those that `SPARED` does not leave out."""
    spared = {canonicalize_name(name) for name in SPARED}
    return [each for each in requirements if canonicalize_name(Requirement(each).name) not in spared]


def collect(requirements: Iterable[str], download: Callable[[Requirement], Iterable[str]]) -> list[str]:
    """Fetch what `THERE` lacks and `SPARED` does not leave out, and what that needs, and so on.

    Args:
        requirements: as in a wheel's Requires-Dist.
        download: fetches one and returns its own requirements.

    Returns:
        The normalised names of what was fetched, in order.
    """
    waiting, seen, fetched = list(requirements), {canonicalize_name(name) for name in (*THERE, *SPARED)}, []
    while waiting:
        requirement = Requirement(waiting.pop(0))
        name = canonicalize_name(requirement.name)
        if name in seen or not _applies(requirement):
            continue
        seen.add(name)
        fetched.append(str(name))
        waiting += download(requirement)
    return fetched


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement's marker holds on that machine, without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({**ENVIRONMENT, "extra": ""})


def _download(requirement: Requirement, wheels: Path) -> list[str]:
    """The wheel in the version of constraints.txt if it names one; returns its Requires-Dist."""
    before = set(wheels.iterdir())
    pinned = _constraints().get(canonicalize_name(requirement.name))
    wanted = f"{requirement.name}=={pinned}" if pinned else f"{requirement.name}{requirement.specifier}"
    words = ["download", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    for platform in PLATFORMS:
        words += ["--platform", platform]
    _pip(*words, "--dest", str(wheels), wanted)
    (wheel,) = set(wheels.iterdir()) - before
    return requirements_of(wheel)


def requirements_of(wheel: Path) -> list[str]:
    """The Requires-Dist lines of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA") and each.count("/") == 1]
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def _constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {str(canonicalize_name(name)): pin.strip() for name, pin in pairs}


def copy_code(repository: Path, out: Path) -> None:
    """Benchmarks and tests, without results and without the tests of the repository itself, which read docs/."""
    for name, without in (("benchmarks", "results"), ("tests", "policy")):
        shutil.copytree(repository / name, out / name, ignore=shutil.ignore_patterns(without, "__pycache__"))
    shutil.copy(repository / "pyproject.toml", out / "pyproject.toml")


def copy_images(data: Path, out: Path, count: int) -> None:
    """JPEGs, evenly drawn: three quarters of the CamVid ones from train, the rest from val, with their labels."""
    val = count // 4
    for split, some in (("train", count - val), ("val", val)):
        for name in ("images", "labels"):
            (out / "camvid" / split / name).mkdir(parents=True, exist_ok=True)
        for path in evenly(sorted((data / "camvid" / split / "images").iterdir()), some):
            _jpeg(path, out / "camvid" / split / "images" / f"{path.stem}.jpg")
            label = data / "camvid" / split / "labels" / f"{path.stem}.png"
            shutil.copy(label, out / "camvid" / split / "labels" / label.name)
    shutil.copy(data / "camvid" / "classes.txt", out / "camvid" / "classes.txt")
    photographs = out / "photographs"
    photographs.mkdir()
    for path in evenly(sorted(each for each in (data / "imagenet1000" / "train").rglob("*") if each.is_file()), count):
        _jpeg(path, photographs / f"{path.stem}.jpg")


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths at even distances, or all."""
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in np.unique(places)]


def _jpeg(source: Path, target: Path) -> None:
    if source.suffix.lower() in (".jpg", ".jpeg"):
        shutil.copy(source, target)
        return
    image = cv2.imread(str(source), cv2.IMREAD_COLOR)
    if image is None or not cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise BundleError(f"{source} can't be read as an image")


def check_size(sizes: dict[str, float]) -> None:
    """Raise BundleError with the sizes in MiB if they are too much together."""
    total = sum(sizes.values())
    if total > MOST_MIB:
        largest = max(sizes, key=lambda name: sizes[name])
        raise BundleError(
            f"the bundle would have {total:.1f} MiB, and at most {MOST_MIB:.0f} can be carried; the largest part is "
            f"{largest} ({sizes[largest]:.1f} MiB): give fewer --images, or find out which wheel has grown"
        )


def _mib(paths: Iterable[Path]) -> float:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    return sum(file.stat().st_size for file in files) / 2**20


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise BundleError(f"pip {words[0]} {words[-1]} failed: {lines[-1]}")


def _commit() -> str:
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
