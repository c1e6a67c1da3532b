"""A named segmenter as an ONNX graph: a uint8 image of any size to the class of each of its pixels.

The network is traced; what comes before and after it is written down here in ONNX's own text form. Before it: the
image's short side becomes the embedder's resolution, by the same area means and bilinear weights as in Python. ONNX's
Resize has no area means, and its triangles changed the class of 3 to 15 pixels in 100 of large photographs; so sums
along each axis are taken, and read between whole pixels. After it: scores are brought to the image's size one candidate
after the other, so that what is held doesn't grow with the number of rows (200 clusters of 12 megapixels were 10 GB).

Letters in shapes: H W pixels of an image, P Q of the resized one, D embedding dimension, h w embedding cells, R rows of
the classifier, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfseg.collection.clusters import add_position
from selfseg.errors import ConfigError, MissingExtra
from selfseg.exporting.onnx_graph import OPSET, require_onnx, trace_network, traceable
from selfseg.models.embedder import Embedder
from selfseg.segmenter.segmenter import Segmenter

CANDIDATES = 12
"""Rows that are compared between four cells. A square may have more: with 200 small clusters and large photographs, 12
candidates give the class of all 200 at 99.5 to 99.8 % of the pixels, 6 at 98.9 to 99.4 %."""

_HEAD = f'<ir_version: 8, opset_import: ["" : {OPSET}]>'

_WHOLE = """
prepare (uint8[H, W, INPUTS] image) => (float[1, INPUTS, P, Q] prepared, int64[2] sizeTHERE)
{
    size = Shape <start = 0, end = 2> (image)
    WHERE
    resized = Cast <to = 1> (image)
    SCALED
}
"""

# The size is worked out in double, as Python does: one pixel more or less would shift everything.
_RESIZED = """
prepare (uint8[H, W, INPUTS] image) => (float[1, INPUTS, P, Q] prepared, int64[2] sizeTHERE)
{
    size = Shape <start = 0, end = 2> (image)
    WHERE
    sides = Cast <to = 11> (size)
    short = ReduceMin <keepdims = 0> (sides)
    wanted = Constant <value = double {RESOLUTION.0}> ()
    one = Constant <value = double {1.0}> ()
    scale = Div (wanted, short)
    scaled = Mul (sides, scale)
    rounded = Round (scaled)
    kept = Max (rounded, one)
    PIXELS
    shrinks = Less (scale, one)
    resized = If (shrinks) <
        then_branch = area () => (float[P, Q, PLANES] smaller)
        {
            ROWS
            COLUMNS
        },
        else_branch = linear () => (float[P, Q, PLANES] larger)
        {
            there = Constant <value_ints = [0]> ()
            planes = Transpose <perm = [2, 0, 1]> (pixels)
            batch = Unsqueeze (planes, there)
            target = Cast <to = 7> (kept)
            front = Constant <value_ints = [1, PLANES]> ()
            sizes = Concat <axis = 0> (front, target)
            wide = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (batch, , , sizes)
            one_of = Squeeze (wide, there)
            larger = Transpose <perm = [1, 2, 0]> (one_of)
        }
    >
    SCALED
}
"""

_ROUNDED = "whole = Round (resized)"

# Levels: where nothing was measured all are 0. The last plane is the share of each pixel that was measured; the others'
# sums are divided by it (`selfseg.ops.levels.among_measured`).
_WHERE = """
    highest = ReduceMax <axes = [2], keepdims = 1> (bytes)
    nought = Constant <value = float {0.0}> ()
    not_void = Greater (highest, nought)
    third = Constant <value_ints = [2]> ()
    measured = Squeeze (not_void, third)
"""

_SHARES = """
    share_of = Cast <to = 1> (not_void)
    pixels = Concat <axis = 2> (bytes, share_of)
"""

_AMONG_MEASURED = """
    from_first = Constant <value_ints = [0]> ()
    from_last = Constant <value_ints = [INPUTS]> ()
    to_end = Constant <value_ints = [PLANES]> ()
    sums = Slice (resized, from_first, from_last, third)
    share = Slice (resized, from_last, to_end, third)
    tiny = Constant <value = float {0.000001}> ()
    divided = Max (share, tiny)
    mean_level = Div (sums, divided)
    level = Round (mean_level)
    least = Constant <value = float {1.0}> ()
    largest = Constant <value = float {255.0}> ()
    above = Max (level, least)
    between = Min (above, largest)
    half = Constant <value = float {0.49999}> ()
    enough = GreaterOrEqual (share, half)
    whole = Where (enough, between, nought)
