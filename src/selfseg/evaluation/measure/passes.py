"""The two passes that every protocol is made of: sample vectors of one split, count predictions on another.

Letters: D dimensions, C classes, n outputs of a head, H W label pixels, h w embedding cells.

Embeddings are never stored: a pass computes each image's once and serves all heads (every k, every seed, every
protocol) before it takes the next.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.streaming import to_device
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.reading.ahead import Skips
from selfseg.errors import ConfigError, LabelError
from selfseg.evaluation.measure.confusion import VOID, cross_counts
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.reading import Progress, Tally, embeddings
from selfseg.ops.crf import MOST_CLASSES, CRFConfig, refine_logits
from selfseg.ops.linear import linear
from selfseg.ops.resized_argmax import resized_argmax, resized_rows_argmax

_MEMORY = 1 << 30  # bytes, at most, of drawn vectors of either kind, unless all are asked for
_MANY = 32  # outputs, from which on it pays to ask which of them can win at all
_SCORES = 1 << 20  # scores at label resolution held at a time; 4 MB stay in a core's cache


@dataclass(frozen=True)
class AffineHead:
    """A classifier of vectors: class scores are `weight @ vector + bias`, the largest wins.

    k-means' nearest centroid and a linear layer both are one (see `selfseg.ops.kmeans.affine_scores`).

    Attributes:
        weight: (n, D) float32.
        bias: (n,) float32.
    """

    weight: Tensor
    bias: Tensor

    @property
    def outputs(self) -> int:
        """How many."""
        return len(self.weight)

    def to(self, device: torch.device) -> AffineHead:
        """The same on a device."""
        return AffineHead(self.weight.to(device), self.bias.to(device))


@dataclass(frozen=True)
class RefinedHead:
    """A classifier whose probabilities a CRF refines before the largest wins.

    Attributes:
        head: the classifier; its probabilities are softmax(scores / temperature).
        temperature: 1 for a linear layer, whose scores are logits; cosines and distances need a smaller one.
        crf: the CRF, run at the label's size.
    """

    head: AffineHead
    temperature: float
    crf: CRFConfig

    def __post_init__(self) -> None:
        if len(self.head.weight) > MOST_CLASSES:
            raise ConfigError(f"a CRF takes at most {MOST_CLASSES} clusters or prototypes, not {len(self.head.weight)}")

    @property
    def outputs(self) -> int:
        """How many."""
        return self.head.outputs

    def to(self, device: torch.device) -> RefinedHead:
        """The same on a device."""
        return replace(self, head=self.head.to(device))


@dataclass(frozen=True)
class Samples:
    """Vectors drawn from a split.

    Attributes:
        cells: (N, D) float32, embedding cells drawn without looking at labels; for k-means. On the embeddings' device,
            all of them ("all") on the CPU.
        pixels: (M, D) float32 on the CPU, the embedding interpolated at labelled pixels; for the linear layer.
        labels: (M,) int64 of those pixels, in [0, C).
        tally: what was met.
        cells_seen: how many cells the split's embeddings have in all.
    """

    cells: Tensor
    pixels: Tensor
    labels: Tensor
    tally: Tally
    cells_seen: int = 0


class Drawn(NamedTuple):
    """The vectors drawn from one image; see `Samples`.

    Attributes:
        number: of the image in the whole split.
        cells: (n, D) float32.
        pixels: (m, D) float32.
        labels: (m,) int64.
        seen: how many cells its embedding has.
    """

    number: int
    cells: Tensor
    pixels: Tensor
    labels: Tensor
    seen: int

    def to_cpu(self) -> Drawn:
        """The same where every process can read it."""
        return self._replace(cells=self.cells.cpu(), pixels=self.pixels.cpu())


@dataclass(frozen=True)
class Draw:
    """How vectors are drawn; see `sample`.

    Attributes:
        images: of the whole split.
        cells: about how many in all, or "all".
        pixels: about how many in all.
        seed: of the draw.
    """

    images: int
    cells: int | Literal["all"]
    pixels: int
    seed: int = 0

    def of(self, number: int, embedding: Tensor, label: NDArray[np.uint8]) -> Drawn:
        """Draw from one image.

        Args:
            number: in the whole split, which keys the draw.
            embedding: (D, h, w) float32.
            label: (H, W) uint8.
        """
        generator = np.random.default_rng([self.seed, number])
        flat = embedding.flatten(1)  # (D, hw)
        wanted_cells, wanted_pixels = (
            flat.shape[1] if wanted == "all" else -(-min(wanted, _MEMORY // (4 * len(flat))) // self.images)
            for wanted in (self.cells, self.pixels)
        )
        if self.cells == "all":
            cells = flat.T.cpu()
        else:
            chosen = generator.choice(flat.shape[1], min(wanted_cells, flat.shape[1]), replace=False)
            cells = flat[:, to_device(chosen, flat.device)].T
        labelled = np.flatnonzero(label != VOID) if wanted_pixels else np.zeros(0, np.int64)
        places = generator.choice(labelled, min(wanted_pixels, len(labelled)), replace=False)
        labels = torch.from_numpy(label.reshape(-1)[places].astype(np.int64))
        return Drawn(number, cells, at_pixels(embedding, places, label.shape), labels, flat.shape[1])


class Drawings:
    """Puts together what was drawn from images, whatever the order in which they come.

    Args:
        draw: how.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw, self._parts, self._seen = draw, list[Drawn](), 0
        self._free = _free_memory() if draw.cells == "all" else None

    def add(self, drawn: Drawn) -> None:
        """Take an image's; raises ConfigError if "all" cells would take more memory than is free."""
        self._parts.append(drawn)
        self._seen += drawn.seen
        if self._free is not None:
            expected = round(self._seen / len(self._parts) * self._draw.images)
            _check_room(expected, drawn.cells.shape[1], self._free)

    def joined(self, tally: Tally) -> Samples:
        """All of it, in the order of the split."""
        parts = sorted(self._parts, key=lambda drawn: drawn.number)
        cells, pixels = torch.cat([one.cells for one in parts]), torch.cat([one.pixels for one in parts])
        return Samples(cells, pixels.cpu(), torch.cat([one.labels for one in parts]), tally, self._seen)


