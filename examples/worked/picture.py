"""The pictures on the pages of worked examples: `python examples/worked/picture.py MASKS IMAGES OUT.jpg NAME ...`.

MASKS is what `selfseg apply` wrote of IMAGES. Each NAME becomes a column: the image, below it the image under the
colours of its mask, and at the bottom what the colours mean. Of one name, the two stand side by side. A raster's image
is its first band as hills in the light of the evening.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.colors import LightSource
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

GAP = 6


def shown(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3) of a photograph, or of a raster's heights."""
    if file.suffix != ".tif":
        return np.asarray(Image.open(file).convert("RGB"))
    import rasterio

    with rasterio.open(file) as raster:
        hills = LightSource(azdeg=315, altdeg=45).hillshade(raster.read(1), vert_exag=2, dx=75, dy=93)
    return np.repeat((hills * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def mask_of(folder: Path, name: str) -> NDArray[np.uint8]:
    """(H, W) class values."""
    file = folder / "masks" / f"{name}.png"
    if file.is_file():
        return np.asarray(Image.open(file))
    import rasterio

    with rasterio.open(file.with_suffix(".tif")) as raster:
        return np.asarray(raster.read(1), np.uint8)


def main() -> None:
    """Read the command, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path, help="folder that `selfseg apply` wrote")
    parser.add_argument("images", type=Path, help="folder of the images")
    parser.add_argument("out", type=Path, help="the picture")
    parser.add_argument("names", nargs="+", help="of images, without suffix")
    parser.add_argument("--width", type=int, default=1_000, help="of the picture, in px")
    options = parser.parse_args()
    legend = json.loads((options.masks / "legend.json").read_text("utf-8"))
    colours = {one["value"]: ImageColor.getrgb(one["colour"]) for one in legend["classes"]}
    width = (options.width + GAP) // max(2, len(options.names)) - GAP
    columns = []
    for name in options.names:
        image = shown(next(options.images.glob(f"{name}.*")))
        mask, under = mask_of(options.masks, name), image.astype(np.float32)
        for value, colour in colours.items():
            under[mask == value] = 0.45 * under[mask == value] + 0.55 * np.array(colour, np.float32)
        size = (width, round(image.shape[0] * width / image.shape[1]))
        columns.append([Image.fromarray(each).resize(size) for each in (image, under.astype(np.uint8))])
    if len(columns) == 1:
        columns = [[each] for each in columns[0]]
    rows, height = len(columns[0]), columns[0][0].height
    font, line = ImageFont.load_default(size=15), 24
    places, x, y = [], 0, 0
    for one in legend["classes"]:
        needed = 22 + round(font.getlength(one["name"])) + 22
        if x + needed > options.width:
            x, y = 0, y + line
        places.append((x, y, one))
        x += needed
    picture = Image.new("RGB", (options.width, rows * (height + GAP) + y + line), "white")
    for number, column in enumerate(columns):
        for row, each in enumerate(column):
            picture.paste(each, (number * (width + GAP), row * (height + GAP)))
    draw, top = ImageDraw.Draw(picture), rows * (height + GAP)
    for x, y, one in places:
        draw.rectangle((x, top + y + 4, x + 15, top + y + 19), fill=one["colour"], outline="black")
        draw.text((x + 22, top + y + 2), one["name"], fill="black", font=font)
    picture.save(options.out, quality=82)
    print(f"written: {options.out}, {picture.width} x {picture.height} pixels")


if __name__ == "__main__":
    main()