"""

_SCALED = """
    ROUNDED
    most = Constant <value_float = 255.0> ()
    unit = Div (whole, most)
    channels = Transpose <perm = [2, 0, 1]> (unit)
    first = Constant <value_ints = [0]> ()
    prepared = Unsqueeze (channels, first)
"""

# Area means along one axis: the sum of everything before a place that may lie within a pixel, at both ends of each
# pixel of the result; their difference over the length.
_AREA = """
            @axis = Constant <value_int = AXIS> ()
            @long = Gather <axis = 0> (sides, @axis)
            @new = Gather <axis = 0> (kept, @axis)
            @count = Cast <to = 7> (@new)
            @zero = Constant <value_int = 0> ()
            @one = Constant <value_int = 1> ()
            @ends = Add (@count, @one)
            @numbers = Range (@zero, @ends, @one)
            @float = Cast <to = 11> (@numbers)
            @far = Mul (@float, @long)
            @place = Div (@far, @new)
            @last = Sub (@long, one)
            @floor = Floor (@place)
            @whole = Min (@floor, @last)
            @part = Sub (@place, @whole)
            @share = Cast <to = 1> (@part)
            @shape = Constant <value_ints = [SHAPE]> ()
            @shares = Reshape (@share, @shape)
            @index = Cast <to = 7> (@whole)
            @sums = CumSum <exclusive = 1> (FROM, @axis)
            @before = Gather <axis = AXIS> (@sums, @index)
            @here = Gather <axis = AXIS> (FROM, @index)
            @partly = Mul (@here, @shares)
            @upto = Add (@before, @partly)
            @axes = Constant <value_ints = [AXIS]> ()
            @begin = Constant <value_ints = [0]> ()
            @second = Constant <value_ints = [1]> ()
            @minus = Constant <value_ints = [-1]> ()
            @finish = Constant <value_ints = [9223372036854775807]> ()
            @low = Slice (@upto, @begin, @minus, @axes)
            @high = Slice (@upto, @second, @finish, @axes)
            @sum = Sub (@high, @low)
            @ratio = Div (@new, @long)
            @factor = Cast <to = 1> (@ratio)
            TO = Mul (@sum, @factor)
"""

# Between four cells: the candidates of each such square, one after the other. A slot holds the candidate's scores at
# the square's corners (left and right above, left and right below) and its value.
_PICKED = """
pick (float[5, K, h, w] squares, int64[2] extentTHERE) => (KIND[H, W] mask)
{
    PLACES
    slots = Constant <value_int = SLOTS> ()
    going = Constant <value = bool {1}> ()
    worst = ConstantOfShape <value = float[1] {-3.4e38}> (extent)
    nothing = ConstantOfShape <value = KIND[1] {VOID}> (extent)
    best, MASK = Loop (slots, going, worst, nothing) <
        body = compare (int64 number, bool on, float[H, W] most, KIND[H, W] chosen)
            => (bool still, float[H, W] more, KIND[H, W] choice)
        {
            still = Identity (on)
            slot = Gather <axis = 1> (squares, number)
            high = Gather <axis = 1> (slot, y_before)
            parts = Constant <value_ints = [1, 1, 1, 1, 1]> ()
            five = Constant <value_ints = [0]> ()
            a, b, c, d, v = Split <axis = 0> (high, parts)
            left_above = Squeeze (a, five)
            right_above = Squeeze (b, five)
            left_below = Squeeze (c, five)
            right_below = Squeeze (d, five)
            what = Squeeze (v, five)
            left_change = Sub (left_below, left_above)
            left_part = Mul (left_change, y_share)
            left = Add (left_above, left_part)
            right_change = Sub (right_below, right_above)
            right_part = Mul (right_change, y_share)
            right = Add (right_above, right_part)
            start = Gather <axis = 1> (left, x_before)
            end = Gather <axis = 1> (right, x_before)
            change = Sub (end, start)
            part = Mul (change, x_share)
            score = Add (start, part)
            better = Greater (score, most)
            more = Where (better, score, most)
            kinds = Cast <to = NUMBER> (what)
            value = Gather <axis = 1> (kinds, x_before)
            choice = Where (better, value, chosen)
        }
    >
    LEFT
}
"""

# For each pixel along an axis the cell before it, and how far it is on the way to the next.
_PLACES = """
    @side = Shape <start = SIDE, end = BEYOND> (squares)
    @cells = Cast <to = 11> (@side)
    @number = Constant <value_int = AXIS> ()
    @many = Gather <axis = 0> (extent, @number)
    @pixels = Cast <to = 11> (@many)
    @zero = Constant <value = double {0.0}> ()
    @half = Constant <value = double {0.5}> ()
    @one = Constant <value = double {1.0}> ()
    @indices = Range (@zero, @pixels, @one)
    @middles = Add (@indices, @half)
    @scaled = Mul (@middles, @cells)
    @exact = Div (@scaled, @pixels)
    @moved = Sub (@exact, @half)
    @last = Sub (@cells, @one)
    @low = Max (@moved, @zero)
    @place = Min (@low, @last)
    @whole = Floor (@place)
    @before = Cast <to = 7> (@whole)
    @way = Sub (@place, @whole)
    @part = Cast <to = 1> (@way)
    @shape = Constant <value_ints = [SHAPE]> ()
    @share = Reshape (@part, @shape)
