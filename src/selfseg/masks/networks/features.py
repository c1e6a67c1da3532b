"""Foreground by the features of a pretrained network, and by what a collection's foregrounds have in common.

Three known steps, put together by us:

1. Manifold ranking (`selfseg.masks.priors.ranking`; Yang et al., CVPR 2013) ranks an image's superpixels by relevance
   to its sides, then to what differs from them, but its graph knows more than colour: two superpixels are near if their
   colours are, and if the network's stages of 8 and 16 px see the same there.
2. Each image's map is wrong in a way of its own; what is right in them recurs. A logistic regression learns to tell
   foreground from background for the whole collection, from the stages of 16 and 32 px, with a penalty that is strong
   enough not to learn single images. What it says, smoothed over each image's graph and cut by Otsu's threshold, is
   what it learns from next, for eight rounds.
3. A fully connected CRF brings the map to the edges (`selfseg.masks.edges`).

No label of the images is used; the packaged network was trained with ImageNet's. docs/numbers.md has what each step is
worth ("Masks by features").

Letters in shapes: N superpixels of an image, M of all training images together, F features.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.streaming import Fetched, to_device
from selfseg.data.reading.ahead import map_beside, map_images
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import CheckpointError, ConfigError, EmptyCollection
from selfseg.masks.edges import to_image
from selfseg.masks.priors.ranking import rank_by
from selfseg.masks.priors.scene import Array, Scene, distances, enhance, look_at, picture_inside, shrink
from selfseg.masks.together import look_together
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.channels import Channels
from selfseg.ops.levels import fill_void, resize
from selfseg.ops.regions.smoothing import affinity, pool_map, smooth
from selfseg.plugins import registered
from selfseg.storage.tensors import read_tensors, write_tensors
from selfseg.threads import one_thread_each, usable_cores

VERSION = 1
"""Raised whenever the same images would get other maps."""

FILE = "features.safetensors"

_BORDER = 32  # px of mirrored image that the network sees, too
_SIGMA_SQUARED = 0.07  # of the graph; the paper's .1 is for colours alone
_SMOOTH = 20 / 3  # weight of the graph against what the regression says
_STEPS = 50  # at most, of the regression in a round
_STILL = 1e-4  # the largest change of a weight at which it has arrived


@dataclass(frozen=True)
class FeaturesConfig:
    """How `--method features` looks and learns.

    Attributes:
        backbone: timm's name of the network; its last three stages are used.
        init: its weights: default (the packaged ones), imagenet (timm's, downloaded) or a file.
        images: the largest number of images that it learns from; they are drawn evenly.
        size: longer side in px of what the network sees.
        rounds: how often the regression learns again from its own results.
        penalty: penalty on the regression's weights; with a larger one, single images count less.

    Raises:
        ConfigError: for a value that can't work.
    """

    backbone: str = "tf_efficientnet_lite0"
    init: str = "default"
    images: int = 300
    size: int = 512
    rounds: int = 8
    penalty: float = 0.006

    def __post_init__(self) -> None:
        if min(self.images, self.rounds) < 1 or self.size < 64 or not self.penalty > 0:
            raise ConfigError(
                f"need images >= 1, rounds >= 1, size >= 64 px and penalty > 0, not {self.images}, {self.rounds}, "
                f"{self.size} and {self.penalty}"
            )
        if self.init == "random" or (
            self.init == "default" and self.backbone.partition(".")[0] not in registered("selfseg.weights")
        ):
            raise ConfigError(
                f"--method features needs a network that has learned something, and none is packaged for "
                f"{self.backbone}; give its weights with --features.init FILE, or leave --features.backbone out"
            )


@dataclass(frozen=True)
class Foreground:
    """What the regression learned.

    Attributes:
        means: of each of the last two stages (C_i,) float32, over the collection's superpixels.
        deviations: as `means`.
        weights: (F + 1,) float32; the last one is the constant.
    """

    means: tuple[Array, ...]
    deviations: tuple[Array, ...]
    weights: Array

    def score(self, features: Array) -> Array:
        """How likely foreground is: (N, F) standardised features to (N,) in [0, 1]."""
        return _sigmoid(features @ self.weights[:-1] + self.weights[-1])


@dataclass(frozen=True)
class Seen:
    """An image as this method sees it.

    Attributes:
        scene: its superpixels.
        stages: mean of each stage in each superpixel, finest first: (N, C_i) float32.
    """

    scene: Scene
    stages: tuple[Array, ...]

    def without_pixels(self) -> Seen:
        """The same without the arrays (h, w, ...), which are four fifths of its size."""
        return Seen(
            replace(self.scene, lab=self.scene.lab[:0].copy(), regions=self.scene.regions[:0].copy()), self.stages
        )


@dataclass(frozen=True)
class Prepared:
    """An image before the network has seen it.

    Attributes:
        scene: its superpixels.
        pixels: (h, w, 3) uint8 RGB, or (h, w, C) levels, as the network sees it.
        where: the picture without a drawn frame, in the image at the working size.
        size: (h, w) of that.
    """

    scene: Scene
    pixels: NDArray[np.uint8]
    where: tuple[slice, slice]
    size: tuple[int, int]


class FeatureForeground:
    """Maps of the foreground by what was learned from a collection.

    Args:
        config: how.
        device: where the network runs.
        channels: how measured images are read; None = photographs.

    Raises:
        ConfigError, CheckpointError: if there is no such network, or the weights are not of it.
    """

    def __init__(
        self, config: FeaturesConfig, device: torch.device | str = "cpu", channels: Channels | None = None
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.rgb = channels is None or channels.colour
        # Not `aligned`: cells moved to where they look have an IoU of .82 instead of .85 on animals, .76 on people.
        made_of = EmbedderConfig(
            config.backbone,
            output_stride=32,
            decoder="pyramid",
            stages=(-3, -2, -1),
            dim=1,
            border=_BORDER,
            channels=channels,
        )
        self.embedder = Embedder(made_of)
        self.embedder.begin_from(config.init)
        self.embedder.to(self.device).eval()
        self.found: Foreground | None = None
        self._alone = threading.Lock()

    def look(self, image: NDArray[np.uint8]) -> Seen:
        """Superpixels and what the network sees in them: (h, w, 3) uint8 RGB, or levels, at the working size."""
        image = image if self.rgb else fill_void(image)
        large = self._enlarged(image)
        pixels = torch.from_numpy(np.ascontiguousarray(large)).to(self.device).permute(2, 0, 1)[None].float() / 255
        if self.device.type == "cpu":
            maps = self.embedder.pyramid_stages(pixels)
        else:
            with self._alone:
                maps = self.embedder.pyramid_stages(pixels)
        scene = look_at(image, rgb=self.rgb)
        return Seen(scene, tuple(pool_map(each[0].cpu().numpy(), scene.regions) for each in maps))

    def _enlarged(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the network sees it: the longer side of the wanted length, both of them multiples of its stride."""
        height, width = image.shape[:2]
        scale = self.config.size / max(height, width)
        size = [max(_BORDER, round(side * scale / _BORDER) * _BORDER) for side in (width, height)]
        large: NDArray[np.uint8] = resize(image, (size[0], size[1]), cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        return large

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """As of `selfseg.masks.together.Finder`: superpixels, and the image as the network sees it."""
        small, where, size = _inside(image, self.rgb)
        scene = look_at(small, rgb=self.rgb)
        return Prepared(scene, np.ascontiguousarray(self._enlarged(small)), where, size)

    def pixels(self, prepared: Prepared) -> NDArray[np.uint8]:
        """As of `Finder`."""
        return prepared.pixels

    def see(self, pixels: Sequence[NDArray[np.uint8]]) -> list[tuple[Fetched, ...]]:
        """The stages of several images of one size, finest first: (C_i, h_i, w_i) float32 each."""
        batch = to_device(np.stack(pixels), self.device).permute(0, 3, 1, 2).float() / 255
        stages = self.embedder.pyramid_stages(batch)
        return list(zip(*(Fetched(stage).rows() for stage in stages), strict=True))

    def coarse(self, prepared: Prepared, found: tuple[Fetched, ...]) -> Array | None:
        """As of `Finder`."""
        return self._map(_seen(prepared, found), prepared.where, prepared.size)

    def fit(self, images: ImageCollection, log: SkipLog, progress: bool = False, batch: Batching = AUTO) -> Foreground:
        """Learn from a collection what its foregrounds have in common; see the top of this module.

        Args:
            images: the collection.
            log: where those go that can't be read.
            progress: whether to show a bar on stderr.
            batch: how many images a GPU looks at together.

        Raises:
            EmptyCollection: if no image could be read.
            TooManyBadImages: see `SkipLog`.
        """
        with one_thread_each():
            self.found = self._fit(images, log, progress, batch)
        return self.found

    def _fit(self, images: ImageCollection, log: SkipLog, progress: bool, batch: Batching) -> Foreground:
        drawn = spread_indices(len(images), self.config.images)
        seen: list[Seen] = []

        def look(_: int, image: NDArray[np.uint8]) -> Seen:
            return self.look(_inside(image, self.rgb)[0])

        if batch.applies(self.device):
            looked = look_together(self, images, drawn, log, "features", progress, batch)
            pooled = map_beside(lambda one: _seen(one.prepared, one.found).without_pixels(), looked, usable_cores())
            with closing(looked), closing(pooled):
                seen.extend(pooled)
        else:
            looks = map_images(images, drawn, look, log, "features", progress)
            with closing(looks):
                seen.extend(each.without_pixels() for _, each in looks)
        if not seen:
            raise EmptyCollection("none of the images could be read; there is nothing to learn from")
        stages = [np.concatenate(each) for each in zip(*(one.stages for one in seen), strict=True)]
        means = tuple(each.mean(0, dtype=np.float64).astype(np.float32) for each in stages)
        deviations = tuple(np.maximum(each.std(0), 1e-6 * max(float(each.std()), 1e-6)) for each in stages)
        graphs = [csr_matrix(graph_of(one, means, deviations)) for one in seen]
        maps = [rank(one.scene, graph.toarray()) for one, graph in zip(seen, graphs, strict=True)]
        scenes = [one.scene for one in seen]
        del seen
        areas = np.concatenate([scene.areas for scene in scenes]) / len(scenes)
        regression = Regression(standardise(stages[1:], means[1:], deviations[1:]), areas, self.config.penalty)
        del stages
        ends = np.cumsum([len(scene.areas) for scene in scenes])
        for _ in range(self.config.rounds):
            regression.learn(np.concatenate(maps))
            scores = np.split(regression.scores(), ends[:-1])
            maps = [
                agree(scene, graph.toarray(), score) for scene, graph, score in zip(scenes, graphs, scores, strict=True)
            ]
        return Foreground(means, deviations, regression.weights)

    def __call__(self, image: NDArray[np.uint8]) -> Array:
        """The foreground of an image.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W, C) levels.

        Returns:
            (H, W) float32 in [0, 1]; from 0.5 on a pixel is rather of an object.

        Raises:
            ConfigError: before `fit` or `load`.
        """
        if self.found is None:
            raise ConfigError("nothing was learned yet; call fit or load first")
        small, where, size = _inside(image, self.rgb)
        values = self._map(self.look(small), where, size)
        return np.zeros(image.shape[:2], np.float32) if values is None else to_image(values, image, rgb=self.rgb)

    def _map(self, seen: Seen, where: tuple[slice, slice], size: tuple[int, int]) -> Array | None:
        """The map at the working size, None where nothing stands out."""
        assert self.found is not None
        means, deviations = self.found.means, self.found.deviations
        score = self.found.score(standardise(seen.stages[1:], means[1:], deviations[1:]))
        values = np.zeros(size, np.float32)
        values[where] = seen.scene.spread(agree(seen.scene, graph_of(seen, means, deviations), score))
        return values if values.any() else None

    def save(self, folder: Path) -> None:
        """Write what was learned."""
        assert self.found is not None
        tensors = {"weights": torch.from_numpy(self.found.weights)}
        for i, (mean, deviation) in enumerate(zip(self.found.means, self.found.deviations, strict=True)):
            tensors |= {f"mean_{i}": torch.from_numpy(mean), f"deviation_{i}": torch.from_numpy(deviation)}
        write_tensors(folder / FILE, tensors)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: if it is damaged.
        """
        try:
            tensors = {name: each.numpy() for name, each in read_tensors(folder / FILE).items()}
            means, deviations = (tuple(tensors[f"{what}_{i}"] for i in range(3)) for what in ("mean", "deviation"))
            found = Foreground(means, deviations, tensors["weights"])
            features = sum(len(each) for each in means[1:])
            if found.weights.shape != (features + 1,) or any(each.ndim != 1 for each in (*means, *deviations)):
                raise ValueError(f"{len(found.weights)} weights of {features} features")
        except (OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{folder / FILE} is damaged ({error}); remove it, it is made anew") from error
        self.found = found


def standardise(stages: Sequence[Array], means: Sequence[Array], deviations: Sequence[Array]) -> Array:
    """Stages side by side, each with unit length, all together too: (N, C_i) each to (N, F) float32."""
    scaled = [(each - mean) / deviation for each, mean, deviation in zip(stages, means, deviations, strict=True)]
    unit = [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6) for each in scaled]
    return np.asarray(np.concatenate(unit, axis=1) / np.sqrt(len(unit)), np.float32)


def graph_of(seen: Seen, means: Sequence[Array], deviations: Sequence[Array]) -> NDArray[np.float64]:
    """The weights (N, N) of an image's graph, half by colour, half by the finer two stages."""
    unit = standardise(seen.stages[:2], means[:2], deviations[:2])
    by_features = np.maximum(1 - unit @ unit.T, 0)
    return affinity(seen.scene.linked, (distances(seen.scene.colours), by_features), _SIGMA_SQUARED)


def rank(scene: Scene, graph: NDArray[np.float64]) -> Array:
    """The first guess, from one image alone: (N,) float32 in [0, 1]."""
    return np.zeros(len(scene.areas), np.float32) if scene.is_plain else enhance(rank_by(scene, graph))


def agree(scene: Scene, graph: NDArray[np.float64], score: Array) -> Array:
    """What the regression says, as far as like superpixels agree with it: (N,) float32 in [0, 1]."""
    if scene.is_plain:
        return np.zeros(len(scene.areas), np.float32)
    return enhance(smooth(graph, scene.areas, score, _SMOOTH))


class Regression:
    """Logistic regression with soft targets, for the same rows again and again.

    Each step solves with a bound of the Hessian that holds for any weights, sigma' <= 1/4 (Böhning, 1992): it never
    overshoots, and the matrix is inverted once.

    Args:
        rows: (M, F) float32.
        shares: (M,) float, what each row counts; they sum to 1.
        penalty: half of it times the squared length of the weights, without the constant, is added to the loss.
    """

    def __init__(self, rows: Array, shares: NDArray[np.floating], penalty: float) -> None:
        self.rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
        self.shares = shares.astype(np.float32)
        self.penalty = np.full(self.rows.shape[1], penalty)
        self.penalty[-1] = 1e-9
        bound = (self.rows.T @ (self.rows * (self.shares[:, None] / 4))).astype(np.float64) + np.diag(self.penalty)
        self._inverse = np.linalg.inv(bound)
        self.weights: Array = np.zeros(self.rows.shape[1], np.float32)

    def scores(self) -> Array:
        """(M,) in [0, 1]."""
        return _sigmoid(self.rows @ self.weights)

    def learn(self, targets: Array) -> None:
        """Go on from the present weights to those of the least loss: `targets` (M,) in [0, 1]."""
        for _ in range(_STEPS):
            error = self.shares * (self.scores() - targets)
            gradient = (error @ self.rows).astype(np.float64) + self.penalty * self.weights
            step = self._inverse @ gradient
            self.weights = (self.weights - step).astype(np.float32)
            if float(np.abs(step).max()) < _STILL * max(1.0, float(np.abs(self.weights).max())):
                break


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)


def _seen(prepared: Prepared, found: Sequence[Fetched]) -> Seen:
    """What the network has found, in the superpixels."""
    return Seen(prepared.scene, tuple(pool_map(each.numpy(), prepared.scene.regions) for each in found))


def _inside(image: NDArray[np.uint8], rgb: bool) -> tuple[NDArray[np.uint8], tuple[slice, slice], tuple[int, int]]:
    """The image at the working size without a drawn frame and without void, where in it that is, and that size."""
    small = shrink(image, rgb=rgb)
    small = small if rgb else fill_void(small)
    where = picture_inside(small)
    inside = cast(NDArray[np.uint8], np.ascontiguousarray(small[where]))
    return inside, where, (small.shape[0], small.shape[1])
