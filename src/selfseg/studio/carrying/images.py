"""Images found again by their content, wherever they lie and whatever they are called now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.regions.region_tree import cut_regions
from selfseg.studio.decisions.state import Click, ImageId
from selfseg.studio.regions import RegionStore


class ImageIndex(Protocol):
    """A collection's images, as `RegionStore` lists them."""

    @property
    def names(self) -> Sequence[str]:
        """Relative to the collection."""
        ...

    @property
    def hashes(self) -> Sequence[str]:
        """Of each image's content."""
        ...


class ImageFinder:
    """Finds the images that decisions are about among those of a collection.

    Args:
        names: of the images, relative to the collection.
        hashes: of their contents, as decisions have them.

    Example:
        >>> finder = ImageFinder(["new/a", "b"], ["11", "22"])
        >>> finder.find(ImageId("11", "old/a")), finder.find(ImageId("33", "b"))
        (0, None)
        >>> finder.why_not(ImageId("33", "b"))
        'whose content has changed'
    """

    def __init__(self, names: Sequence[str], hashes: Sequence[str]) -> None:
        self._names = {name: index for index, name in enumerate(names)}
        self._hashes = list(hashes)
        self._first: dict[str, int] = {}
        for index, digest in enumerate(hashes):
            self._first.setdefault(digest, index)

    def find(self, image: ImageId) -> int | None:
        """The image's index, that of the same name if several have its content; None if no image has it."""
        here = self._names.get(image.name)
        if here is not None and self._hashes[here] == image.hash:
            return here
        return self._first.get(image.hash)

    def why_not(self, image: ImageId) -> str:
        """Why an image was not found, in words that follow "images"."""
        return "whose content has changed" if image.name in self._names else "that are not in this collection"


class OwnClicks:
    """The clicks that a run has of its own, to tell whether another one is on the same segment.

    Args:
        index: of the images. If it is a `RegionStore`, segments are known: two clicks are on the same one where one
            segment lies in the other. Else only clicks at the same point and level are.
    """

    def __init__(self, index: ImageIndex) -> None:
        self._store = index if isinstance(index, RegionStore) else None
        self._places: set[tuple[int, float, tuple[float, float]]] = set()
        self._clicked: dict[int, NDArray[np.bool_]] = {}  # by image, the regions that were clicked

    def add(self, image: int, click: Click) -> None:
        """Take in a click on an image."""
        self._places.add((image, click.level, click.point))
        if self._store is not None:
            segment = _segment(self._store, image, click)
            self._clicked[image] = self._clicked[image] | segment if image in self._clicked else segment

    def has(self, image: int, click: Click) -> bool:
        """Whether one of them is on the segment of this click."""
        if (image, click.level, click.point) in self._places:
            return True
        if self._store is None or image not in self._clicked:
            return False
        return bool((self._clicked[image] & _segment(self._store, image, click)).any())


def _segment(store: RegionStore, image: int, click: Click) -> NDArray[np.bool_]:
    """(n,) which of an image's regions a click says something of."""
    count = int(store.first[image + 1] - store.first[image])
    region = store.region_at(image, *click.point)
    groups = np.arange(count)
    if click.level < count:
        groups = cut_regions(store.tree(image), max(int(click.level), 1))
    inside: NDArray[np.bool_] = groups == groups[region]
    return inside
