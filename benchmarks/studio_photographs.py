"""Photographs with labels drawn by hand, and a run on them: what the pictures of docs/studio.md are made with.

    python benchmarks/studio_photographs.py build/walk
    python benchmarks/studio_walk.py build/walk/run build/walk/train/images build/walk/train/labels

The first line cuts seven photographs that scikit-image, scikit-learn and matplotlib bring along into 42 images, writes
a label of each (OUT/train/{images,labels} and OUT/classes.txt, the layout of CamVid), takes the pyramid, which learns
nothing, and clusters the images. Nothing is downloaded. `--no-run` only draws. Needs the extra `demo`. Where the
photographs are from and who may use them how is written in docs/pictures/CREDITS.txt.

The outlines are a few pixels off here and there, which is enough for a person who clicks on segments, and too coarse
to measure anything by.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (480, 360)
SHARES = (1.0, 0.6, 0.72, 0.66, 0.78, 0.9)
"""How long the side of each of a photograph's crops is, as a share of the longest that fits."""

VOID = "void"
CLASSES = (
    VOID,
    "sky",
    "water",
    "building",
    "plants",
    "flower",
    "cat",
    "cup",
    "table",
    "person",
    "flag",
    "rocket",
    "tower",
    "wall",
)

Outline = tuple[str, str]


@dataclass(frozen=True)
class Photograph:
    """A photograph inside of an installed package, and what it shows.

    Attributes:
        name: what it is called here.
        package: that brings it along.
        path: of its file, inside of the package.
        ground: class of what no outline encloses.
        outlines: (class, corners) in the order in which they are drawn, later ones over earlier ones; corners are
            "x,y x,y ..." in pixels of the photograph.
    """

    name: str
    package: str
    path: str
    ground: str
    outlines: tuple[Outline, ...]


