"""What images in one packed file have in common, whatever packs them: they have places in it and no paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.images import ImageCollection
from selfseg.errors import DataError
from selfseg.ops.channels import Channels

GONE = -1
"""In the first column of an image's place: it is no longer there."""


@dataclass(frozen=True, eq=False)
class PackedImages(ImageCollection):
    """Photographs that lie in a packed file; `paths` are ARCHIVE/MEMBER, which no file system opens.

    Attributes:
        places: (N, columns) int64: where each image lies; a first column of `GONE`: nowhere.
    """

    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 1), np.int64))

    def measured(self, channels: Channels | None) -> Self:
        """The same images; raises DataError for channels."""
        if channels is not None:
            raise DataError(
                f"{self.root}: images with many channels or bits can't be read from it; unpack {self.packing}"
            )
        return self

    @property
    def packing(self) -> str:
        """What packs them, in words."""
        return "the shards"

    def subset(self, indices: Iterable[int]) -> Self:
        """The images at `indices`, under the names that they have here."""
        chosen = list(indices)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            places=self.places[chosen],
        )

    def restore(self, files: Mapping[str, Any]) -> Self:
        """As of `ImageCollection`; images that are no longer there are "missing" when they are read."""
        here = {name: i for i, name in enumerate(self.names)}
        places = np.full((len(files), self.places.shape[1]), GONE, np.int64)
        for row, name in enumerate(files):
            if name in here:
                places[row] = self.places[here[name]]
        paths = tuple(self.root / file for file in files.values())
        return replace(self, paths=paths, names=tuple(files), places=places)
