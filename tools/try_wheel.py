"""Try a wheel alone, in an environment of its own: `python tools/try_wheel.py dist/*.whl --versions oldest`.

uv (`pip install uv`) makes the environment, with the newest or the oldest versions that pyproject.toml allows, or those
of constraints.txt. Then, with that Python and far from the repository, images are drawn, a baseline and the pyramid
are trained, and clusters, masks, embeddings, names, an export and a report are made, and looked at. It ends with a
line of JSON that says which versions these were. An environment takes some 6 GB where torch brings CUDA libraries;
uv links them from its cache, so a second one takes much less.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CHOICES = {
    "newest": ["--resolution", "highest"],
    "oldest": ["--resolution", "lowest-direct", "--no-build"],  # the oldest that has a wheel for this Python
    "pinned": ["--constraints", str(ROOT / "constraints.txt")],
}

FIRST_RUN = """
import json, platform, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path
import numpy as np
from PIL import Image
import selfseg
from selfseg.cli import main

assert "site-packages" in selfseg.__file__, selfseg.__file__
def call(*words):
    assert main(list(words)) == 0, words

if __name__ == "__main__":
    brief, *packages = sys.argv[1:]
    brief = brief == "brief"
    began = time.time()
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(8):  # noise on sky above grass, and a red thing
        image = np.full((96, 128, 3), (90, 150, 220), np.uint8)
        image[60:] = (60, 140, 50)
        left = 10 + 10 * number
        image[40:80, left:left + 30] = (200, 40, 30)
        noisy = np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(f"photos/{number}.jpg")
    subprocess.run([str(Path(sys.executable).with_name("selfseg")), "--version"], check=True)
    small = "--precision 32-true --method.embedder.resolution 96 --method.views.size 64 --method.views.short-side 80"
    small += " --steps 3 --batch-size 4 --workers 2"
    call("train", "moco_scratch", "photos", "--out", "runs/moco", *small.split())
    losses = [json.loads(line).get("loss") for line in Path("runs/moco/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(loss) for loss in losses if loss is not None), losses
    if not brief:
        call("train", "pyramid", "photos", "--out", "runs/pyramid")
    for run in ("runs/moco",) if brief else ("runs/moco", "runs/pyramid"):
        call("cluster", run, "photos", "-k", "3")
        call("segment", run, "photos", "--out", f"{run}/segments", "-k", "3")
        masks = [np.asarray(Image.open(file)) for file in sorted(Path(f"{run}/segments/index").rglob("*.png"))]
        assert len(masks) == 8
        assert all(mask.shape == (96, 128) and mask.max() < 3 for mask in masks)
    if not brief:
        # the pyramid tells sky and grass apart
        sky, grass = masks[0][5:30, 60:], masks[0][80:, 60:]
        assert np.bincount(sky.ravel(), minlength=3).argmax() != np.bincount(grass.ravel(), minlength=3).argmax()
        call("embed", "runs/pyramid", "photos", "--out", "vectors")
        call("name", "runs/pyramid", "0=sky", "1=grass", "2=thing", "-k", "3")
        call("apply", "runs/pyramid", "photos", "--out", "named")
        call("export", "runs/pyramid", "--format", "safetensors")
        call("report", "runs/pyramid", "--images", "photos")
        assert (Path("runs/pyramid") / "report.html").stat().st_size > 10_000
    versions = {name: version(name) for name in packages}
    print(json.dumps({"python": platform.python_version(), "seconds": round(time.time() - began), **versions}))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Install and try; the exit code of what failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="a version or a path (this one)")
    parser.add_argument("--versions", choices=CHOICES, default="newest")
    parser.add_argument("--brief", action="store_true", help="train a baseline, cluster and segment; nothing else")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="selfseg-wheel-") as name:
        work = Path(name)
        python = work / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        (work / "try").mkdir()
        (work / "try" / "first_run.py").write_text(FIRST_RUN, "utf-8")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        install = ["uv", "pip", "install", "--python", str(python), *CHOICES[options.versions]]
        install.append(str(options.wheel.resolve()))
        if options.versions == "oldest":  # uv takes the oldest only of what it is asked for itself
            install += project["dependencies"]
        required = [Requirement(line).name for line in project["dependencies"]]
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        for command in (
            ["uv", "venv", "--python", options.python, str(work / "environment")],
            install,
            ["uv", "pip", "check", "--python", str(python)],
            [str(python), "-X", "utf8", "first_run.py", "brief" if options.brief else "whole", *required],
        ):
            done = subprocess.run(command, cwd=work / "try", env=clean, check=False)
            if done.returncode:
                sys.stderr.write(f"{' '.join(command[:3])} ended with {done.returncode}\n")
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
