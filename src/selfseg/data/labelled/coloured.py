"""Label files whose colours mean something, read by a list of classes with colours; and a list for those without.

| file | is read by |
|---|---|
| RGB, RGBA | its colours; transparent pixels of a colour that isn't listed are void |
| palette | the colours in use, if all are listed, else its indices; see below |
| gray | its indices; where all listed colours are gray and all of the file's are among them, its colours |

Where a palette's colours and indices are all known and say different things: if it has each class's colour at the
class's own index, the indices are right; if the whole palette consists of listed colours, as that of a reduced RGB
image, the colours are; else the file is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.classes_file import format_classes
from selfseg.data.labelled.labels import VOID, ColourMap, LabelMap, UnknownId, as_ids, read_exact
from selfseg.data.labelled.legend import Colour, Legend, NamedClass
from selfseg.data.labelled.values import FileValues
from selfseg.errors import LabelError

_SURVEYED = 30  # files from which a list of classes is proposed
_LISTED = 40  # colours in such a list; more are those of a photograph or of blended edges
_NONE = -1


@dataclass(frozen=True)
class ColouredCodes:
    """What the values of files mean, where a list of classes gives colours.

    Attributes:
        classes: C names.
        colours: (red, green, blue, class) each, 255 = void.
    """

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int, int], ...]

    @cached_property
    def _by_colour(self) -> dict[Colour, int]:
        return {(red, green, blue): c for red, green, blue, c in self.colours}

    @cached_property
    def _gray(self) -> NDArray[np.bool_]:
        """(256,) whether a gray value is a listed colour; none is unless all listed colours are gray."""
        listed = np.zeros(256, bool)
        if all(red == green == blue for red, green, blue, _ in self.colours):
            listed[[red for red, *_ in self.colours]] = True
        return listed

    def apply(self, stored: FileValues) -> NDArray[np.uint8]:
        """The classes of what a label file holds.

        Returns:
            (H, W) uint8, 255 = void.

        Raises:
            UnknownId: for a value or colour that has no meaning.
            LabelError: if the palette has two meanings, or a pixel is half transparent.
        """
        path, mode, pixels = stored.path, stored.mode, stored.pixels
        if mode == "P":
            return self._palette(path, pixels, stored.palette)
        colours = ColourMap(self.classes, self.colours)
        if pixels.ndim == 2:
            gray = pixels * np.uint8(255) if mode == "1" else pixels
            if gray.dtype == np.uint8 and self._gray[gray].all():
                return colours.apply(np.repeat(gray[..., None], 3, axis=2))
            return LabelMap.indices(self.classes).apply(pixels)
        if pixels.shape[2] == 3:
            return colours.apply(pixels)
        return self._transparent(path, pixels, colours)

    def _transparent(self, path: Path, pixels: NDArray[np.uint8], colours: ColourMap) -> NDArray[np.uint8]:
        opaque, alpha = np.ascontiguousarray(pixels[..., :3]), pixels[..., 3]
        half = (alpha != 0) & (alpha != 255)
        if half.any():
            y, x = divmod(int(half.argmax()), half.shape[1])
            raise LabelError(
                f"{path} is half transparent at x = {x}, y = {y} (alpha {alpha[y, x]}), so that its colour means "
                "nothing; save the labels without smooth edges"
            )
        clear = alpha == 0
        if clear.any():
            listed = np.zeros(clear.shape, bool)
            for colour in self._by_colour:
                listed |= (opaque == colour).all(axis=2)
            clear &= ~listed
            opaque[clear] = self.colours[0][:3]  # any that is known
        found = colours.apply(opaque)
        found[clear] = VOID
        return found

    def _palette(self, path: Path, indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """By colours or by indices, as the head of this file says."""
        counts = np.bincount(indices.ravel(), minlength=256)
        used = np.flatnonzero(counts)
        colours = [self._colour(palette, i) for i in range(256)]
        by_colour = np.array([self._by_colour.get(colour, _NONE) if colour else _NONE for colour in colours])
        by_index = np.array([i if i < len(self.classes) else VOID if i == VOID else _NONE for i in range(256)])
        coloured, indexed = (bool((table[used] != _NONE).all()) for table in (by_colour, by_index))
        own = [self.colours_of(c) for c in range(min(len(self.classes), len(palette)))]
        if indexed and all(colours[c] in listed for c, listed in enumerate(own)):
            coloured = False  # every class's colour at its own index
        if coloured and indexed and (by_colour[used] != by_index[used]).any():
            # A palette often ends with black that stands for nothing.
            last = max([int(used[-1]), *(i for i, colour in enumerate(colours) if colour not in (None, (0, 0, 0)))])
            indexed = not all(by_colour[i] != _NONE for i in range(last + 1))
            if indexed:
                i = int(used[by_colour[used] != by_index[used]][0])
                raise LabelError(
                    f"{path} can be read in two ways: by its colours the palette's entry {i} is "
                    f"{self._name(by_colour[i])}, by its index {self._name(by_index[i])}. Save it as RGB for the "
                    "first, as gray for the second"
                )
        if not (coloured or indexed):
            strange = used[by_colour[used] == _NONE]
            i = int(strange[np.argmin(by_index[strange])])  # first one without any meaning
            y, x = divmod(int((indices == i).argmax()), indices.shape[1])
            raise UnknownId(colours[i] or i, (x, y))
        return np.asarray((by_colour if coloured else by_index).astype(np.uint8)[indices], np.uint8)

    def colours_of(self, c: int) -> set[Colour]:
        """The colours that stand for a class."""
        return {(red, green, blue) for red, green, blue, of in self.colours if of == c}

    def _colour(self, palette: NDArray[np.uint8], i: int) -> Colour | None:
        return (int(palette[i, 0]), int(palette[i, 1]), int(palette[i, 2])) if i < len(palette) else None

    def _name(self, c: int) -> str:
        return "void" if c == VOID else repr(self.classes[c])


def read_stored(path: Path, data: bytes | None = None) -> FileValues:
    """A label file as stored, whether it holds indices or colours.

    Args:
        path: the file.
        data: its bytes, if they aren't to be read from `path`.

    Returns:
        Its pixels as (H, W) uint8 or uint16 indices, (H, W, 3) RGB, or (H, W, 4) RGBA.

    Raises:
        LabelError: if it can't be read, is lossy, or has more pixels than images may have.
    """
    stored = read_exact(path, data)
    if stored.pixels.ndim == 2:
        return replace(stored, pixels=as_ids(stored))
    if stored.pixels.dtype != np.uint8:
        raise LabelError(f"{path} holds colours of 16 bits; the colours of classes have 8, so save it so")
    return stored


def ask_for_colours(first: Path, files: Sequence[Path], classes: Path, names: Sequence[str]) -> str:
    """What to say of colour-coded files that no list explains: a list to be filled in.

    Args:
        first: a file with colours.
        files: all label files; some of them are surveyed.
        classes: where the list belongs.
        names: the classes that the list names, if it is there.
    """
    step = max(1, -(-len(files) // _SURVEYED))
    looked = [first, *(path for path in files[::step] if path != first)]
    totals: dict[int, int] = {}
    for path in looked:
        try:
            pixels = read_stored(path).pixels
        except LabelError:
            continue
        if pixels.ndim == 3:
            words = (pixels[..., 0].astype(np.uint32) << 16) | (pixels[..., 1].astype(np.uint32) << 8) | pixels[..., 2]
            for word, count in zip(*np.unique(words, return_counts=True), strict=True):
                totals[int(word)] = totals.get(int(word), 0) + int(count)
    colour = tuple(int(value) for value in read_stored(first).pixels[0, 0, :3])
    text = f"{first} holds colours, e.g. {colour} at x = 0, y = 0, and "
    text += f"{classes} gives its classes none. " if names else f"there is no {classes} that says what they mean. "
    order = sorted(totals, key=lambda word: (-totals[word], word))
    if len(order) > _LISTED:
        return text + (
            f"{len(order)} colours are in {len(looked)} of {len(files)} files, as after a resize or in a JPEG; labels "
            "must be saved anew in their exact colours, then each gets a line such as '0 sky #808080'"
        )
    shares = [f"{totals[word] / max(sum(totals.values()), 1):.2%} of the pixels" for word in order]
    found = Legend(
        tuple(NamedClass(f"class {i}", (word >> 16, word >> 8 & 255, word & 255)) for i, word in enumerate(order))
    )
    return text + (
        f"Write it with the right names, 255 as the number of what counts for nothing, and the others from 0; these "
        f"colours are in {len(looked)} of {len(files)} files:\n\n{format_classes(found, shares)}"
    )
