"""Runs of seconds, one for each method: two images a step of six, so that an epoch is three steps."""

import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from selfseg.data.regions import ObjectMasks, Superpixels
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.random_crops import MultiCrops, NestedCrops, RandomCrops
from selfseg.data.views.region_crops import RegionCrops
from selfseg.methods import Method
from selfseg.methods.deepcluster import ModifiedDeepClusterConfig
from selfseg.methods.iic import IICConfig
from selfseg.methods.maskcontrast import MaskContrastConfig
from selfseg.methods.picie import PiCIEConfig
from selfseg.methods.pretraining.byol import BYOLConfig
from selfseg.methods.pretraining.densecl import DenseCLConfig
from selfseg.methods.pretraining.detcon import DetConConfig
from selfseg.methods.pretraining.dino import DINOConfig
from selfseg.methods.pretraining.instance import InstanceDiscriminationConfig
from selfseg.methods.pretraining.moco import MoCoConfig
from selfseg.methods.pretraining.pixpro import PixProConfig
from selfseg.methods.pretraining.swav import SwAVConfig
from selfseg.methods.slotcon import SlotConConfig
from selfseg.methods.stego import STEGOConfig
from selfseg.methods.vice import ViCEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.storage.checkpoint import load_newest
from selfseg.training.loop import train
from selfseg.training.recipe import OptimizerConfig, Recipe
from selfseg.types import Batch

PLAIN = EmbedderConfig(backbone="test_resnet", output_stride=32, decoder="none", resolution=64)
"""What image-level methods train: the backbone alone."""


def vice(images: Path, out: Path, **changes: Any) -> Recipe[ViCEConfig]:
    config = ViCEConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64, centred=True),
        views=ContentCentredViews(
            views=2, size=32, short_side=48, centre_square=False, regions=Superpixels(8), region_stride=4
        ),
        prototypes=6,
        queue=30,
        prototypes_frozen=0.1,
        pool_stride=4,
    )
    return _recipe(config, images, out, changes)


def slotcon(images: Path, out: Path, **changes: Any) -> Recipe[SlotConConfig]:
    config = SlotConConfig(
        embedder=EmbedderConfig(
            backbone="test_resnet", output_stride=16, decoder="projector", hidden=12, dim=8, resolution=64
        ),
        views=OverlappingCrops(size=64),
        prototypes=6,
        predictor_hidden=12,
    )
    return _recipe(config, images, out, changes)


def maskcontrast(images: Path, out: Path, **changes: Any) -> Recipe[MaskContrastConfig]:
    """The masks lie beside the images, as the fixture `photos` puts them."""
    config = MaskContrastConfig(
        embedder=EmbedderConfig(
            backbone="test_resnet", output_stride=32, dim=8, resolution=64, centred=True, saliency=True
        ),
        views=ObjectCrops(regions=ObjectMasks(masks_of(images)), size=64, region_stride=4, scale=(0.5, 1.0)),
        queue=6,
        momentum=0.9,
        weighting="object",
        saliency_loss="balanced",
    )
    return _recipe(config, images, out, changes)


def moco(images: Path, out: Path, **changes: Any) -> Recipe[MoCoConfig]:
    """A short queue: with six images, a longer one holds every image's own older key among the negatives."""
    config = MoCoConfig(embedder=PLAIN, views=RandomCrops(size=64), hidden=64, dim=32, queue=2)
    return _recipe(config, images, out, changes)


def densecl(images: Path, out: Path, **changes: Any) -> Recipe[DenseCLConfig]:
    config = DenseCLConfig(embedder=PLAIN, views=RandomCrops(size=64), hidden=12, dim=8, grid=2, queue=2, momentum=0.99)
    return _recipe(config, images, out, changes)


def instance(images: Path, out: Path, **changes: Any) -> Recipe[InstanceDiscriminationConfig]:
    views = RandomCrops(views=1, size=64, scale=(0.5, 1.0), blur_probability=0.0)
    config = InstanceDiscriminationConfig(embedder=PLAIN, views=views, dim=16, temperature=0.2, noise=8)
    return _recipe(config, images, out, changes)


def detcon(images: Path, out: Path, **changes: Any) -> Recipe[DetConConfig]:
    """DetCon_B; `detcon_s` is the form with one network."""
    views = RegionCrops(size=64, scale=(0.5, 1.0), min_overlap=0.3, regions=Superpixels(16), masks=6, region_stride=4)
    config = DetConConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=16, decoder="none", resolution=64),
        views=views,
        hidden=32,
        dim=16,
        momentum=0.9,
    )
    return _recipe(config, images, out, changes)


