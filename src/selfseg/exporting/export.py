"""A run's network in the files that other projects load; nothing is written that was not read back and compared."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfseg.collection.opening import load_known
from selfseg.errors import ConfigError, RunError
from selfseg.exporting.cards import card, facts, loading
from selfseg.exporting.fine_tuning import fine_tuning_configs
from selfseg.exporting.onnx_graph import evaluate_graph, require_onnx, trace
from selfseg.exporting.targets import (
    TargetOf,
    detectron2_target,
    mmseg_target,
    timm_target,
    torchvision_target,
)
from selfseg.models.checkpoints import read_weights
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import load_prototypes
from selfseg.plugins import load as load_plugin
from selfseg.plugins import registered
from selfseg.sharing.hub import check_repository
from selfseg.sharing.model import push_folder
from selfseg.storage.files import write_atomically, write_folder_atomically, write_text
from selfseg.storage.hashes import embedder_hash, run_hash
from selfseg.storage.reading import read_recipe_values
from selfseg.storage.regular import read_text
from selfseg.storage.remote.places import at_places
from selfseg.storage.remote.urls import as_url

Written = tuple[str, Sequence[str]]
"""Markdown with the lines that load what was written, and sentences that whoever loads it must know."""


@dataclass(frozen=True)
class Exporter:
    """A format; `selfseg export --format NAME` finds it under its name in the entry points `selfseg.exporters`.

    Attributes:
        suffix: how its file ends; "" is a folder.
        whole: whether it holds the whole embedder, or the backbone alone.
        write: (path, embedder, facts for the file's header, run's folder) writes the file or folder, reads it back and
            raises RunError unless it gives what the run gives. Called without gradients.
        require: raises MissingExtra if what it needs isn't installed.
        stem: what its file in RUN/export is called, without the suffix; "" = "embedder", or the backbone's name.
        input: what it takes, for the header; "" = RGB in [0, 1], normalised for a backbone alone.
        files: all that a folder of this format may hold; one with anything else is not replaced.
        shared: whether it is a folder that can be put on the Hugging Face hub; `write` then takes `license` and `repo`.
    """

    suffix: str
    whole: bool
    write: Callable[..., Written]
    require: Callable[[], object] = lambda: None
    stem: str = ""
    input: str = ""
    files: frozenset[str] = frozenset()
    shared: bool = False


TOLERANCE = 1e-5  # of the largest feature
_PROTOTYPES = "prototypes.safetensors"
_FOLDER = frozenset({"weights.safetensors", "embedder.json", "README.md", _PROTOTYPES})


@at_places(runs=["run"], writes=["out"])
def export(
    run: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    push: str | None = None,
    public: bool = False,
    license: str | None = None,
    token: str | bool | None = None,
) -> Path:
    """Write what a run has learned for another project, and check the file by loading it as that project does.

    The last stage's features of a drawn image (for "safetensors" and "onnx" the embedding) must be the run's up to
    1e-5 of the largest of them; otherwise nothing is left behind. Beside the file lies its card (FILE.md, or README.md
    in the folder): what it is and the lines that load it; for "detectron2" and "mmseg" also configurations that start
    the papers' fine-tuning there (`selfseg.exporting.fine_tuning`).

    Args:
        run: the trained run.
        format: "timm", "torchvision" (safetensors with the names that `load_state_dict(strict=True)` takes),
            "detectron2", "mmseg" (.pth), all four of the backbone alone; "safetensors" (a folder with the whole
            embedder), "onnx" (the whole embedder as a graph); of a run with named clusters "segmenter-onnx" (image to
            mask as a graph) or "segmenter" (the segmenter's folder). A segmenter's folder may stand in for the run.
            "hub" and "segmenter-hub" write embedder and segmenter as folders with a model card, to be shared.
        out: the file, which ends as the format wants, or the folder; RUN/export/NAME if None. Only
            what an export wrote is replaced.
        push: of "hub" and "segmenter-hub", USER/NAME of a repository on the Hugging Face hub into which the folder is
            put; nothing is sent without it.
        public: whether everybody may see that repository.
        license: of these two, what stands in the card, such as "apache-2.0"; None = none.
        token: of the hub; None = the one that `hf auth login` or HF_TOKEN gave.

    Returns:
        The file or folder.

    Raises:
        RunError: if there is no such run, it has no embedder yet, or the file gives other features than the run.
        ConfigError: if there is no such format, it can't hold this backbone, `out` can't be that file, or the
            repository is public and shall not be.
        Unreachable: if the hub can't be reached or does not allow it; the folder is there then.
        MissingExtra: if "onnx" is asked for and not installed.
        StorageError: if it can't be written.
    """
    exporter = find_exporter(format)
    sharing: dict[str, Any] = {"license": license, "repo": push or ""} if exporter.shared else {}
    if not exporter.shared and (push is not None or license is not None or public):
        raise ConfigError(f"the format {format} is not for the hub; to share a model take hub or segmenter-hub")
    if push is not None:
        check_repository(push)
    run = Path(run)
    embedder, weights = load_known(run, "cpu")
    exporter.require()
    path = _place(run, format, exporter, embedder, None if out is None else Path(out))
    about = facts(format, exporter.whole, embedder, run_hash(run), weights, exporter.input)
    with torch.no_grad():
        lines, notes = exporter.write(path, embedder, about, run, **sharing)
    if push is not None:
        push_folder(path, push, not public, _secrets_of(run), token=token)
    if not path.is_dir():  # a folder is moved into place with its card inside
        starts = fine_tuning_configs(format, path.name, embedder.config, embedder.colours)
        for name, text in starts.items():
            write_text(path.with_name(name), text)
        if starts:
            notes = (*notes, f"Beside it lie configurations of the papers' fine-tuning: {', '.join(starts)}.")
        write_text(card_of(path), card(path.name, about, lines, notes))
    return path


def require_untouched(run: Path, about: Mapping[str, str]) -> None:
    """Raise RunError if a training has replaced the embedder since it was read, so that what lies beside it is newer.

    Args:
        run: the run.
        about: facts for the file's header.
    """
    if embedder_hash(run) != about["embedder"]:
        raise RunError(
            f"{run} was trained on while it was exported, and nothing was written; run the same command again"
        )


def find_exporter(format: str) -> Exporter:
    """The format of a name.

    Raises:
        ConfigError: if there is none; names those that there are.
    """
    known = registered("selfseg.exporters")
    if format not in known:
        raise ConfigError(f"there is no format {format!r}; the formats are {', '.join(known)}")
    found: Exporter = load_plugin("selfseg.exporters", format)
    return found


def card_of(path: Path) -> Path:
    """Where the card of an exported file or folder is."""
    return path / "README.md" if path.is_dir() else path.with_name(path.name + ".md")


def _secrets_of(run: Path) -> tuple[str, ...]:
    """Places of this machine and of this person's data that nothing shared may name."""
    recipe = read_recipe_values(run)
    found = [str(run.resolve())]
    for value in (recipe.get("images"), recipe.get("init"), recipe.get("out")):
        if isinstance(value, str) and "/" in value:
            found += [value] if as_url(value) else [value, str(Path(value).resolve())]
    return tuple(found)


def _config(embedder: Embedder) -> EmbedderConfig:
    """With the dimension that it has: without a decoder it is the last stage's."""
    return replace(embedder.config, dim=embedder.dim)


def _place(run: Path, format: str, exporter: Exporter, embedder: Embedder, out: Path | None) -> Path:
    suffix = exporter.suffix
    if out is None:
        stem = exporter.stem or ("embedder" if exporter.whole else f"{embedder.config.backbone}_{format}")
        return run / "export" / (re.sub(r"[^\w.-]+", "-", stem) + suffix)
    if suffix:
        if out.is_dir():
            raise ConfigError(f"{out} is a folder; give the file to write, e.g. --out {out / f'backbone{suffix}'}")
        if out.suffix != suffix:
            raise ConfigError(f"a file for {format} ends in {suffix}; give e.g. --out {out.with_suffix(suffix)}")
        if not _is_export(out):
            beside = fine_tuning_configs(format, out.name, embedder.config, embedder.colours)
            for taken in (out, card_of(out), *map(out.with_name, beside)):
                if os.path.lexists(taken):
                    raise ConfigError(f"{taken} is there and is no export of selfseg; give another --out, or remove it")
        return out
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the format {format} writes a folder: give another --out")
    if out.resolve() in (run.resolve(), (run / "segmenter").resolve()):  # what is shared has no names of clusters
        raise ConfigError(f"{out} is what is exported; give a new folder")
    there = {each.name for each in out.iterdir()} if out.is_dir() else set()
    if there and not ("README.md" in there and there <= exporter.files):  # the second: a run's own embedder has no card
        raise ConfigError(f"{out} holds other files than an export; give a new folder")
    return out


def _is_export(path: Path) -> bool:
    """Whether a file's card lies beside it: only then it, and what else belongs to it, may be replaced."""
    try:
        text = read_text(card_of(path))
    except (OSError, UnicodeDecodeError):
        return False
    return path.is_file() and text.startswith(f"# {path.name}\n") and "## Load it" in text


def drawn(size: tuple[int, int], images: int = 1, inputs: int = 3) -> Tensor:
    """(images, inputs, H, W) in [0, 1], always the same."""
    return torch.rand(images, inputs, *size, generator=torch.Generator().manual_seed(0))


def compare_features(path: Path, found: Tensor, expected: Tensor) -> None:
    """Raise RunError if what a file gives is not what the run gives, up to `TOLERANCE` of the largest number."""
    same = found.shape == expected.shape
    scale = float(expected.abs().max())
    worst = float((found - expected).abs().max()) if same else float("nan")
    if not worst <= TOLERANCE * scale:  # also if one of them is not a number
        raise RunError(
            f"{path} was not written: loaded again, it gives other features than the run (largest difference "
            f"{worst:.3g} of {scale:.3g}, shapes {tuple(found.shape)} and {tuple(expected.shape)})"
        )


def _write_backbone(
    format: str, target_of: TargetOf, path: Path, embedder: Embedder, about: Mapping[str, str], run: Path
) -> Written:
    """The backbone under the names of another project."""
    target = target_of(embedder.backbone, embedder.config)
    extra = {"untrained": " ".join(target.untrained), "notes": " ".join(target.notes), "network": target.call}
    header = {**about, **{key: value for key, value in extra.items() if value}}
    image = (
        drawn(target.image_size, inputs=3 if embedder.config.groups else embedder.config.inputs) - 0.5
    ) * 4  # about the range of a normalised image

    def write(temporary: Path) -> None:
        if path.suffix == ".safetensors":
            save_file(target.weights, temporary, metadata=header)
            read = load_file(temporary)
        else:
            content: dict[str, object] = {"meta": header}
            if format == "detectron2":
                content |= {"model": target.weights, "__author__": "selfseg", "matching_heuristics": True}
            else:
                content["state_dict"] = target.weights
            # Through memory: on a full disk torch raises a RuntimeError, which could not be told from a mistake.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            with buffer.getbuffer() as view:  # given back after an error too: Python 3.12.1 crashes on collecting one
                temporary.write_bytes(view)
            read = {key.partition(".")[2]: value for key, value in read_weights(temporary).items()}
        compare_features(path, target.last_stage(read, image), target.expected(image))

    write_atomically(path, write)
    return loading(format, path.name, _config(embedder), embedder.colours, target), target.notes


def _write_graph(path: Path, embedder: Embedder, about: Mapping[str, str], run: Path) -> Written:
    """The whole embedder as a graph."""
    other = (96, 64) if embedder.config.decoder == "deeplabv3plus" else (75, 53)  # that decoder wants even division

    inputs = embedder.config.inputs

    def write(temporary: Path) -> None:
        trace(embedder, drawn((64, 96), inputs=inputs), about, temporary)
        for image in (drawn((64, 96), inputs=inputs), drawn(other, 2, inputs)):
            compare_features(path, evaluate_graph(embedder, temporary, image), embedder(image))

    write_atomically(path, write)
    return loading("onnx", path.name, _config(embedder), embedder.colours), ()


def _write_folder(path: Path, embedder: Embedder, about: Mapping[str, str], run: Path) -> Written:
    """The whole embedder as `Embedder.save` writes it, the method's prototypes if it has any, and a card."""
    notes: list[str] = []
    lines = loading("safetensors", path.name, _config(embedder), embedder.colours)

    def write(temporary: Path) -> None:
        embedder.save(temporary)
        weights = temporary / "weights.safetensors"
        save_file(load_file(weights), weights, metadata=dict(about))  # the same with a header
        if (run / "embedder" / _PROTOTYPES).is_file():
            save_file({"prototypes": load_prototypes(run)}, temporary / _PROTOTYPES)  # read, so that it is whole
            notes.append(f"`{_PROTOTYPES}` holds the method's concept vectors (K, D), one unit vector a row.")
        write_text(temporary / "README.md", card(path.name, about, lines, notes))
        require_untouched(run, about)
        image = drawn((64, 96), inputs=embedder.config.inputs)
        compare_features(path, Embedder.load(temporary)(image), embedder(image))

    write_folder_atomically(path, write)
    return lines, notes


TIMM = Exporter(".safetensors", False, partial(_write_backbone, "timm", timm_target))
TORCHVISION = Exporter(".safetensors", False, partial(_write_backbone, "torchvision", torchvision_target))
DETECTRON2 = Exporter(".pth", False, partial(_write_backbone, "detectron2", detectron2_target))
MMSEG = Exporter(".pth", False, partial(_write_backbone, "mmseg", mmseg_target))
SAFETENSORS = Exporter("", True, _write_folder, files=_FOLDER)
ONNX = Exporter(".onnx", True, _write_graph, require_onnx)
