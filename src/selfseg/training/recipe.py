"""A recipe: everything that a training run is made of. Written beside the run as YAML, read back strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from tyro.conf import Positional, arg

from selfseg.data.regions import ObjectMasks
from selfseg.data.views.plans import plans, region_sources
from selfseg.errors import ConfigError, RunError
from selfseg.methods import Method, methods
from selfseg.models.embedder import EmbedderConfig
from selfseg.numbers import require_usable
from selfseg.ops.channels import Channels
from selfseg.plugins import load_all
from selfseg.storage import hashes as identity
from selfseg.storage.files import write_text
from selfseg.storage.reading import read_yaml
from selfseg.training.plain import KIND, from_plain, to_plain
from selfseg.training.schedule import warmup_cosine, warmup_poly, warmup_steps

Config = TypeVar("Config")
T = TypeVar("T")

_MOST_STEPS = 1e12


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are changed in each step.

    Attributes:
        name: "lars" (ViCE), "adamw" or "sgd".
        base_lr: learning rate for `reference_batch` images; it grows linearly with the batch size.
        reference_batch: the number of images that `base_lr` is for.
        momentum: momentum of LARS and SGD; beta1 of AdamW.
        weight_decay: weight decay of weights with two dimensions or more; biases and norms have none.
        trust: trust coefficient of LARS.
        schedule: after the warm-up, "cosine" (half a cosine), "poly" (DeepLab's, power 0.9) or "steps" (a tenth at
            each of `milestones`).
        warmup: share of the steps in which the learning rate rises from 0 in a straight line.
        final: last learning rate as a share of the largest; "steps" doesn't use it.
        milestones: for "steps": after which shares of the training the learning rate becomes a tenth.
        clip: largest norm of the gradient; larger ones are scaled down. None = any.
        backbone_lr: share of the learning rate for the backbone, above 0; what stands on it has all of it.
        layer_decay: in (0, 1]: each block of a ViT or stage of a CNN has this share of the learning rate of the next
            one; the last one has the backbone's.
        final_weight_decay: the weight decay at the end, which is reached along half a cosine; None = it stays as it is.
        clip_each: largest norm of the gradient of each parameter by itself; None = any.
    """

    name: Literal["lars", "adamw", "sgd"] = "lars"
    base_lr: float = 0.04
    reference_batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-6
    trust: float = 0.001
    schedule: Literal["cosine", "poly", "steps"] = "cosine"
    warmup: float = 0.02
    final: float = 0.001
    milestones: tuple[float, ...] = ()
    clip: float | None = None
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    final_weight_decay: float | None = None
    clip_each: float | None = None

    def __post_init__(self) -> None:
        if self.base_lr <= 0:
            raise ConfigError(f"optimizer.base_lr must be above 0, not {self.base_lr}")
        if self.reference_batch < 1:
            raise ConfigError(f"optimizer.reference_batch must be at least 1 image, not {self.reference_batch}")
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name} must be in [0, 1), not {getattr(self, name)}")
        if any(not 0 < share < 1 for share in self.milestones) or (self.schedule == "steps") != bool(self.milestones):
            raise ConfigError(
                "optimizer.milestones must be shares of the training between 0 and 1, for the schedule steps only; "
                f"they are {self.milestones}, and the schedule is {self.schedule}"
            )
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"optimizer.clip must be above 0 or None, not {self.clip}")
        if self.backbone_lr <= 0:
            raise ConfigError(
                f"optimizer.backbone_lr must be above 0, not {self.backbone_lr}; to keep the backbone "
                "as it is, take --method.embedder.frozen"
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay must be in (0, 1], not {self.layer_decay}; 1 switches it off")
        if self.clip_each is not None and (self.clip_each <= 0 or self.clip is not None):
            raise ConfigError(
                f"optimizer.clip_each must be above 0 or None, and clip None beside it, not {self.clip_each} and "
                f"{self.clip}"
            )
        if self.final_weight_decay is not None and min(self.weight_decay, self.final_weight_decay) <= 0:
            raise ConfigError(
                "optimizer.final_weight_decay and weight_decay must be above 0 where it changes, not "
                f"{self.final_weight_decay} and {self.weight_decay}"
            )

    def rate(self, progress: float, batch_size: int) -> float:
        """The learning rate: a pure function of progress.

        Args:
            progress: share of the training that is done, in [0, 1].
            batch_size: images a step, over all processes.
        """
        peak = self.base_lr * batch_size / self.reference_batch
        if self.schedule == "steps":
            return warmup_steps(progress, peak, self.warmup, self.milestones)
        shape = warmup_cosine if self.schedule == "cosine" else warmup_poly
        return shape(progress, peak, self.warmup, peak * self.final)

    def decay(self, progress: float) -> float:
        """The weight decay: a pure function of progress.

        Args:
            progress: share of the training that is done, in [0, 1].

        Example:
            >>> config = OptimizerConfig(weight_decay=0.04, final_weight_decay=0.4)
            >>> [round(config.decay(progress), 3) for progress in (0.0, 0.5, 1.0)]
            [0.04, 0.22, 0.4]
        """
        if self.final_weight_decay is None:
            return self.weight_decay
        return warmup_cosine(progress, self.weight_decay, 0.0, self.final_weight_decay)


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """One run.

    Attributes:
        images: the images: a folder, a zip, a .txt list of paths, or NAME:ROOT for a data set that `selfseg data`
            lists.
        out: folder for the run. If you stop the training, the same command continues it.
        method: the method's settings; their class chooses the method.
        optimizer: how the weights are changed in each step.
        name: name of the recipe.
        steps: how many training steps; or give --epochs. 0 makes a run without any training.
        epochs: how many times the training goes through all images; or give --steps.
        batch_size: how many images a step looks at, over all processes together.
        init: initial weights of the backbone: "default" (weights that come with selfseg, if it has some for this
            backbone), "imagenet" or "imagenet:TAG" (timm downloads them; papers begin from the tag tv_in1k), a file, or
            "random". None is "random", too.
        seed: seed of everything random.
        precision: "32-true", "bf16-mixed" or "16-mixed"; or "auto", which measures the first two when the run begins
            and keeps the faster one.
        accelerator: where the training runs: "cpu", "cuda" (a GPU), or "auto", which takes a GPU if there is one.
        devices: how many processes train on each machine. 0 is one for each GPU, or one on a CPU. torchrun and srun set
            this themselves.
        nodes: how many machines train together. torchrun and srun set this themselves.
        workers: how many processes read images for each training process. With 0, the training process reads them
            itself.
        checkpoint_every: how many steps lie between two checkpoints. One is also saved at the end, and when a signal
            stops the training.
        keep: how many of the newest checkpoints are kept.
        log_every: how many steps lie between two lines of the log.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the run stops with an
            error. 0.05 is one image in twenty.
        cache: keep the regions on disk, in RUN/cache.
        wait_process: for several processes: after how many seconds without a sign of life of one process the others
            end; 0 = never. A slow process gives signs of life, a killed or stopped one doesn't.
        wait_folder: how many seconds the training waits if the whole folder of the images or of the run vanishes; 0 =
            it doesn't wait.
        recompute: compute the blocks of the backbone a second time for the gradient, instead of keeping what they gave.
            This takes less memory and more time, and the result is the same. A run of one process does so by itself
            when memory runs out.
        channels: for images with many channels or bits: which channels are taken, by number from 0 or by name. All if
            not given. "rgb" reads any image as an 8-bit photograph.
        pages: for files with several pages: which of them are images. "all", "first", or a page's number from 0. Or one
            image is made of all pages: by "max" or "mean", or with the pages as its "channels". "auto" takes 2 to 16
            pages that nobody named for channels, and other pages for images.
    """

    images: Annotated[Positional[Path], arg(metavar="IMAGES")]
    out: Path
    method: Config
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    name: str = "custom"
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    init: str | None = None
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 0
    nodes: int = 1
    workers: int = 2
    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 10
    max_bad: float = 0.05
    cache: bool = True
    wait_process: float = 40.0
    wait_folder: float = 600.0
    channels: tuple[str, ...] = ()
    pages: str = "auto"
    recompute: bool = False

    def __post_init__(self) -> None:
        require_usable(self, "")
        images: Any = self.images
        # Not all else: the command line fills in the images later, and has a sign in their place.
        if not isinstance(images, str | Path) and any(
            hasattr(images, name) for name in ("__len__", "shape", "getbands")
        ):
            raise ConfigError(
                "a run reads its images again when it goes on, so they must be files: give a folder or a list of them, "
                f"not a {type(images).__name__}; selfseg.PixelClusterer takes arrays, and writes them beside its run"
            )
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(f"give either steps or epochs, not steps={self.steps} and epochs={self.epochs}")
        for name in ("epochs", "batch_size", "nodes", "checkpoint_every", "keep", "log_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be above 0, not {value}")
        for name in ("steps", "workers", "devices", "seed", "wait_process", "wait_folder"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name} can't be negative: {getattr(self, name)}")
        if self.steps is not None and self.steps > _MOST_STEPS:
            raise ConfigError(f"steps can be at most {_MOST_STEPS:g}, not {self.steps}")

    def total_steps(self, images: int) -> int:
        """Steps of the whole run on a collection of this many images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        steps = self.epochs * images / self.batch_size
        if steps > _MOST_STEPS:
            raise ConfigError(f"epochs ({self.epochs:g}) can make at most {_MOST_STEPS:g} steps; give fewer")
        return max(round(steps), 1)

    def build_method(self, images: int | None = None) -> Method:
        """The method with fresh weights from torch's current random state.

        Args:
            images: of the run, for which a method that remembers every image makes room; None if it is not trained.
        """
        known = methods()
        for method in known.values():
            if isinstance(self.method, method.Config):
                built: Method = method(self.method)
                if images is not None:
                    built.expect_images(images)
                return built
        raise ConfigError(f"no method takes a {type(self.method).__name__}; there are {', '.join(known)}")


def _kinds() -> dict[str, type[Any]]:
    known = (Recipe, OptimizerConfig, EmbedderConfig, Channels, *(method.Config for method in methods().values()))
    return {cls.__name__: cls for cls in known} | plans() | region_sources()


def write_recipe(recipe: Recipe[Any], path: Path) -> None:
    """Write a recipe as YAML, atomically."""
    write_text(path, yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True))


def read_recipe(path: Path) -> Recipe[Any]:
    """Read what `write_recipe` wrote.

    Raises:
        RunError: if there is no such file or it is no recipe; ConfigError names a wrong entry.
    """
    try:
        values = read_yaml(path)
    except (OSError, ValueError) as error:
        raise RunError(f"no readable recipe at {path}: {error}") from error
    if not isinstance(values, dict) or values.get(KIND) != "Recipe":
        raise RunError(f"{path} is not a recipe of selfseg")
    recipe = from_plain(Recipe, values, _kinds())
    assert isinstance(recipe, Recipe)
    return recipe


def recipe_hash(recipe: Recipe[Any]) -> str:
    """See `selfseg.storage.hashes.recipe_hash`."""
    return identity.recipe_hash(to_plain(recipe))


def differences(old: Recipe[Any], new: Recipe[Any]) -> list[str]:
    """Lines "method.temperature: 0.1 → 0.2" for every setting that changes what is learned."""
    before, after = (_flat(identity.learned(to_plain(recipe))) for recipe in (old, new))
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def change_each(config: Any, kind: type[T], change: Callable[[T], T]) -> Any:
    """A frozen configuration in which each part of a kind, however deep, has been changed; the innermost first."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    old = {field.name: getattr(config, field.name) for field in fields(config)}
    new = {name: change_each(value, kind, change) for name, value in old.items()}
    changed = {name: value for name, value in new.items() if value is not old[name]}
    config = replace(config, **changed) if changed else config
    return change(config) if isinstance(config, kind) else config


def unsettled(recipe: Recipe[Any]) -> Recipe[Any]:
    """The recipe as it was given, without what a run found in its masks and its images."""
    result = change_each(recipe, ObjectMasks, lambda masks: replace(masks, content=""))
    result = change_each(result, EmbedderConfig, lambda embedder: replace(embedder, channels=None))
    assert isinstance(result, Recipe)
    return result


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {k: v for key, item in values.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def recipes() -> dict[str, Callable[..., Recipe[Any]]]:
    """All recipes by name, with those of other installed packages.

    Each is a function of (images, out), whose docstring says what to expect.

    Example:
        >>> "vice_small" in recipes()
        True
    """
    return load_all("selfseg.recipes")
