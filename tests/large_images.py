"""Images that lie somewhere on the earth."""

import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio.transform import Affine

from conftest import draw_scene

PLAIN = Affine(0.5, 0, 500000.25, 0, -0.5, 5400000.75)
UTM = "EPSG:32633"


def georeferenced(
    path: Path, driver: str = "GTiff", transform: Affine = PLAIN, crs: str | None = UTM, seed: int = 0, **options: Any
) -> Path:
    """A drawn scene of 90 x 60 px, or of `size`, which lies somewhere."""
    width, height = options.pop("size", (90, 60))
    image = draw_scene(seed, width, height)[0]
    profile = {"driver": driver, "height": height, "width": width, "count": 3, "dtype": "uint8", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PNGs, which GDAL can't write in place
        with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as raster:
            raster.write(image.transpose(2, 0, 1))
    return path