def sample(
    extractor: Extractor,
    data: LabelledImages,
    cells: int | Literal["all"],
    pixels: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Samples:
    """Draw vectors from a split, about equally many from each image.

    Args:
        extractor: what to measure.
        data: the split.
        cells: about how many embedding cells to draw in all; 0 = none, "all" = every one.
        pixels: about how many labelled pixels to draw in all; 0 = none.
        seed: the draw is a pure function of it and the image's place in the split.
        progress: called after each image.

    Returns:
        The samples; fewer than asked where images have fewer cells or labels, or where they would take more than
        1 GiB (400,000 vectors of 671 dimensions still fit). That limit is not for "all".

    Raises:
        ConfigError: if "all" cells would take more memory than is free, which the first image tells.
    """
    tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
    draw = Draw(len(data), cells, pixels, seed)
    drawings = Drawings(draw)
    for index, _, embedding, label in embeddings(extractor, data, tally, f"sample {extractor.name}", progress):
        drawings.add(draw.of(index, embedding, label))
    return drawings.joined(tally)


def _check_room(cells: int, dim: int, free: int) -> None:
    """Raise unless so many cells can be held twice: while they are joined, and as k-means centres its own."""
    needed = 2 * 4 * cells * dim
    if needed > free:
        raise ConfigError(
            f"all {cells:,} cells of {dim} dimensions would take {needed / 2**30:.1f} GiB (twice 4 bytes each) but "
            f"{free / 2**30:.1f} GiB are free; give a number of points (100,000 is usual), or a lower resolution"
        )


def _free_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system doesn't tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # all that there is, e.g. of a Mac
        except (AttributeError, OSError, ValueError):
            return None
    try:  # a container may have less than its machine
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        cached = next(
            int(line.split()[1]) for line in (group / "memory.stat").open() if line.startswith("inactive_file")
        )
        return max(0, min(free, int((group / "memory.max").read_text()) - used + cached))
    except (OSError, StopIteration, ValueError):
        return free


def count(
    extractor: Extractor,
    data: LabelledImages,
    heads: Sequence[AffineHead | RefinedHead],
    progress: Progress | None = None,
    skips: Skips | None = None,
) -> tuple[list[NDArray[np.int64]], Tally]:
    """Apply heads to a split and count their outputs against the labels.

    Scores, not decisions, are interpolated bilinearly to the label's size. As they are affine in the embedding and
    the interpolation's weights add up to 1, this is exactly the head applied to the interpolated embedding, and
    it costs n channels instead of D channels and an (n x D) product at every pixel.

    Args:
        extractor: what to measure.
        data: the split.
        heads: any number; the embedding is computed once for all.
        progress: called after each image.
        skips: takes images that can't be read, see `embeddings`.

    Returns:
        For each head (n, C) int64, the labelled pixels of class c with output j; and what was met.
    """
    classes = len(data.class_names)
    tally = Tally(labels=np.zeros(classes, np.int64))
    counters = [_Counter(classes, head.outputs) for head in heads]
    what = f"measure {extractor.name}"
    for _, image, embedding, label in embeddings(extractor, data, tally, what, progress, skips):
        heads = [head.to(embedding.device) for head in heads]  # moves them once
        for counter, head in zip(counters, heads, strict=True):
            if isinstance(head, RefinedHead):
                output = predict_refined(embedding, head, image, data.images.rgb)
            else:
                output = predict(embedding, head, label.shape)
            counter.add(label, output)
    return [counter.counts() for counter in counters], tally


class _Counter:
    """Adds up how often each of n outputs meets each of C labels."""

    def __init__(self, classes: int, outputs: int) -> None:
        self.classes, self.outputs = classes, outputs
        self.total = np.zeros((outputs, classes), np.int64)
        self.table: Tensor | None = None  # of a GPU, which is waited for only at the end

    def add(self, label: NDArray[np.uint8], output: Tensor) -> None:
        """Count an image: both (H, W), labels in [0, C) or 255 = void."""
        if output.is_cuda:
            self._add_there(label, output)
        else:
            self.total += cross_counts(label, output.numpy(), self.classes, self.outputs)[0].T

    def _add_there(self, label: NDArray[np.uint8], output: Tensor) -> None:
        """`add` on the output's device: a table (256 * n,) with a row for each value of a label."""
        if self.table is None:
            self.table = torch.zeros((VOID + 1) * self.outputs, dtype=torch.int64, device=output.device)
        place = to_device(label, output.device).long().mul_(self.outputs).add_(output).flatten()
        self.table.scatter_add_(0, place, self.table.new_ones(1).expand(len(place)))

    def counts(self) -> NDArray[np.int64]:
        """(n, C); raises LabelError if a label was neither a class nor void."""
        if self.table is None:
            return self.total
        table = self.table.reshape(VOID + 1, self.outputs).cpu().numpy()
        outside = np.flatnonzero(table[self.classes : VOID].any(1))
        if len(outside):
            wrong = self.classes + int(outside[0])
            raise LabelError(f"label {wrong} is outside of the classes 0..{self.classes - 1}, and is not 255 (void)")
        total: NDArray[np.int64] = self.total + table[: self.classes].T
        return total


def at_pixels(embedding: Tensor, places: NDArray[np.int64], size: tuple[int, ...]) -> Tensor:
    """The embedding interpolated bilinearly at some pixels.

    Args:
        embedding: (D, h, w) float.
        places: (M,) flat indices y * W + x of pixels.
        size: (H, W) of the image that they are of.

    Returns:
        (M, D); the values that resizing the whole embedding to (H, W) would have there.
    """
    height, width = size
    if len(places) == 0:
        return embedding.new_zeros(0, len(embedding))
    y, x = np.divmod(places, width)
    # Pixel centres in [-1, 1], align_corners=False; a clamped border is what F.interpolate does.
    grid = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 1).astype(np.float32)
    where = to_device(grid, embedding.device)[None, None]  # (1, 1, M, 2)
    values = F.grid_sample(embedding[None], where, mode="bilinear", padding_mode="border", align_corners=False)
    return values[0, :, 0].T