def detcon_s(images: Path, out: Path, **changes: Any) -> Recipe[DetConConfig]:
    recipe = detcon(images, out, **changes)
    return replace(recipe, method=replace(recipe.method, form="simclr"))


def deepcluster(images: Path, out: Path, **changes: Any) -> Recipe[ModifiedDeepClusterConfig]:
    config = ModifiedDeepClusterConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64, centred=True),
        views=RandomCrops(views=1, size=64, scale=(0.5, 1.0)),
        prototypes=4,
        reclusterings=3,
        queue=300,
        sample_stride=2,
    )
    return _recipe(config, images, out, changes)


def swav(images: Path, out: Path, **changes: Any) -> Recipe[SwAVConfig]:
    config = SwAVConfig(
        embedder=PLAIN,
        views=RandomCrops(size=64, small_views=1, small_size=48),
        hidden=12,
        dim=8,
        prototypes=6,
        queue=8,
        prototypes_frozen=0.1,
    )
    return _recipe(config, images, out, changes)


def byol(images: Path, out: Path, **changes: Any) -> Recipe[BYOLConfig]:
    config = BYOLConfig(embedder=PLAIN, views=MultiCrops(size=64), hidden=32, dim=16, momentum=0.9)
    return _recipe(config, images, out, changes)


def pixpro(images: Path, out: Path, **changes: Any) -> Recipe[PixProConfig]:
    """Large crops, so that every image has pairs."""
    config = PixProConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=16, decoder="none", resolution=64),
        views=MultiCrops(size=64, scale=(0.5, 1.0)),
        hidden=32,
        dim=16,
        momentum=0.9,
    )
    return _recipe(config, images, out, changes)


def dino(images: Path, out: Path, **changes: Any) -> Recipe[DINOConfig]:
    config = DINOConfig(
        embedder=PLAIN,
        views=MultiCrops(size=64, scale=(0.4, 1.0), small_views=1, small_size=48),
        hidden=16,
        bottleneck=16,
        prototypes=16,
        batch_norm=True,
        momentum=0.99,
        prototypes_frozen=0.1,
    )
    return _recipe(config, images, out, changes)


def dino_vit(images: Path, out: Path, **changes: Any) -> Recipe[DINOConfig]:
    """The class token, prototypes that learn their length, stochastic depth, a weight decay that rises."""
    recipe = dino(images, out, **changes)
    embedder = EmbedderConfig(backbone="test_vit", decoder="none", resolution=64)
    config = replace(recipe.method, embedder=embedder, unit_prototypes=False, drop_path=0.2)
    optimizer = OptimizerConfig(
        name="adamw", base_lr=1e-3, weight_decay=0.04, final_weight_decay=0.4, clip_each=0.3, warmup=0.2
    )
    return replace(recipe, method=config, optimizer=changes.get("optimizer", optimizer))


def iic(images: Path, out: Path, **changes: Any) -> Recipe[IICConfig]:
    config = IICConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64, centred=True),
        views=NestedCrops(size=64, scale=(0.5, 1.0), inner_scale=(0.5, 1.0), plain_first=True),
        clusters=4,
        overclusters=6,
        displacement=4,
        loss_stride=4,
    )
    return _recipe(config, images, out, changes)


def picie(images: Path, out: Path, **changes: Any) -> Recipe[PiCIEConfig]:
    config = PiCIEConfig(
        embedder=EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64, centred=True),
        views=NestedCrops(size=64),
        prototypes=4,
        overclusters=6,
        temperature=0.2,
        reclusterings=3,
        queue=300,
        sample_stride=2,
    )
    return _recipe(config, images, out, changes)


def stego(images: Path, out: Path, **changes: Any) -> Recipe[STEGOConfig]:
    """Of random weights all features are near each other; centred they are not. The queue is shorter than an epoch."""
    config = STEGOConfig(
        embedder=EmbedderConfig(
            backbone="test_resnet", output_stride=32, decoder="stego", frozen=True, dim=8, resolution=64
        ),
        views=RandomCrops(views=1, size=96),
        shift_self=0.0,
        shift_neighbour=-0.1,
        shift_random=0.05,
        weight_self=1.0,
        weight_random=1.0,
        keep_mean=False,
        grid=4,
        neighbours=2,
        queue=5,
        prototypes=6,
    )
    return _recipe(config, images, out, changes)


