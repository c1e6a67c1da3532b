"""Draw the figures of the site's pages into docs/pictures/site: `python docs/_site/figures.py`.

The diagrams are drawn from nothing but this file. `--photograph` also makes the strip of a photograph and what
selfseg sees in it, which takes a minute and needs the extra `demo`. `--demo RUN` makes docs/pictures/demo.jpg of the
run that `make demo` left in RUN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

OUT = Path(__file__).resolve().parents[1] / "pictures" / "site"
TEAL, AMBER, BLUE, RED, GRAY, INK = "#00796b", "#f9a825", "#5c6bc0", "#d81b60", "#b0bec5", "#263238"
SETTINGS = {"svg.hashsalt": "selfseg", "font.family": "DejaVu Sans", "font.size": 11, "text.color": INK}


def save(name: str, figure: Any) -> None:
    """Write a figure, the same to the byte in each call."""
    figure.savefig(OUT / f"{name}.svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    plt.close(figure)


def sheet(width: float, height: float) -> tuple[Any, Axes]:
    """An empty sheet; lengths are in inches, and so are coordinates."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, text: str, width: float = 1.5, height: float = 0.6, colour: str = GRAY) -> None:
    """A rounded box with a text in it, (x, y) being its middle."""
    corner = (x - width / 2 + 0.06, y - height / 2 + 0.06)
    shape = FancyBboxPatch(corner, width - 0.12, height - 0.12, "round,pad=0.06", fc=colour + "33", ec=colour, lw=1.4)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=10)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>") -> None:
    """An arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=12, color=INK, lw=1.2))


def note(axes: Axes, x: float, y: float, text: str, size: float = 9.5, **how: Any) -> None:
    """A remark."""
    axes.text(x, y, text, ha=how.pop("ha", "center"), va="center", fontsize=size, **how)


def scene(axes: Axes, x: float, y: float, side: float, flipped: bool = False, zoom: float = 1.0) -> None:
    """A small drawn landscape: sky, ground, and a house, seen whole or closer."""
    frame = Rectangle((x, y), side, side, fc="#bbdefb", ec=INK, lw=1.2)
    axes.add_patch(frame)
    parts = [
        (np.array([[0, 0], [1, 0], [1, 0.38], [0, 0.38]]), "#a5d6a7"),
        (np.array([[0.5, 0.3], [0.85, 0.3], [0.85, 0.6], [0.5, 0.6]]), "#ffcc80"),
        (np.array([[0.45, 0.6], [0.9, 0.6], [0.675, 0.82]]), "#ef9a9a"),
    ]
    for corners, colour in parts:
        seen = (corners - [0.62, 0.5]) * zoom + [0.5 if zoom > 1 else 0.62, 0.5]
        if flipped:
            seen[:, 0] = 1 - seen[:, 0]
        patch = Polygon(seen * side + [x, y], closed=True, fc=colour, ec="white", lw=0.8)
        axes.add_patch(patch)
        patch.set_clip_path(frame)
    axes.add_patch(Rectangle((x, y), side, side, fc="none", ec=INK, lw=1.2))


def vice() -> None:
    """Regions of two views, their vectors, and the swapped prediction."""
    figure, axes = sheet(8.2, 3.6)
    for y, zoom, flipped, name in ((2.0, 1.0, False, "view 1"), (0.3, 1.35, True, "view 2")):
        scene(axes, 0.3, y, 1.3, flipped, zoom)
        for step in (1, 2, 3):
            where = step * 1.3 / 4
            axes.plot([0.3 + where] * 2, [y, y + 1.3], color=INK, lw=0.5, alpha=0.6)
            axes.plot([0.3, 1.6], [y + where] * 2, color=INK, lw=0.5, alpha=0.6)
        arrow(axes, (1.7, y + 0.65), (2.2, y + 0.65))
        box(axes, 2.85, y + 0.65, "network", 1.2, colour=BLUE)
        arrow(axes, (3.5, y + 0.65), (3.95, y + 0.65))
        box(axes, 4.65, y + 0.65, "mean vector\nof each region", 1.4, 0.75, colour=TEAL)
        note(axes, 0.95, y + 1.45, name)
    for y in (2.65, 0.95):
        arrow(axes, (5.4, y), (5.95, y))
    box(axes, 6.7, 2.65, "its prototype,\nshared out evenly", 1.5, 0.75, colour=AMBER)
    box(axes, 6.7, 0.95, "a guess of\nthe prototype", 1.5, 0.75, colour=AMBER)
    arrow(axes, (6.7, 2.2), (6.7, 1.4), style="<|-|>")
    note(axes, 6.85, 1.8, "must agree for\nthe same region", ha="left", size=9)
    save("vice", figure)


def maskcontrast() -> None:
    """Pixels of an object against the objects of many images."""
    figure, axes = sheet(8.2, 3.3)
    scene(axes, 0.2, 0.9, 1.4)
    axes.add_patch(Rectangle((0.8, 1.28), 0.7, 0.82, fc="none", ec=RED, lw=2.4, ls="--"))
    note(axes, 0.9, 0.6, "a mask says:\nthis is an object", size=9)
    arrow(axes, (1.68, 1.65), (2.08, 1.65))
    box(axes, 2.65, 1.65, "network", 1.1, colour=BLUE)
    arrow(axes, (3.23, 1.65), (3.6, 1.65))
    note(axes, 4.0, 2.7, "its pixels", size=9)
    for x, y in ((3.8, 1.9), (4.1, 2.15), (4.25, 1.7), (3.85, 1.4), (4.15, 1.25)):
        axes.add_patch(Circle((x, y), 0.09, fc=RED, ec="none"))
    for y, colour, name in (
        (2.6, RED, "the same object in another view:\npulled together"),
        (1.7, GRAY, "objects of the other images:\npushed apart"),
        (0.8, GRAY, "objects of earlier images, in a queue:\npushed apart"),
    ):
        axes.add_patch(Circle((5.2, y), 0.16, fc=colour, ec=INK, lw=0.8))
        note(axes, 5.45, y, name, ha="left", size=8.5)
        arrow(axes, (4.42, 1.75), (5.02, y), style="-|>" if colour == RED else "-")
    save("maskcontrast", figure)


def slotcon() -> None:
    """Pixels assigned to prototypes, pooled to slots, found again by the teacher."""
    figure, axes = sheet(8.2, 3.7)
    rows = ((2.15, 1.0, False, "crop 1", "student", BLUE), (0.25, 1.35, True, "crop 2", "teacher", GRAY))
    for y, zoom, flipped, name, network, colour in rows:
        scene(axes, 0.3, y, 1.25, flipped, zoom)
        note(axes, 0.92, y + 1.38, name, size=9)
        arrow(axes, (1.65, y + 0.6), (2.05, y + 0.6))
        box(axes, 2.65, y + 0.6, network, 1.1, colour=colour)
        arrow(axes, (3.25, y + 0.6), (3.65, y + 0.6))
        for row in range(4):
            for column in range(4):
                right = column if not flipped else 3 - column
                kind = AMBER if row > 2 else (RED if right >= 2 and row in (1, 2) else BLUE if row < 3 else AMBER)
                kind = TEAL if row == 0 else kind
                corner = (3.75 + 0.25 * column, y + 0.1 + 0.25 * (3 - row))
                axes.add_patch(Rectangle(corner, 0.25, 0.25, fc=kind + "99", ec="white"))
        arrow(axes, (4.85, y + 0.6), (5.25, y + 0.6))
        for place, kind in enumerate((TEAL, RED, BLUE, AMBER)):
            axes.add_patch(Circle((5.45 + 0.3 * place, y + 0.6), 0.12, fc=kind, ec=INK, lw=0.7))
        note(axes, 5.9, y + 0.95, "slots", size=9)
    arrow(axes, (4.25, 2.1), (4.25, 1.45), style="<|-|>")
    note(axes, 4.35, 1.78, "same place,\nsame prototype", ha="left", size=8.5)
    arrow(axes, (5.9, 2.55), (5.9, 1.35), style="<|-|>")
    note(axes, 6.0, 1.95, "a slot must be found again\namong all slots of the batch", ha="left", size=8.5)
    save("slotcon", figure)


def baselines() -> None:
    """What the methods compare, from whole images to single pixels."""
    figure, axes = sheet(8.2, 2.9)
    rows = (
        ("whole images", "MoCo v2, SwAV, BYOL, DINO,\ninstance discrimination", GRAY),
        ("regions and objects", "ViCE, SlotCon, MaskContrast,\nDetCon", TEAL),
        ("pixels or cells", "PiCIE, IIC, DeepCluster,\nSTEGO, DenseCL, PixPro", BLUE),
    )
    for place, (what, names, colour) in enumerate(rows):
        x = 1.45 + 2.65 * place
        scene(axes, x - 0.55, 1.4, 1.1)
        if place == 0:
            axes.add_patch(Rectangle((x - 0.6, 1.35), 1.2, 1.2, fc="none", ec=RED, lw=2.5))
        elif place == 1:
            axes.add_patch(Rectangle((x - 0.07, 1.7), 0.52, 0.65, fc="none", ec=RED, lw=2.5))
        else:
            for row in range(5):
                for column in range(5):
                    where = (x - 0.44 + 0.22 * column, 1.51 + 0.22 * row)
                    axes.add_patch(Circle(where, 0.045, fc=RED, ec="white", lw=0.5))
        note(axes, x, 2.68, what, size=10.5, weight="bold")
        box(axes, x, 0.75, names, 2.5, 0.75, colour=colour)
    save("baselines", figure)


def clusters() -> None:
    """The same points in 3 and in 6 groups."""
    random = np.random.default_rng(3)
    middles = np.array([[0, 0], [1.2, 0.3], [3.6, 0.2], [4.3, 1.2], [1.8, 3.0], [3.0, 3.2]])
    points = np.concatenate([middle + 0.28 * random.standard_normal((40, 2)) for middle in middles])
    kinds = np.repeat(np.arange(6), 40)
    figure, both = plt.subplots(1, 2, figsize=(8.2, 3.1))
    palette = np.array([TEAL, AMBER, BLUE, RED, "#8d6e63", "#7cb342"])
    for axes, groups, title in ((both[0], kinds // 2, "k = 3: coarse"), (both[1], kinds, "k = 6: finer")):
        axes.scatter(*points.T, s=9, c=palette[groups])
        for group in range(groups.max() + 1):
            axes.plot(*points[groups == group].mean(0), marker="X", ms=11, mfc="white", mec=INK)
        axes.set(xticks=[], yticks=[], title=title)
        for side in axes.spines.values():
            side.set_color(GRAY)
    figure.tight_layout()
    save("clusters", figure)


def iou() -> None:
    """Two shapes, what both cover, and what either covers."""
    figure, axes = sheet(8.2, 2.6)
    width, height, low = 1.5, 1.3, 0.75  # moved by .6 against each other: .9 of width in common, 2.1 together
    for x, name in ((1.4, "a person's mask and ours"), (4.1, "both say so: 60 px"), (6.8, "either says so: 140 px")):
        note(axes, x, 0.4, name)
        for left, colour in ((x - 1.05, BLUE), (x - 0.45, RED)):
            fill = AMBER if x > 6 else colour + "44"
            axes.add_patch(Rectangle((left, low), width, height, fc=fill, ec="none"))
        if 3 < x < 6:
            axes.add_patch(Rectangle((x - 0.45, low), 0.9, height, fc=AMBER, ec="none"))
        for left, colour in ((x - 1.05, BLUE), (x - 0.45, RED)):
            axes.add_patch(Rectangle((left, low), width, height, fc="none", ec=colour, lw=2))
    note(axes, 4.1, 2.42, "IoU = 60 / 140 = .43", size=12, weight="bold")
    save("iou", figure)


def void() -> None:
    """From numbered clusters to classes and void."""
    figure, axes = sheet(8.2, 3.0)
    colours = {"road": TEAL, "sky": BLUE, "car": RED, None: GRAY}
    rows = ("road", "road", "sky", "car", None, None)
    note(axes, 1.2, 2.8, "clusters", weight="bold")
    note(axes, 4.1, 2.8, "your decision", weight="bold")
    note(axes, 7.0, 2.8, "value in the mask", weight="bold")
    values = {"road": (2.15, "0"), "sky": (1.35, "1"), "car": (0.95, "2")}
    for place, name in enumerate(rows):
        y = 2.35 - 0.4 * place
        box(axes, 1.2, y, str(place), 0.9, 0.34, colours[name])
        target = values[name][0] if name else 0.45
        arrow(axes, (1.7, y), (3.3, target))
    for name, (y, value) in values.items():
        box(axes, 4.1, y, name, 1.5, 0.34, colours[name])
        arrow(axes, (4.9, y), (6.4, y))
        note(axes, 7.0, y, value, size=11)
    box(axes, 4.1, 0.45, "left out, or no name", 1.8, 0.34, GRAY)
    arrow(axes, (5.05, 0.45), (6.4, 0.45))
    note(axes, 7.0, 0.45, "255: void", size=11)
    save("void", figure)


def photograph() -> None:
    """A photograph, its embedding as colours, and its clusters: one strip, made by the package itself."""
    import tempfile
    from importlib.util import find_spec
    from shutil import copyfile

    import cv2

    import selfseg
    from selfseg.recipe_book.pyramid import pyramid

    names = {"skimage": ("data/astronaut.png", "data/coffee.png", "data/rocket.jpg", "data/chelsea.png")}
    names["sklearn"] = ("datasets/images/china.jpg", "datasets/images/flower.jpg")
    with tempfile.TemporaryDirectory() as temporary:
        images, run = Path(temporary) / "photos", Path(temporary) / "run"
        images.mkdir()
        for package, files in names.items():
            spec = find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            for file in files:
                copyfile(Path(spec.origin).parent / file, images / Path(file).name)
        selfseg.train(pyramid(images, run))
        selfseg.cluster(run, images, k=[24])
        selfseg.segment(run, images, run / "segments", k=24)
        photo = cv2.imread(str(images / "china.jpg"))
        vectors = selfseg.load(run).embed(images / "china.jpg").numpy()
        cells = vectors.reshape(len(vectors), -1)
        _, _, axes = np.linalg.svd((cells - cells.mean(1, keepdims=True)).T, full_matrices=False)
        colours = (axes[:3] @ cells).T
        low, high = np.percentile(colours, (2, 98), axis=0)
        colours = np.clip((colours - low) / (high - low), 0, 1).reshape(*vectors.shape[1:], 3)
        size = (photo.shape[1], photo.shape[0])
        embedding = cv2.resize((colours * 255).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        overlay = cv2.resize(cv2.imread(str(run / "segments" / "overlay" / "china.jpg")), size)
        gap = np.full((size[1], 12, 3), 255, np.uint8)
        strip = np.concatenate([photo, gap, embedding, gap, overlay], axis=1)
        width = 1200
        strip = cv2.resize(strip, (width, round(strip.shape[0] * width / strip.shape[1])), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(OUT / "embedding.jpg"), strip, [cv2.IMWRITE_JPEG_QUALITY, 85])


def demo(run: Path) -> None:
    """Five of the photographs of `make demo`, and their segments with 16 and with 40 clusters."""
    import tempfile

    import cv2

    import selfseg

    images, size = run.parent / "demo_photographs", (320, 180)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [images]
        for k in (16, 40):
            out = selfseg.segment(run, images, Path(temporary) / str(k), k=k, progress=False)
            folders.append(out / "overlay")
        for name in ("coffee", "china", "flower", "chelsea", "grace_hopper"):
            row = []
            for folder in folders:
                picture = cv2.imread(str(next(folder.glob(f"{name}.*"))))
                scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
                picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                top, left = (picture.shape[0] - size[1]) // 2, (picture.shape[1] - size[0]) // 2
                row.append(picture[top : top + size[1], left : left + size[0]])
            rows.append(np.hstack(row))
    cv2.imwrite(str(OUT.parent / "demo.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


FIGURES: tuple[Callable[[], None], ...] = (vice, maskcontrast, slotcon, baselines, clusters, iou, void)

if __name__ == "__main__":
    matplotlib.use("Agg")
    OUT.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):
        for figure in FIGURES:
            figure()
    if "--photograph" in sys.argv:
        photograph()
    if "--demo" in sys.argv:
        demo(Path(sys.argv[sys.argv.index("--demo") + 1]))
