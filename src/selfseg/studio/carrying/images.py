"""Images found again by their content, wherever they lie and whatever they are called now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
        self._clicked: set[int] = set()  # rows

    def add(self, image: int, click: Click) -> None:
        """Take in a click on an image."""
        self._places.add((image, click.level, click.point))
        self._clicked.update(self._rows(image, click))

    def has(self, image: int, click: Click) -> bool:
        """Whether one of them is on the segment of this click."""
        if not self._places:
            return False
        return (image, click.level, click.point) in self._places or not self._clicked.isdisjoint(
            self._rows(image, click)
        )

    def _rows(self, image: int, click: Click) -> list[int]:
        """The regions that a click says something of, where they are known."""
        return [] if self._store is None else self._store.segment_at(image, *click.point, click.level).tolist()