PYRAMID = EmbedderConfig(
    backbone="test_resnet", output_stride=32, decoder="pyramid", correction=8, frozen=True, dim=8, resolution=64
)


def vice_on_pyramid(images: Path, out: Path, **changes: Any) -> Recipe[ViCEConfig]:
    """An embedder that is fitted before the first step, and learns a correction on a frozen backbone."""
    recipe = vice(images, out, **changes)
    return replace(recipe, method=replace(recipe.method, embedder=PYRAMID))


def slotcon_on_pyramid(images: Path, out: Path, **changes: Any) -> Recipe[SlotConConfig]:
    """The same with a teacher, and a backbone that learns."""
    recipe = slotcon(images, out, **changes)
    embedder = replace(PYRAMID, frozen=False)
    return replace(recipe, method=replace(recipe.method, embedder=embedder))


def stego_on_pyramid(images: Path, out: Path, **changes: Any) -> Recipe[STEGOConfig]:
    """A correction that begins at zero, on features that are the pyramid's; the mean of the cosines is kept."""
    recipe = stego(images, out, **changes)
    return replace(recipe, method=replace(recipe.method, embedder=PYRAMID, keep_mean=True))


def masks_of(images: Path) -> Path:
    """Where the masks of the fixture's photographs lie."""
    return images.parent / f"{images.name}_masks"


# The method contract is tested for each of these: a new method enters its tiny run here.
RECIPES: dict[str, Callable[..., Recipe[Any]]] = {
    "vice": vice,
    "slotcon": slotcon,
    "maskcontrast": maskcontrast,
    "moco": moco,
    "densecl": densecl,
    "swav": swav,
    "instance": instance,
    "detcon": detcon,
    "deepcluster": deepcluster,
    "byol": byol,
    "pixpro": pixpro,
    "dino": dino,
    "iic": iic,
    "picie": picie,
    "stego": stego,
}
RUNS = {
    **RECIPES,
    "detcon_s": detcon_s,
    "dino_vit": dino_vit,
    "vice_on_pyramid": vice_on_pyramid,
    "slotcon_on_pyramid": slotcon_on_pyramid,
    "stego_on_pyramid": stego_on_pyramid,
}


TWO_PROCESSES: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "batch_size": 4,
    "optimizer": OptimizerConfig(name="lars", base_lr=0.05),
}
"""Settings of a run that one process and two are compared on."""


def _recipe(method: Any, images: Path, out: Path, changes: dict[str, Any]) -> Recipe[Any]:
    recipe: Recipe[Any] = Recipe(
        images=images,
        out=out,
        method=method,
        optimizer=OptimizerConfig(name="lars", base_lr=0.5),
        steps=6,
        batch_size=2,
        workers=0,
        log_every=1,
        checkpoint_every=100,
        max_bad=0.2,
    )
    return replace(recipe, **changes)


def train_tiny(method: str, images: Path, out: Path, settings: dict[str, Any]) -> None:
    """Train a method's tiny run, alone in its process with one thread."""
    torch.set_num_threads(1)
    train(RUNS[method](images, out, **settings), progress=False)


def ready_to_fork() -> BaseContext:
    """A server that has everything imported: a new interpreter for each process would take most of the time."""
    context = multiprocessing.get_context("forkserver")
    # What is installed: the server knows nothing of pytest's paths, and would silently have imported nothing.
    context.set_forkserver_preload(["selfseg.training.loop", "selfseg.methods", "torch.utils.tensorboard"])
    return context


def free_port() -> str:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def losses_of(method: Method, batch: Batch, steps: int) -> list[float]:
    """The losses of some steps of AdamW on one batch."""
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        output = method(batch, 0.5)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0.5)
        losses.append(output.loss.item())
    return losses


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Everything that the newest checkpoint holds."""
    loaded = load_newest(run / "checkpoints")
    assert loaded is not None
    tensors = dict(loaded.model)
    for number, state in loaded.optimizer.items():
        tensors.update({f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()})
    return tensors


def assert_same_state(first: Path, second: Path) -> None:
    """Weights, buffers and the optimiser's state are equal to the bit."""
    a, b = state_of(first), state_of(second)
    assert a.keys() == b.keys()
    assert any(key.startswith("optimizer") for key in a)
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert different == []
