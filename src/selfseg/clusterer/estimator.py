"""The whole way from images to clusters of pixels, as an estimator that is used like those of scikit-learn."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfseg.clusterer.places import give_place, is_one
from selfseg.collection.clustering import cluster
from selfseg.collection.clusters import Clusters, load_clusters
from selfseg.collection.opening import collect
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import ConfigError, RunError
from selfseg.pages.cards import clusters_card
from selfseg.segmenter.naming import from_clusters
from selfseg.segmenter.segmenter import Segmenter
from selfseg.showing import card, facts
from selfseg.training.image_list import begin_with
from selfseg.training.loop import train
from selfseg.training.recipe import recipes


class PixelClusterer:
    """Groups the pixels of a collection of images into k clusters, and finds them again in any image.

    `fit` trains a recipe and looks for clusters in what was learned. `predict` gives a mask of cluster numbers. Both do
    what `selfseg train`, `cluster` and `segment` do, with the files in a temporary folder. With `run` the files are
    kept, and every other command can continue from there (`selfseg report RUN`, `selfseg studio RUN IMAGES`, ...).

    It is used like an estimator of scikit-learn: settings are given to the constructor and checked in `fit`, the names
    of results end in "_", and `sklearn.base.clone` copies it. scikit-learn itself isn't needed.

    Args:
        k: the number of clusters, 2 or more.
        recipe: what to train: a name of `selfseg recipes`. The default takes a pretrained network as it is, which needs
            a minute or two.
        steps: number of training steps, instead of the recipe's own.
        seed: seed of everything that is drawn at random.
        position: how much a pixel's place in its image counts; see `selfseg.cluster`.
        run: a new folder in which the run is kept. None = only this object keeps what was learned.
        device: "auto", "cpu" or "cuda".
        progress: whether to show progress bars on stderr.

    Attributes:
        segmenter_: what gives the masks; after `fit`.
        cluster_centers_: (k, D) float32, unit vectors.
        shares_: k fractions of the pixels that clusters were found in.
        n_images_: how many images `fit` was given.

    Example:
        >>> clusterer = PixelClusterer(k=4)
        >>> mask = clusterer.fit("photos").predict("photos/cat.jpg")  # doctest: +SKIP
        >>> clusterer.set_params(k=6)
        PixelClusterer(k=6)
    """

    segmenter_: Segmenter
    cluster_centers_: NDArray[np.float32]
    shares_: tuple[float, ...]
    n_images_: int
    _found: Clusters

    def __init__(
        self,
        k: int = 8,
        *,
        recipe: str = "pyramid",
        steps: int | None = None,
        seed: int = 0,
        position: float = 0.0,
        run: str | Path | None = None,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.k = k
        self.recipe = recipe
        self.steps = steps
        self.seed = seed
        self.position = position
        self.run = run
        self.device = device
        self.progress = progress

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name; `deep` is there for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in _settings()}

    def set_params(self, **settings: Any) -> PixelClusterer:
        """Change settings; they count from the next `fit`.

        Raises:
            ConfigError: if there is no such setting.
        """
        for name, value in settings.items():
            if name not in _settings():
                raise ConfigError(f"a PixelClusterer has no setting {name!r}; it has {', '.join(_settings())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        usual = {name: one.default for name, one in inspect.signature(type(self)).parameters.items()}
        changed = (f"{name}={value!r}" for name, value in self.get_params().items() if value != usual[name])
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        settings = facts(self.get_params().items())
        if not hasattr(self, "segmenter_"):
            return card("PixelClusterer", settings, warnings=["It has seen no images yet: call fit(images)."])
        found = self._found
        return card("PixelClusterer", settings) + clusters_card(found.share, found.typical, {}, found.info)

    def fit(self, images: Any, y: None = None) -> PixelClusterer:
        """Learn from images, and find the clusters.

        Args:
            images: a folder, a list file, a collection (with its pages, windows and channels), or a sequence of files,
                arrays (H, W, 3) uint8 RGB, tensors (3, H, W) or PIL images; or a mapping from names to these. Images
                that are no files are written as PNG beside the run first, since a training reads files.
            y: nothing; it is there for scikit-learn.

        Returns:
            This object.

        Raises:
            ConfigError: if a setting is none, or something in `images` is no image.
            DataError: if there are no images, or too many can't be read.
            RunError: if `run` is a folder with something else in it.
        """
        if isinstance(self.k, bool) or not isinstance(self.k, int | np.integer) or self.k < 2:  # before it learns
            raise ConfigError(f"k is a whole number of 2 or more, not {self.k!r:.40}")
        known = recipes()
        if self.recipe not in known:
            raise ConfigError(f"there is no recipe {self.recipe!r}; there are {', '.join(sorted(known))}")
        with tempfile.TemporaryDirectory(prefix="selfseg-") as name:
            run = Path(name, "run") if self.run is None else Path(self.run)
            folder = Path(name) if self.run is None else run.with_name(f"{run.name}-images")
            place, chosen = give_place(images, folder)
            recipe = replace(known[self.recipe](place, run), seed=self.seed, accelerator=_accelerator(self.device))
            if self.steps is not None:
                recipe = replace(recipe, steps=self.steps, epochs=None)
            if chosen is not None:
                recipe = begin_with(recipe, chosen)
            train(recipe, progress=self.progress)
            shown = place if chosen is None else chosen
            cluster(
                run, shown, (self.k,), self.seed, position=self.position, device=self.device, progress=self.progress
            )
            found = load_clusters(run, self.k)
            self.cluster_centers_, self.shares_ = found.centroids.numpy(), found.share
            self._found = found
            names = {number: f"cluster {number}" for number in range(self.k)}
            self.segmenter_ = from_clusters(run, self.k, names, device=self.device)
            self.n_images_ = len(collect(shown))
        return self

    def predict(self, images: Any) -> Any:
        """The cluster of each pixel.

        Args:
            images: one image: a file, an array (H, W, 3) uint8 RGB, a tensor (3, H, W) or a PIL image; or several, as
                `fit` takes them.

        Returns:
            (H, W) uint8 of numbers from 0 to k - 1, uint16 with more than 255 clusters, of the image's own size; a list
            of such masks for several images, a dictionary for a mapping.

        Raises:
            RunError: before `fit`.
            BadImage, ConfigError: if something is no image.
        """
        return self._each(images, self._fitted())

    def fit_predict(self, images: Any, y: None = None) -> Any:
        """`fit`, then `predict` of the same images."""
        return self.fit(images).predict(images)

    def transform(self, images: Any) -> Any:
        """The vectors of an image's cells, which lie closer together the more alike what they show.

        Args:
            images: as of `predict`.

        Returns:
            (h, w, D) float32, unit vectors, of one image; a list for several.

        Raises:
            RunError, BadImage, ConfigError: as `predict`.
        """
        embedder = self._fitted().embedder
        return self._each(images, lambda image: embedder.embed(image).permute(1, 2, 0).numpy())

    def _fitted(self) -> Segmenter:
        if not hasattr(self, "segmenter_"):
            raise RunError(f"{self!r} has seen no images yet; call fit(images) first")
        return self.segmenter_

    def _each(self, images: Any, function: Callable[[Any], Any]) -> Any:
        if is_one(images):
            return function(images)
        if isinstance(images, Mapping):
            return {name: function(image) for name, image in images.items()}
        if isinstance(images, str | Path | ImageCollection):
            found = collect(images, self.segmenter_.embedder, cut=False)  # measured images as the run reads them
            return [function(found.read(index)) for index in range(len(found))]
        return [function(image) for image in images]


def _settings() -> list[str]:
    return list(inspect.signature(PixelClusterer).parameters)


def _accelerator(device: str) -> Literal["auto", "cpu", "cuda"]:
    if device == "auto":
        return "auto"
    if device == "cpu":
        return "cpu"
    if device.split(":")[0] == "cuda":
        return "cuda"
    raise ConfigError(f"device is {device!r}; give auto, cpu or cuda")
