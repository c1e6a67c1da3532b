"""The formats of a named segmenter: its folder, and one ONNX file with names and colours inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Legend
from selfseg.errors import RunError
from selfseg.exporting.export import Exporter, Written
from selfseg.exporting.measured import levels_card
from selfseg.exporting.segmenter_graph import (
    mask_of_network,
    prepared_by_graph,
    require_runtime,
    run_graph,
    write_segmenter_graph,
)
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks
from selfseg.ops.levels import resize
from selfseg.segmenter.cards import legend_table
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.storage.files import write_atomically

LEAST_EQUAL = 0.99
"""Share of the drawn images' pixels at which the graph must give the network's class."""

_FILES = ("README.md", "segmenter.json", "weights.safetensors", "embedder")

_PYTHON = """```python
import json
import numpy
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(FILE)
image = numpy.asarray(Image.open("photo.jpg").convert("RGB"))  # (H, W, 3) uint8
(mask,) = session.run(None, {"image": image})  # (H, W), a class value for each pixel
legend = json.loads(session.get_modelmeta().custom_metadata_map["legend"])
shares = {one["name"]: float((mask == one["value"]).mean()) for one in legend["classes"]}
```"""

_JAVASCRIPT = """```javascript
import * as ort from "onnxruntime-web";

const names = NAMES; // by value; VOID is void
const session = await ort.InferenceSession.create(FILE);
const context = document.querySelector("canvas").getContext("2d"); // the photograph is drawn there
const { data, width, height } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
const rgb = new Uint8Array(3 * width * height).map((_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
const { mask } = await session.run({ image: new ort.Tensor("uint8", rgb, [height, width, 3]) });
const nameAt = (x, y) => names[mask.data[y * width + x]] ?? "void";
```"""

_CPP = """```cpp
#include <onnxruntime_cxx_api.h>

Ort::Env env;
Ort::Session session(env, FILE, Ort::SessionOptions{});  // on Windows a wide string: LFILE
auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
int64_t shape[] = {height, width, 3};  // rgb: std::vector<uint8_t>, row by row
auto image = Ort::Value::CreateTensor<uint8_t>(memory, rgb.data(), rgb.size(), shape, 3);
const char *inputs[] = {"image"}, *outputs[] = {"mask"};
auto found = session.Run(Ort::RunOptions{}, inputs, &image, 1, outputs, 1);
const KIND* mask = found[0].GetTensorData<KIND>();  // mask[y * width + x]
Ort::AllocatorWithDefaultOptions allocator;
auto legend = session.GetModelMetadata().LookupCustomMetadataMapAllocated("legend", allocator);  // JSON
```"""


_PHOTO = 'image = numpy.asarray(Image.open("photo.jpg").convert("RGB"))  # (H, W, 3) uint8'


def legend_json(legend: Legend) -> str:
    """The legend as it stands in the graph's header: {"classes": [{"value", "name", "colour"}, ...], "void": 255}."""
    return json.dumps({"classes": legend.to_json(), "void": legend.void})


