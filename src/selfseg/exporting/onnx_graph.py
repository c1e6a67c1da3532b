"""The embedder as an ONNX graph: image in [0, 1] to unit vectors, for any number and size of images."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfseg.errors import ConfigError, MissingExtra
from selfseg.models.embedder import Embedder

OPSET = 17
_AXES = {"image": {0: "batch", 2: "height", 3: "width"}, "embedding": {0: "batch", 2: "h", 3: "w"}}


def require_onnx() -> Any:
    """The package onnx.

    Raises:
        MissingExtra: if it isn't installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("the format onnx", "onnx", "onnx") from error
    return onnx


def trace(embedder: Embedder, image: Tensor, facts: Mapping[str, str], path: Path) -> None:
    """Write the graph of an embedder, with weights.

    torch's exporter by tracing, because its successor needs a further package (onnxscript).

    Args:
        embedder: in eval mode, on the CPU.
        image: (B, 3, H, W) float in [0, 1] to trace it with; other sizes may be given to the graph.
        facts: words for the graph's header.
        path: the file.

    Raises:
        MissingExtra: if onnx isn't installed.
        ConfigError: if the exporter can't express the network.
    """
    onnx = require_onnx()
    trace_network(traceable(embedder), image, path, _AXES, embedder)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, str(path))


def trace_network(
    network: nn.Module, image: Tensor, path: Path, axes: Mapping[str, Mapping[int, str]], embedder: Embedder
) -> None:
    """Write the graph of a network with one input and one output.

    Args:
        network: in eval mode, on the CPU.
        image: (B, 3, H, W) float to trace it with.
        path: the file.
        axes: names of the input and the output, in this order, with the names of those of their axes that may differ.
        embedder: what is in the network, for the message.

    Raises:
        ConfigError: if the exporter can't express the network.
    """
    # It prints the whole graph where it meets what it doesn't know.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # It warns of its age, and that the comparison of sizes in the feature pyramid is decided once: it comes out
        # the same for every size, and `run` asks the graph for another one.
        warnings.simplefilter("ignore")
        (given, found) = axes
        try:
            torch.onnx.export(
                network,
                (image,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=[given],
                output_names=[found],
                dynamic_axes={name: dict(each) for name, each in axes.items()},
            )
        except OSError:  # a full disk, for the caller to tell
            raise
        except Exception as error:  # the exporter has many kinds
            raise _unfit(embedder, error) from error


def evaluate_graph(embedder: Embedder, path: Path, image: Tensor) -> Tensor:
    """What a graph gives, by onnx's own reference in numpy; the graph is checked first.

    Args:
        embedder: what the graph is of, for the message.
        path: the file.
        image: (B, 3, H, W) float32 in [0, 1].

    Returns:
        (B, D, h, w) float32.

    Raises:
        MissingExtra: if onnx isn't installed.
        ConfigError: if the graph is wrong or can't be computed at this size.
    """
    onnx = require_onnx()
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    try:
        onnx.checker.check_model(model, full_check=True)
        (embedding,) = ReferenceEvaluator(model).run(None, {"image": image.numpy()})
    except Exception as error:  # the operators in numpy raise whatever they meet
        raise _unfit(embedder, error) from error
    return torch.from_numpy(embedding)


def traceable(embedder: Embedder) -> Embedder:
    """An equal embedder whose centring has weights (1) and shifts (0): without, the exporter looks for their number."""
    network = copy.deepcopy(embedder)
    if isinstance(embedder.centre, nn.BatchNorm2d):
        centre = nn.BatchNorm2d(embedder.dim, eps=embedder.centre.eps)
        centre.load_state_dict({**centre.state_dict(), **embedder.centre.state_dict()})
        network.centre = centre
    return network.eval()


def _unfit(embedder: Embedder, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or ["no reason given"])[0][:200]
    return ConfigError(
        f"no ONNX graph of this embedder (backbone {embedder.config.backbone!r}, decoder {embedder.config.decoder!r}): "
        f"{type(error).__name__}: {reason}; the formats safetensors and segmenter work for every one"
    )