PHOTOGRAPHS = (
    Photograph(
        "rocket",
        "skimage",
        "data/rocket.jpg",
        "sky",
        (
            ("tower", "50,0 88,0 84,150 78,330 70,427 0,427 0,360 20,250 35,140 45,60"),
            ("tower", "198,123 204,123 203,195 203,427 165,427 180,290 190,195 197,190"),
            ("tower", "443,123 449,123 452,190 457,195 462,270 470,340 478,427 440,427 440,200"),
            ("tower", "560,0 600,0 620,110 640,210 640,427 580,427 575,350 568,200 562,80"),
            (VOID, "90,400 135,400 135,370 165,370 165,380 205,380 205,427 90,427"),  # lamps
            (VOID, "265,380 285,365 360,365 380,380 380,427 265,427"),
            (VOID, "420,380 445,380 470,400 470,427 425,427"),
            ("rocket", "310,145 316,132 321,126 328,133 333,145 335,180 335,330 335,406 310,406 308,330 309,180"),
        ),
    ),
    Photograph(
        "cat",
        "skimage",
        "data/chelsea.png",
        "wall",
        (
            (
                "cat",
                "42,0 398,0 388,25 372,60 358,75 363,110 360,150 345,190 318,222 312,262 280,280 270,300 0,300 0,125 "
                "20,115 32,100 32,55 38,20",
            ),
        ),
    ),
    Photograph(
        "flower",
        "sklearn",
        "datasets/images/flower.jpg",
        "plants",
        (
            (
                "flower",
                "170,200 178,170 190,145 205,120 225,105 255,97 300,88 318,85 350,92 385,105 410,120 428,145 435,180 "
                "446,215 445,245 430,280 415,305 395,330 360,350 330,358 300,360 260,350 215,325 190,300 175,270 "
                "170,235",
            ),
            ("flower", "288,410 295,393 320,390 345,375 370,385 395,378 430,382 442,410 470,422 470,427 292,427"),
            (VOID, "582,395 600,392 618,400 622,427 580,427"),  # a bud
        ),
    ),
    Photograph(
        "pagoda",
        "sklearn",
        "datasets/images/china.jpg",
        "sky",
        (
            (VOID, "0,203 640,203 640,427 0,427"),  # the far shore, in haze
            ("water", "322,236 420,238 505,222 565,221 565,300 340,340"),
            ("water", "0,282 60,272 84,268 84,322 24,330 0,300"),
            (VOID, "424,230 470,226 500,231 500,240 426,241"),
            (
                "building",
                "197,31 214,31 215,46 217,60 240,82 265,97 292,107 320,118 318,127 295,138 294,160 330,170 328,182 "
                "319,186 320,226 328,228 326,240 338,244 352,250 346,262 341,268 342,305 350,309 348,322 372,334 "
                "345,352 326,372 322,427 285,427 240,392 195,362 150,345 75,335 75,318 82,312 80,282 64,275 62,268 "
                "78,250 92,245 98,235 97,222 100,186 85,182 85,172 105,164 120,160 120,138 97,130 95,122 97,107 "
                "120,100 150,90 178,76 193,60 194,46",
            ),
            ("plants", "0,135 6,160 10,180 30,190 50,202 70,220 74,235 60,248 35,255 30,265 0,280"),
            (
                "plants",
                "0,294 22,305 22,322 60,320 68,345 110,342 120,335 140,332 160,345 165,358 203,365 212,384 236,391 "
                "276,393 288,410 292,427 0,427",
            ),
            (
                "plants",
                "318,427 322,395 345,372 352,352 375,335 392,322 420,315 445,300 475,291 495,298 515,285 535,272 "
                "556,275 562,280 556,262 550,262 548,235 552,215 568,205 578,190 572,175 580,165 588,145 600,137 "
                "615,137 630,145 640,152 640,427",
            ),
        ),
    ),
    Photograph(
        "astronaut",
        "skimage",
        "data/astronaut.png",
        "wall",
        (
            ("flag", "0,0 46,0 64,88 66,94 95,205 90,225 50,270 30,340 20,400 25,470 40,512 0,512"),
            (VOID, "368,282 512,272 512,470 480,400 440,355 400,344 364,350"),  # something black
            (
                "rocket",
                "408,0 430,0 436,30 440,45 447,40 455,65 455,180 456,230 453,262 440,278 410,282 375,282 370,268 "
                "355,222 362,205 380,180 380,60 386,40 396,50 398,20",
            ),
            (
                "person",
                "118,190 130,165 155,150 185,150 188,180 220,190 252,188 256,176 280,195 300,220 305,240 325,250 "
                "345,275 352,300 362,350 350,355 320,375 290,420 278,470 278,512 40,512 25,480 20,410 25,340 40,280 "
                "60,245 90,222 112,210",
            ),
            (
                "person",
                "155,72 160,50 190,25 215,17 240,15 270,25 295,50 301,80 298,110 280,130 270,137 266,150 255,180 "
                "220,190 190,182 184,150 182,130 170,120 160,105",
            ),
            (
                "person",
                "278,512 278,470 290,420 320,375 360,350 400,344 440,355 475,390 492,430 498,460 512,465 512,512",
            ),
        ),
    ),
    Photograph(
        "officer",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "wall",
        (
            ("flag", "0,0 235,0 235,25 205,45 170,80 150,150 155,200 165,250 195,290 200,310 200,600 0,600"),
            (
                "person",
                "200,312 150,345 70,378 45,400 30,450 15,560 10,600 512,600 512,440 495,395 430,370 380,340 335,310 "
                "330,330 270,405 245,405 208,350",
            ),
            (
                "person",
                "155,195 160,165 180,145 220,132 310,130 345,145 370,165 375,190 372,215 355,270 358,295 340,308 "
                "330,300 328,330 300,375 270,405 245,405 220,375 208,350 200,310 195,290 165,270 160,240 160,220",
            ),
            (
                "person",  # the cap
                "147,170 150,110 172,85 180,60 215,45 225,28 255,22 290,28 305,45 340,65 352,88 365,90 372,125 "
                "370,165 345,145 310,130 215,132 180,148 160,165",
            ),
        ),
    ),
    Photograph(
        "coffee",
        "skimage",
        "data/coffee.png",
        "table",
        (
            (VOID, "0,0 148,0 0,104"),  # the floor
            (
                "cup",
                "77,222 85,170 110,120 140,92 180,70 400,95 420,105 450,140 470,180 479,225 470,270 450,305 420,340 "
                "380,370 330,385 280,389 220,380 170,358 130,330 100,285 82,250",
            ),
            (
                "cup",
                "397,70 410,66 424,72 420,95 405,140 390,190 384,215 383,235 400,255 406,275 400,300 380,320 355,325 "
                "335,312 327,290 330,265 345,250 368,235 375,210 390,180 405,130 408,100",
            ),
            (
                "cup",
                "174,105 178,85 195,55 220,35 255,22 290,18 330,25 365,42 392,70 405,95 407,120 402,150 388,195 "
                "372,225 330,255 315,275 285,284 255,275 250,265 235,295 222,307 205,303 197,290 198,270 210,250 "
                "218,235 195,210 182,180 175,140",
            ),
        ),
    ),
)