def drawn_images(
    resolution: int | None, least: int = 1, inputs: int = 3, measured: bool = False
) -> list[NDArray[np.uint8]]:
    """Images of many colours, always the same: tiny, odd, portrait, and larger than what is looked at; (H, W, inputs).

    Args:
        resolution: what is looked at, if images are resized.
        least: no side is shorter.
        inputs: channels.
        measured: whether these are levels, of which a corner is void.
    """
    side = resolution or 96
    sizes = ((9, 7), (61, 83), (side + side // 3, side - 1), (2 * side + 1, 3 * side - 5))
    random = np.random.default_rng(0)
    images = []
    for height, width in ((max(h, least), max(w, least)) for h, w in sizes):
        blobs = random.integers(0, 256, (6, 6, inputs), np.uint8)
        large = resize(blobs, (width, height), cv2.INTER_CUBIC)
        noise = random.normal(0, 6, large.shape)
        image = np.clip(large + noise, 1 if measured else 0, 255).astype(np.uint8)
        if measured:
            image[: height // 3, : width // 3] = 0
        images.append(image)
    return images


def _write_graph(path: Path, embedder: Embedder, about: Mapping[str, str], run: Path) -> Written:
    segmenter = load_segmenter(run, "cpu")
    legend, kind = segmenter.legend, "uint8_t" if segmenter.legend.void == 255 else "int32_t"
    header = {**about, "classes": str(len(legend.classes)), "legend": legend_json(legend)}

    def write(temporary: Path) -> None:
        write_segmenter_graph(segmenter, header, temporary)
        _compare(path, temporary, segmenter)

    write_atomically(path, write)
    file = json.dumps(path.name)
    names = json.dumps(legend.names).replace("`", "\\u0060")  # a backtick could end the block of code
    javascript = _JAVASCRIPT.replace("VOID", str(legend.void)).replace("FILE", file).replace("NAMES", names)
    channels = segmenter.embedder.config.channels
    lines = [
        "Without selfseg. Python:",
        _PYTHON.replace("FILE", file),
        "JavaScript, in a browser:",
        javascript,
        "C++:",
        _CPP.replace("KIND", kind).replace("FILE", file),
    ]
    if channels is not None:
        python = _PYTHON.replace("FILE", file).replace("from PIL import Image\n", "")
        lines = [
            "Without selfseg, with the function `levels` of below:",
            python.replace(_PHOTO, f"image = levels(values)  # (H, W, {len(channels)}) uint8"),
            levels_card(channels),
        ]
    lines += [
        "## Classes",
        "\n".join(legend_table(legend)),
    ]
    return "\n\n".join(lines), _notes(segmenter.embedder.config, segmenter.embedder.looks, legend)


def least_side(config: EmbedderConfig) -> int:
    """The shortest side in px of an image that a graph takes: one that isn't resized has its border mirrored."""
    return 1 if config.resolution is not None else config.border + 1


def _notes(config: EmbedderConfig, looks: Looks, legend: Legend) -> list[str]:
    """What whoever runs the graph must know."""
    kind = "uint8" if legend.void == 255 else "int32"
    what = "(H, W, 3) uint8 RGB of any size, upright (turn it as its EXIF data say first)"
    if config.channels is not None:
        what = f"(H, W, {config.inputs}) uint8 levels of any size, 0 in all channels where nothing was measured"
    notes = [
        f"`image` is {what}; `mask` is (H, W) "
        f"{kind}: a class's value, or {legend.void} for void. Names and colours are in the header, as JSON under "
        "`legend`."
    ]
    if config.resolution is not None:
        notes.append(
            f"The graph resizes the image by itself, to a short side of {config.resolution} px: by area means when it "
            "shrinks, bilinear when it grows, as selfseg does up to one gray level."
        )
    if least_side(config) > 1:
        notes.append(f"Images are looked at as they are, and each side must have at least {least_side(config)} px.")
    if config.smooth:
        notes.append(
            "selfseg also lets like superpixels of an image agree, which is not in the graph: borders are coarser "
            "here, and small or thin things get another class more often. On 101 street scenes 6 pixels in 100 had "
            "another class than `selfseg apply` gives them (docs/segmenter.md)."
        )
    if looks != Looks():
        notes.append("selfseg looks at each image several times with this segmenter; the graph looks once.")
    return notes


def _compare(path: Path, graph: Path, segmenter: Segmenter) -> None:
    """Raise RunError unless the graph prepares images as the embedder does, and then gives the network's classes.

    Both by themselves: one gray level, which resizing may be off by, can change the class where two are equally likely.
    """
    embedder, equal, total = segmenter.embedder, 0, 0
    config = embedder.config
    measured = config.channels is not None
    for image in drawn_images(embedder.resolution, least_side(config), config.inputs, measured):
        seen, wanted = prepared_by_graph(embedder.resolution, image, measured), embedder.prepare(image)
        levels = seen[0].permute(1, 2, 0).numpy() * 255
        # A pixel of which half was measured may be void in one of the two.
        unequal = 1e-3 if measured else 0.0
        if levels.shape != wanted.shape or float((np.abs(levels - wanted) > 1.01).mean()) > unequal:
            raise RunError(
                f"{path} was not written: it does not resize an image of {image.shape[:2]} pixels as selfseg does"
            )
        found, expected = run_graph(graph, image), mask_of_network(segmenter, image, seen)
        if found.shape != expected.shape:
            raise RunError(
                f"{path} was not written: for an image of the shape {image.shape} its mask has {found.shape}"
            )
        equal += int((found == expected).sum())
        total += expected.size
    if equal < LEAST_EQUAL * total:
        raise RunError(
            f"{path} was not written: run by onnxruntime it gives the network's class at {equal / total:.1%} of the "
            f"pixels, at least {LEAST_EQUAL:.0%} are wanted"
        )


def _write_folder(path: Path, embedder: Embedder, about: Mapping[str, str], run: Path) -> Written:
    """The segmenter's folder, with its own card."""
    segmenter = load_segmenter(run, "cpu")
    segmenter.save(path)
    if Segmenter.load(path).digest() != segmenter.digest():
        raise RunError(f"{path} was written, but what is read back is another segmenter; is the disk sound?")
    return "", ()


SEGMENTER_ONNX = Exporter(
    ".onnx", True, _write_graph, require_runtime, stem="segmenter", input="uint8 RGB (H, W, 3), any size"
)
SEGMENTER = Exporter("", True, _write_folder, stem="segmenter", files=frozenset(_FILES))
