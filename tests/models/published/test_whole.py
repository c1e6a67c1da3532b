"""Whole models in the layouts of their projects: what comes out gives what went in."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from published_layouts import (
    HIGH,
    NET,
    WIDTHS,
    drawn,
    maskcontrast,
    part,
    picie,
    slotcon,
    small,
    vice,
    vice_flat,
    vice_high,
)
from selfseg.errors import CheckpointError
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import load_prototypes
from selfseg.models.published.files import WeightsFile, open_weights
from selfseg.models.published.whole import Whole, guess_resnet, open_whole


@dataclass(frozen=True)
class Case:
    project: str
    config: EmbedderConfig
    write: Callable[[Embedder], Any]
    says: tuple[str, ...]
    prototypes: bool = True


CASES = [
    Case(
        "SlotCon",
        small("projector", hidden=12),
        slotcon,
        (
            "under 'model.module.encoder_k.', the teacher, not the other copy under 'model.module.encoder_q.'",
            "projector of 12 hidden channels, D = 8 from 'model.module.projector_k.', by SlotCon's layout",
            "5 prototypes of the teacher from 'model.module.grouping_k.slot_embed.weight'",
            "model.module.predictor_slot",
            "not opened: torch.optim.lr_scheduler.CosineAnnealingLR",
        ),
    ),
    Case(
        "MaskContrast",
        small("deeplabv3", saliency=True, **HIGH),
        maskcontrast,
        (
            "under 'model.module.model_q.backbone.'",
            "DeepLabV3 head, D = 8 and a saliency head",
            "MaskContrast's layout",
        ),
        prototypes=False,
    ),
    Case(
        "ViCE", small("fpn", output_stride=8), vice, ("light feature pyramid, D = 8", "ViCE (VISSL)'s", "5 prototypes")
    ),
    Case(
        "ViCE, flat", small("fpn", output_stride=8), vice_flat, ("light feature pyramid", "ViCE (VISSL)'s", "5 proto")
    ),
    Case("ViCE, high", small("deeplabv3plus", **HIGH), vice_high, ("DeepLabV3+ decoder, D = 8",), prototypes=False),
    Case(
        "PiCIE",
        small("fpn"),
        picie,
        ("from 'state_dict.module.decoder.', by PiCIE's layout", "5 clusters of the first view from"),
    ),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.project)


def opened(case: Case, content: Any, path: Path, **how: Any) -> Whole:
    torch.save(content, path, **how)
    return open_whole(open_weights(path), path.name, NET)


@each
@pytest.mark.parametrize("archive", [True, False])
def test_the_whole_model_of_a_project_gives_what_it_gave(case: Case, archive: bool, tmp_path: Path) -> None:
    embedder = drawn(case.config, 1)
    whole = opened(case, case.write(embedder), tmp_path / "theirs.pth", _use_new_zipfile_serialization=archive)
    assert whole.embedder.config == case.config
    assert whole.embedder.start == "the file theirs.pth"
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(whole.embedder(image), embedder(image))
        if case.config.saliency:
            assert torch.equal(whole.embedder.saliency(image), embedder.saliency(image))
    assert (whole.prototypes is not None) == case.prototypes
    if whole.prototypes is not None:
        assert torch.equal(whole.prototypes, torch.eye(5, 8))
    said = "; ".join(whole.sentences)
    for words in case.says:
        assert words in said


@each
def test_a_decoder_with_something_more_or_less_is_not_taken(case: Case, tmp_path: Path) -> None:
    """A pyramid with smoothing convolutions is another network, and half a head is none."""
    content = case.write(drawn(case.config, 1))
    model = content.get("model") or content.get("state_dict") or content.get("model_state_dict")
    if model is None:
        model = content["classy_state_dict"]["base_model"]["model"]["heads"]
    name = next(key for key in model if not key.startswith(("module.encoder", "module.backbone", "trunk"))
                and "backbone" not in key and "center" not in key and "_q." not in key.replace("model_q", "")
                and key.endswith("weight"))  # fmt: skip
    model[name.removesuffix("weight") + "more.weight"] = torch.ones(3, 3)
    whole = opened(case, content, tmp_path / "theirs.pth")
    assert whole.embedder.config.decoder == "none"
    assert whole.embedder.dim == WIDTHS[-1]
    assert whole.prototypes is None
    assert any("taken as a backbone alone" in sentence for sentence in whole.sentences)


def test_a_backbone_alone_becomes_one(tmp_path: Path) -> None:
    """As of InfoMin and PixPro, whose heads are for whole images or of another kind."""
    embedder = drawn(small("none"), 1)
    content = {
        "opt": argparse.Namespace(a=1),
        "model": part(embedder, "backbone", "module.encoder.")
        | {"module.projector.linear1.weight": torch.ones(4, 96, 1, 1)},
    }
    torch.save(content, tmp_path / "pixpro.pth")
    whole = open_whole(open_weights(tmp_path / "pixpro.pth"), "pixpro.pth", NET, {"output_stride": 16})
    assert whole.embedder.config == EmbedderConfig(backbone=NET, output_stride=16, decoder="none", resolution=None)
    assert whole.sentences[-1] == "not taken: model.module.projector.linear1 (1 tensor)"


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_a_resnet_is_told_by_its_blocks(name: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    assert guess_resnet({f"module.encoder.{key}": value for key, value in state.items()}, "the file") == name


def test_what_is_no_resnet_asks_for_a_name() -> None:
    with pytest.raises(CheckpointError, match=r"blocks \(1 tensor\); give the network's name in timm with --backbone"):
        open_whole(WeightsFile({"blocks.0.weight": torch.ones(1)}), "the file")


def test_the_run_is_one_for_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from selfseg.cli import main

    torch.save(picie(drawn(small("fpn"), 1)), tmp_path / "picie.pth")
    words = ["weights", str(tmp_path / "picie.pth"), "--backbone", NET, "--resolution", "64"]
    assert main(words) == 0
    assert "light feature pyramid" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    embedder = Embedder.load(tmp_path / "run" / "embedder")
    assert embedder.config == small("fpn", resolution=64)
    assert torch.equal(load_prototypes(tmp_path / "run"), torch.eye(5, 8))
    assert main([*words, "--out", str(tmp_path / "run")]) == 4
    assert "exists already" in capsys.readouterr().err