def open_photograph(photograph: Photograph) -> Image.Image:
    """The photograph, RGB.

    Raises:
        SystemExit: if the package isn't installed or came without the file.
    """
    found = find_spec(photograph.package)
    file = Path(found.origin).parent / photograph.path if found and found.origin else None
    if file is None or not file.is_file():
        message = f"{photograph.package} with {photograph.path} is missing: pip install 'selfseg[demo]'"
        raise SystemExit(message)
    return Image.open(file).convert("RGB")


def label_of(photograph: Photograph, size: tuple[int, int]) -> Image.Image:
    """The label of a whole photograph of (width, height) pixels, a place in `CLASSES` at each pixel."""
    label = Image.new("L", size, CLASSES.index(photograph.ground))
    draw = ImageDraw.Draw(label)
    for name, corners in photograph.outlines:
        places = [tuple(int(number) for number in corner.split(",")) for corner in corners.split()]
        draw.polygon(places, fill=CLASSES.index(name))
    return label


def crops(photograph: int, size: tuple[int, int], count: int) -> Iterator[tuple[float, float, float, float]]:
    """Boxes (left, top, right, bottom) of 4 by 3 in a photograph of (width, height) pixels, the same at each call."""
    longest = min(size[0], size[1] * SIZE[0] / SIZE[1])
    for number, share in enumerate(SHARES[:count]):
        width = share * longest
        height = width * SIZE[1] / SIZE[0]
        across, down = np.random.default_rng([photograph, number]).random(2)
        left, top = float(across * (size[0] - width)), float(down * (size[1] - height))
        yield left, top, left + width, top + height


def draw(out: Path, count: int = len(SHARES)) -> Path:
    """Write `count` crops of each photograph with their labels; returns the folder of images.

    The photographs take turns, and each round begins with another one: what is taken from the collection at even
    distances shows different things, too.
    """
    images, labels = out / "train" / "images", out / "train" / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES))
    (out / "classes.txt").write_text(lines, "utf-8")
    for turn, photograph in enumerate(PHOTOGRAPHS):
        picture = open_photograph(photograph)
        label = label_of(photograph, picture.size)
        for number, box in enumerate(crops(turn, picture.size, count)):
            place = (turn - 3 * number) % len(PHOTOGRAPHS)
            name = f"{number * len(PHOTOGRAPHS) + place + 1:02d}_{photograph.name}.png"
            picture.resize(SIZE, Image.Resampling.LANCZOS, box=box).save(images / name)
            label.resize(SIZE, Image.Resampling.NEAREST, box=box).save(labels / name)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the images, the labels and the run")
    parser.add_argument("-k", type=int, default=27, help="number of clusters")
    parser.add_argument("--no-run", action="store_true", help="only draw images and labels")
    options = parser.parse_args()
    images = draw(options.out)
    print(f"{len(list(images.iterdir()))} images with labels in {options.out / 'train'}")
    if options.no_run:
        return
    import selfseg
    from selfseg.recipe_book import pyramid

    run = selfseg.train(pyramid.pyramid(images, options.out / "run"))
    selfseg.cluster(run, images, k=[options.k])
    print(f"a run with {options.k} clusters in {run}")


if __name__ == "__main__":
    main()
