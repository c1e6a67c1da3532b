"""Put the data of a worked example into a folder: `python examples/worked/data.py NAME`.

    photographs   42 photographs, cut from seven              docs/examples/photographs.md, masks-to-coco.md
    tissue        16 pieces of a stained section of tissue    docs/examples/tissue.md
                  and, beside them, their labels
    terrain       a GeoTIFF of heights in Tennessee           docs/examples/terrain.md
    labelled      the 42 photographs with labels              docs/examples/comparison.md

Everything lies inside of scikit-image, scikit-learn and matplotlib (`pip install 'selfseg[demo]'`); nothing is
downloaded. Whose pictures they are, and who may use them how, is written in docs/pictures/CREDITS.txt. The labels were
drawn by hand for this project (those of photographs in benchmarks/studio_photographs.py) and are a few pixels off here
and there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import studio_photographs as drawn  # noqa: E402

FOR_VAL = 4
"""Of the six pieces of each photograph, the first four are for training and the last two are measured."""

PIECE = 128
METRES = 111_200
"""Of a degree of latitude."""

TISSUE = ("gland", "stroma", "empty")
SECTION = (  # of ihc.png; what no outline encloses is stroma, and 255 is void
    (
        0,
        "0,0 421,0 428,25 438,45 446,64 452,96 460,128 462,158 461,175 456,190 449,205 443,224 443,240 438,256 432,270 "
        "426,288 411,297 401,290 381,280 364,278 356,270 348,262 334,256 321,240 308,225 301,210 294,192 286,175 "
        "281,160 276,145 274,138 272,150 271,165 269,180 264,200 259,215 245,235 237,242 228,250 220,255 205,260 "
        "185,261 165,256 160,252 152,240 142,236 128,232 118,226 105,222 100,217 80,216 65,210 58,206 50,198 40,185 "
        "30,172 20,160 12,150 5,140 0,136",
    ),
    (
        0,
        "0,150 10,155 20,165 28,175 38,187 48,200 58,210 66,216 75,222 82,235 90,248 97,258 105,275 112,290 122,302 "
        "130,315 138,325 144,340 148,355 152,370 156,384 158,400 159,416 158,440 156,460 157,480 158,512 40,512 "
        "39,490 40,470 42,450 45,420 47,400 50,370 52,350 50,335 45,325 35,315 25,300 15,285 5,275 0,266",
    ),
    (
        0,
        "287,302 283,306 275,315 272,325 265,330 256,337 252,350 252,385 254,400 257,415 262,430 270,442 278,452 "
        "285,463 293,478 300,490 306,500 320,503 335,507 350,505 362,500 368,488 375,475 380,455 382,440 382,415 "
        "380,400 377,385 374,365 370,350 362,343 352,338 345,333 335,330 325,320 312,316 300,310",
    ),
    (2, "0,266 5,275 15,285 25,300 35,315 45,325 50,335 52,350 50,370 47,400 45,420 42,450 40,470 39,490 40,512 0,512"),
    (2, "51,0 58,9 66,17 75,12 83,5 92,0"),
    (2, "139,0 153,0 158,15 163,28 158,36 148,40 140,38 137,25"),
    (
        2,
        "280,0 283,3 290,25 300,45 306,55 316,65 324,82 330,90 348,105 352,120 360,140 370,155 378,175 381,190 374,196 "
        "360,185 352,170 342,150 335,130 325,115 318,100 308,80 302,62 296,45 288,25 277,0",
    ),
    (2, "98,411 110,412 111,425 100,424"),
    (2, "440,392 462,392 470,400 472,440 474,460 460,462 440,455 430,470 424,490 420,470 424,430 430,410"),
    (255, "165,480 190,478 205,490 205,512 160,512"),  # fat, or a crack
    (255, "424,490 430,470 440,455 460,462 474,460 470,480 440,500 425,498"),  # something in a vessel
)


def inside(package: str, path: str) -> Path:
    """A file of an installed package.

    Raises:
        SystemExit: if the package isn't installed or came without the file.
    """
    found = find_spec(package)
    file = Path(found.origin).parent / path if found and found.origin else None
    if file is None or not file.is_file():
        raise SystemExit(f"{package} with {path} is missing: pip install 'selfseg[demo]'")
    return file


def photographs(out: Path) -> str:
    """OUT/NUMBER_NAME.png, 480 x 360 pixels."""
    pieces = _pieces()
    for number, (name, image, _) in enumerate(pieces, 1):
        image.save(out / f"{number:02d}_{name}.png", compress_level=1)
    return f"{len(pieces)} photographs"


def labelled(out: Path) -> str:
    """OUT/{train,val}/{images,labels} and OUT/classes.txt; void is 255."""
    names = [name for name in drawn.CLASSES if name != drawn.VOID]
    to_value = np.array([names.index(name) if name in names else 255 for name in drawn.CLASSES], np.uint8)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (out / split / kind).mkdir(parents=True, exist_ok=True)
    pieces = _pieces()
    for number, (name, image, label) in enumerate(pieces, 1):
        folder = out / ("train" if number <= FOR_VAL * len(drawn.PHOTOGRAPHS) else "val")
        file = f"{number:02d}_{name}.png"
        image.save(folder / "images" / file, compress_level=1)
        Image.fromarray(to_value[np.asarray(label)]).save(folder / "labels" / file)
    lines = [f"{value} {name}\n" for value, name in enumerate(names)]
    (out / "classes.txt").write_text("".join(lines) + "255 void\n", "utf-8")
    return f"{len(pieces)} photographs with labels of {len(names)} classes"


def _pieces() -> list[tuple[str, Image.Image, Image.Image]]:
    """(name of the photograph, piece, its label), the photographs taking turns."""
    rounds: list[list[tuple[str, Image.Image, Image.Image]]] = [[] for _ in drawn.SHARES]
    for turn, photograph in enumerate(drawn.PHOTOGRAPHS):
        whole = drawn.open_photograph(photograph)
        label = drawn.label_of(photograph, whole.size)
        for number, box in enumerate(drawn.crops(turn, whole.size, len(drawn.SHARES))):
            piece = whole.resize(drawn.SIZE, Image.Resampling.LANCZOS, box=box)
            rounds[number].append((photograph.name, piece, label.resize(drawn.SIZE, Image.Resampling.NEAREST, box=box)))
    return [piece for each in rounds for piece in each]


def tissue(out: Path) -> str:
    """OUT/yROW-xCOLUMN.png, 128 x 128 pixels: glands of the colon, one protein in brown, nuclei in blue.

    Their labels are OUT_labels/yROW-xCOLUMN.png, with a classes.txt.
    """
    section = Image.open(inside("skimage", "data/ihc.png")).convert("RGB")
    label = Image.new("L", section.size, TISSUE.index("stroma"))
    for value, corners in SECTION:
        places = [tuple(int(number) for number in corner.split(",")) for corner in corners.split()]
        ImageDraw.Draw(label).polygon(places, fill=value)
    beside = out.with_name(f"{out.name}_labels")
    beside.mkdir(exist_ok=True)
    for y in range(0, section.height, PIECE):
        for x in range(0, section.width, PIECE):
            box = (x, y, x + PIECE, y + PIECE)
            section.crop(box).save(out / f"y{y:03d}-x{x:03d}.png")
            label.crop(box).save(beside / f"y{y:03d}-x{x:03d}.png")
    lines = [f"{value} {name}\n" for value, name in enumerate(TISSUE)]
    (beside / "classes.txt").write_text("".join(lines) + "255 void\n", "utf-8")
    return f"{len(list(out.iterdir()))} pieces of a section; their labels are in {beside}"


def terrain(out: Path) -> str:
    """OUT/jacksboro.tif: height, slope and height above the surroundings, float32, in WGS 84.

    The heights were measured by the Shuttle Radar Topography Mission, one every 3 seconds of arc. The other two bands
    are computed from them.
    """
    try:
        import rasterio
        from rasterio.transform import Affine
    except ImportError:
        raise SystemExit("rasterio is missing: pip install 'selfseg[geo]'") from None
    from scipy.ndimage import uniform_filter

    with np.load(inside("matplotlib", "mpl-data/sample_data/jacksboro_fault_dem.npz"), allow_pickle=False) as stored:
        height = stored["elevation"].astype(np.float32)  # (344, 403) metres, north at the top
        step, west, north = float(stored["dx"]), float(stored["xmin"]), float(max(stored["ymin"], stored["ymax"]))
    metres = METRES * step, METRES * step * np.cos(np.radians(north))  # between rows, between columns
    down, across = np.gradient(height, *metres)
    slope = np.degrees(np.arctan(np.hypot(down, across)))
    above = height - uniform_filter(height, 13)  # 13 pixels are about a kilometre
    bands = {"height in m": height, "slope in degrees": slope, "m above the surroundings": above}
    with rasterio.open(
        out / "jacksboro.tif",
        "w",
        driver="GTiff",
        height=height.shape[0],
        width=height.shape[1],
        count=len(bands),
        dtype="float32",
        crs="EPSG:4326",
        transform=Affine(step, 0, west, 0, -step, north),
        tiled=True,
        blockxsize=128,
        blockysize=128,
    ) as file:
        for number, (name, values) in enumerate(bands.items(), 1):
            file.write(values.astype(np.float32), number)
            file.set_band_description(number, name)
    return f"a raster of {height.shape[1]} x {height.shape[0]} pixels and {len(bands)} bands"


DATA: dict[str, Callable[[Path], str]] = {made.__name__: made for made in (photographs, tissue, terrain, labelled)}


def main() -> None:
    """Read the command, and write the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA, help="which data")
    parser.add_argument("out", type=Path, nargs="?", help="the folder to write; NAME if not given")
    options = parser.parse_args()
    out = options.out or Path(options.name)
    out.mkdir(parents=True, exist_ok=True)
    print(f"written: {out}, {DATA[options.name](out)}")


if __name__ == "__main__":
    main()