def predict(embedding: Tensor, head: AffineHead, size: tuple[int, ...]) -> Tensor:
    """The head's winning output at every pixel.

    Args:
        embedding: (D, h, w) float32.
        head: of n outputs.
        size: (H, W) of the result.

    Returns:
        (H, W) int64 in [0, n).
    """
    dimension, h, w = embedding.shape
    height, width = size
    weight, bias = head.weight.to(embedding.device), head.bias.to(embedding.device)
    cells = embedding.reshape(dimension, h * w).T  # (hw, D)
    outputs = len(weight)
    if (h, w) == (height, width):
        result = torch.empty(h * w, dtype=torch.int64, device=embedding.device)
        rows = max(1, _SCORES // outputs)
        for start in range(0, h * w, rows):
            result[start : start + rows] = linear(cells[start : start + rows], weight, bias).max(1).indices
        return result.reshape(height, width)
    scores = linear(cells, weight, bias).reshape(h, w, outputs)
    # To ask which can win makes a GPU wait, and there the work that it saves costs less.
    if outputs <= _MANY or embedding.is_cuda:
        return resized_argmax(scores, (height, width))
    # With many outputs most can't win between two rows of cells; the rest is few.
    y = ((torch.arange(height) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    top = y.floor().long()
    result = torch.empty(height, width, dtype=torch.int64, device=embedding.device)
    for row in range(h):
        part = top == row
        between = scores[row : row + 2]
        possible = _possible(between)
        first = torch.zeros_like(top[part])
        result[part] = possible[resized_rows_argmax(between[..., possible], first, (y - top)[part], width)]
    return result


def predict_refined(embedding: Tensor, head: RefinedHead, image: NDArray[np.uint8], rgb: bool = True) -> Tensor:
    """The head's winning output at every pixel, after its CRF.

    Args:
        embedding: (D, h, w) float32.
        head: of n outputs.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels, at the size of the result.
        rgb: whether the image is a photograph; False for levels of measured channels.

    Returns:
        (H, W) int64 in [0, n).
    """
    weight, bias = head.head.weight.to(embedding.device), head.head.bias.to(embedding.device)
    scores = torch.einsum("nd,dhw->nhw", weight, embedding) + bias[:, None, None]
    scores = F.interpolate(scores[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
    return refine_logits(scores / head.temperature, image, head.crf, rgb).argmax(0)


def _possible(scores: Tensor) -> Tensor:
    """The outputs that can win at a point between the cells of one or two rows: (1 or 2, w, n) to ascending indices.

    Inside of a square of cells an output stays below its best corner, and the winner above the best of worst corners.
    """
    best, worst = scores.amax(0), scores.amin(0)  # (w, n)
    if len(best) > 1:
        best, worst = torch.maximum(best[:-1], best[1:]), torch.minimum(worst[:-1], worst[1:])
    return torch.nonzero((best >= worst.amax(1, keepdim=True)).any(0)).flatten()
