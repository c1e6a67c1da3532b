"""Files of whole models in the layouts of their projects, written from an embedder of ours."""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from selfseg.models.embedder import Embedder, EmbedderConfig

State = dict[str, Tensor]
NET = "test_resnet"
WIDTHS = (32, 48, 192, 96)  # of its last four stages
HIGH = {"output_stride": 8, "resolution": None}


def small(decoder: Any, **settings: Any) -> EmbedderConfig:
    return EmbedderConfig(backbone=NET, decoder=decoder, dim=8, **{"output_stride": 32, "resolution": 320, **settings})


def drawn(config: EmbedderConfig, seed: int) -> Embedder:
    """An embedder with weights and statistics as after training."""
    embedder = Embedder(config)
    generator = torch.Generator().manual_seed(seed)
    for key, value in embedder.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and key not in ("mean", "std"):
            value.normal_(0, 0.1, generator=generator)
    return embedder.eval()


def part(embedder: Embedder, name: str, prefix: str) -> State:
    return {
        prefix + key.removeprefix(f"{name}."): value.clone()
        for key, value in embedder.state_dict().items()
        if key.startswith(f"{name}.")
    }


def convolutions(state: State) -> State:
    """Linear layers as 1x1 convolutions."""
    return {key: value[..., None, None] if value.ndim == 2 else value for key, value in state.items()}


def unlike(state: State) -> State:
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def slotcon(embedder: Embedder) -> Any:
    """`args`, the whole state of both networks, and a schedule that holds the optimiser as an object."""
    encoder = part(embedder, "backbone", "")
    projector = convolutions(part(embedder, "decoder", ""))
    model: State = {"module.center": torch.zeros(1, 5)}
    for net, change in (("q", unlike), ("k", dict)):
        model |= {f"module.encoder_{net}.{key}": value for key, value in change(encoder).items()}
        model |= {f"module.projector_{net}.{key}": value for key, value in change(projector).items()}
        model |= {f"module.grouping_{net}.slot_embed.weight": change({"a": torch.eye(5, 8) * 3})["a"]}
    model |= {f"module.predictor_slot.{key}": value for key, value in part(embedder, "decoder", "").items()}
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {
        "args": argparse.Namespace(arch="resnet50", device=torch.device("cpu")),
        "model": model,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"after_scheduler": schedule, "multiplier": 100},
        "epoch": 800,
    }


def torchvisions_head(embedder: Embedder) -> State:
    """Our DeepLabV3 by torchvision's names, without its classifier."""
    state = part(embedder, "decoder", "")
    names = {f"branches.{n}.{m}": f"0.convs.{n}.{m}" for n in range(4) for m in (0, 1)}
    names |= {"pooled.0": "0.convs.4.1", "pooled.1": "0.convs.4.2"}
    names |= {"merge.0.0": "0.project.0", "merge.0.1": "0.project.1", "merge.1.0": "1", "merge.1.1": "2"}
    found = {}
    for ours, theirs in names.items():
        found |= {key.replace(ours, theirs, 1): value for key, value in state.items() if key.startswith(f"{ours}.")}
    theirs = DeepLabHead(WIDTHS[-1], 3).state_dict()
    found = {key: value.view(theirs[key].shape) for key, value in found.items()}
    assert {key for key in theirs if not key.startswith("4.")} == found.keys()
    return found


def maskcontrast(embedder: Embedder) -> Any:
    inside = {f"decoder.{key}": value for key, value in torchvisions_head(embedder).items()}
    inside |= part(embedder, "backbone", "backbone.")
    inside |= part(embedder, "decoder.project", "decoder.4.") | part(embedder, "saliency_head", "saliency.")
    model = {f"module.model_q.{key}": value for key, value in inside.items()}
    model |= {f"module.model_k.{key}": value for key, value in unlike(inside).items()}
    return {"model": {**model, "module.queue": torch.zeros(8, 4)}, "epoch": 60, "optimizer": {}}


def laterals(embedder: Embedder, prefix: str, names: str) -> State:
    """Our pyramid's convolutions, the finest stage first, by four names."""
    found = {}
    for place, name in enumerate(names):
        found |= part(embedder, f"decoder.laterals.{place}", f"{prefix}{name}.")
    return found


def vice(embedder: Embedder) -> Any:
    heads = laterals(embedder, "0.", "abcd") | {"0.prototypes0.weight": torch.eye(5, 8) * 3}
    model = {"trunk": part(embedder, "backbone", "_feature_blocks."), "heads": heads}
    losses = {"prototypes": torch.zeros(3)}
    return {"classy_state_dict": {"base_model": {"model": model}, "loss": losses, "phase_idx": 7}, "iteration": 9}


def vice_flat(embedder: Embedder) -> Any:
    """VISSL's other form, of one mapping."""
    nested = vice(embedder)["classy_state_dict"]["base_model"]["model"]
    flat = {f"{name}.{key}": value for name, state in nested.items() for key, value in state.items()}
    return {"model_state_dict": flat}


def vice_high(embedder: Embedder) -> Any:
    heads = part(embedder, "decoder.decoder", "0.decoder.") | part(embedder, "decoder.project", "0.head.")
    model = {"trunk": part(embedder, "backbone", "_feature_blocks."), "heads": heads}
    return {"classy_state_dict": {"base_model": {"model": model}}}


def picie(embedder: Embedder) -> Any:
    inside = part(embedder, "backbone", "module.backbone.") | laterals(embedder, "module.decoder.layer", "1234")
    clusters = {"module.weight": torch.eye(5, 8)[..., None, None] * 3}
    args = argparse.Namespace(arch="resnet18")
    return {"state_dict": inside, "classifier1_state_dict": clusters, "optimizer": {}, "args": args, "epoch": 10}