"""


def require_runtime() -> Any:
    """The package onnxruntime, with onnx.

    Raises:
        MissingExtra: if one of them isn't installed.
    """
    require_onnx()
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("the format segmenter-onnx", "onnxruntime", "onnx") from error
    return onnxruntime


class _Squares(nn.Module):
    """(1, 3, P, Q) in [0, 1] to (5, K, h, w): between each four cells K candidates, their scores there and values."""

    values: Tensor

    weight: Tensor
    bias: Tensor

    def __init__(self, segmenter: Segmenter, most: int = CANDIDATES) -> None:
        super().__init__()
        self.embedder = traceable(segmenter.embedder)
        self.sees = segmenter.sees
        self.position = segmenter.position
        self.count = min(most, len(segmenter.weight))
        self.register_buffer("weight", segmenter.weight.clone())
        self.register_buffer("bias", segmenter.bias.clone())
        self.register_buffer("values", torch.where(segmenter.table < 0, segmenter.legend.void, segmenter.table).float())

    def forward(self, image: Tensor) -> Tensor:
        seen = self.embedder(image) if self.sees == "embedding" else self.embedder.features(image).float()
        placed = add_position(seen[0], self.position)[None]
        scores = nn.functional.conv2d(placed, self.weight[:, :, None, None], self.bias)[0]  # (R, h, w)
        after = torch.cat([scores[:, :, 1:], scores[:, :, -1:]], 2)
        below, beyond = (torch.cat([each[:, 1:], each[:, -1:]], 1) for each in (scores, after))
        corners = torch.stack([scores, after, below, beyond])  # (4, R, h, w)
        # A bilinear mean keeps an order that its four cells agree on: only those rows can win in a square that some
        # corner prefers to the winner in its middle, and that winner itself.
        middle = corners.mean(0).argmax(0, keepdim=True)  # (1, h, w)
        ahead = (corners - corners.gather(1, middle.expand(4, -1, -1, -1))).amax(0)  # (R, h, w)
        chosen = ahead.scatter(0, middle, math.inf).topk(self.count, dim=0).indices  # (K, h, w)
        found = corners.gather(1, chosen.expand(4, -1, -1, -1))
        return torch.cat([found, self.values[chosen][None]])


def write_segmenter_graph(segmenter: Segmenter, facts: Mapping[str, str], path: Path) -> None:
    """Write the graph of a segmenter, with weights: `image` (H, W, 3) uint8 to `mask` (H, W) uint8, or int32.

    Of measured images it takes levels, (H, W, C) uint8; pixels of level 0 in all channels are void.

    Args:
        segmenter: in evaluation mode, on the CPU. Of its embedder the network alone is in the graph: one look, and no
            smoothing over superpixels.
        facts: words for the graph's header.
        path: the file.

    Raises:
        MissingExtra: if onnx isn't installed.
        ConfigError: if the exporter can't express the network.
    """
    onnx = require_onnx()
    network = _Squares(segmenter).eval()
    resolution = segmenter.embedder.resolution
    side = resolution or max(64, 2 * segmenter.embedder.config.border)
    measured = segmenter.embedder.config.channels is not None
    inputs = segmenter.embedder.config.inputs
    image = torch.rand(1, inputs, side, round(side * 1.5), generator=torch.Generator())
    axes = {"prepared": {2: "P", 3: "Q"}, "squares": {2: "h", 3: "w"}}
    trace_network(network, image, path, axes, segmenter.embedder)
    middle = onnx.load(str(path))
    merge = onnx.compose.merge_models
    kept = ["squares", "size", *(["measured"] if measured else [])]
    before = _parsed(_preparation(resolution, inputs, measured))
    model = merge(before, middle, [("prepared", "prepared")], outputs=kept)
    choice = _parsed(_choice(network.count, segmenter.legend.void, measured))
    joined = [("squares", "squares"), ("size", "extent"), *([("measured", "where")] if measured else [])]
    model = merge(model, choice, joined)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _preparation(resolution: int | None, inputs: int, measured: bool) -> str:
    words = {"INPUTS": str(inputs), "PLANES": str(inputs)}
    there = {"THERE": ", bool[H, W] measured" if measured else "", "WHERE": ""}
    parts = {"PIXELS": "pixels = Cast <to = 1> (image)", "ROUNDED": _ROUNDED}
    if measured:
        there["WHERE"] = "bytes = Cast <to = 1> (image)" + _WHERE
        if resolution is not None:
            words["PLANES"] = str(inputs + 1)
            parts = {"PIXELS": _SHARES, "ROUNDED": _AMONG_MEASURED}
    if resolution is None:
        return _filled(_WHOLE, **there, SCALED=_SCALED, **parts, **words)
    rows = {"@": "down_", "AXIS": "0", "SHAPE": "-1, 1, 1", "FROM": "pixels", "TO": "lower"}
    columns = {"@": "along_", "AXIS": "1", "SHAPE": "1, -1, 1", "FROM": "lower", "TO": "smaller"}
    area = {"ROWS": _filled(_AREA, **rows), "COLUMNS": _filled(_AREA, **columns)}
    return _filled(_RESIZED, **area, **there, SCALED=_SCALED, **parts, **words, RESOLUTION=str(resolution))


def _choice(slots: int, void: int, measured: bool) -> str:
    rows = {"@": "y_", "AXIS": "0", "SIDE": "2", "BEYOND": "3", "SHAPE": "-1, 1"}
    columns = {"@": "x_", "AXIS": "1", "SIDE": "3", "BEYOND": "4", "SHAPE": "-1"}
    places = _filled(_PLACES, **rows) + _filled(_PLACES, **columns)
    kind = {"KIND": "uint8", "NUMBER": "2"} if void == 255 else {"KIND": "int32", "NUMBER": "6"}
    left = {"THERE": "", "MASK": "mask", "LEFT": ""}
    if measured:
        left = {
            "THERE": ", bool[H, W] where",
            "MASK": "everywhere",
            "LEFT": "mask = Where (where, everywhere, nothing)",
        }
    return _filled(_PICKED, PLACES=places, **left, SLOTS=str(slots), VOID=str(void), **kind)


def _filled(text: str, **words: str) -> str:
    """A text with its words in capitals replaced."""
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def _parsed(text: str) -> Any:
    return require_onnx().parser.parse_model(_HEAD + text)


def run_graph(graph: Path | bytes, image: NDArray[np.uint8]) -> NDArray[Any]:
    """What a graph gives by onnxruntime.

    Args:
        graph: the file, or its content.
        image: (H, W, 3) uint8, or (H, W, C) levels.

    Returns:
        The first output; of a segmenter's graph (H, W).

    Raises:
        MissingExtra: if onnxruntime isn't installed.
        ConfigError: if the graph can't be computed at this size.
    """
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    content = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found: NDArray[Any] = session.run(None, {"image": image})[0]
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = (str(error).splitlines() or ["no reason given"])[0][:300]
        raise ConfigError(
            "this segmenter can't be written as an ONNX graph for images of any size: "
            f"{type(error).__name__}: {reason}; the format "
            "segmenter works for every one"
        ) from error
    return found


def prepared_by_graph(resolution: int | None, image: NDArray[np.uint8], measured: bool = False) -> Tensor:
    """What the network in the graph is given: (1, C, P, Q) float32 in [0, 1] from (H, W, C) uint8, levels or RGB."""
    graph = _parsed(_preparation(resolution, image.shape[2], measured))
    return torch.from_numpy(run_graph(graph.SerializeToString(), image))


def mask_of_network(segmenter: Segmenter, image: NDArray[np.uint8], prepared: Tensor | None = None) -> NDArray[Any]:
    """What the graph should give: the segmenter with one look and without smoothing.

    Args:
        segmenter: on the CPU.
        image: (H, W, 3) uint8, or (H, W, C) levels.
        prepared: (1, C, P, Q) in [0, 1], what the network looks at; None = as the embedder prepares the image.

    Returns:
        (H, W), see `Segmenter`.
    """
    embedder: Embedder = segmenter.embedder
    if prepared is None:
        embedding = embedder.embed_prepared([embedder.prepare(image)], look=segmenter.network)[0]
    else:
        with torch.no_grad():
            embedding = segmenter.network(prepared)[0]
    mask = segmenter.assign_later(embedding, (image.shape[0], image.shape[1])).numpy()
    return segmenter.without_void(mask, image)
