"""The text beside a segmenter: what it finds, and the lines that run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfseg.data.labelled.legend import Legend
from selfseg.models.embedder_config import EmbedderConfig
from selfseg.sharing.card import cell, channel_table

_USE = """```python
import selfseg

segmenter = selfseg.load_segmenter("segmenter")  # this folder
mask = segmenter("photo.jpg")  # (H, W) of the values above; also takes uint8 arrays and PIL images
names = segmenter.legend.names
```
`selfseg apply segmenter photos --out masks` writes the masks of a whole folder.

`segmenter.json` has names and colours, `weights.safetensors` the classifier, `embedder/` the network. Other folders are
not needed, and nothing here is unpickled.
"""


def legend_table(legend: Legend) -> list[str]:
    """Lines of Markdown: the value, name and colour of each class, and of void."""
    lines = ["| value | class | colour |", "|---|---|---|"]
    lines += [f"| {one['value']} | {cell(one['name'])} | `{one['colour']}` |" for one in legend.to_json()]
    return [*lines, f"| {legend.void} | (void: no class) | `#000000` |"]


def folder_card(legend: Legend, config: EmbedderConfig, about: Mapping[str, Any]) -> str:
    """Markdown: the classes, how the segmenter was made, and how to use it.

    Args:
        legend: its classes.
        config: of its embedder.
        about: how it was made, see `Segmenter`.
    """
    plain = {key: value for key, value in about.items() if isinstance(value, str | int) and key != "embedder"}
    facts = [f"- {cell(key.replace('_', ' '))}: {cell(str(value))}" for key, value in plain.items()]
    seen = "as they are" if config.resolution is None else f"with a short side of {config.resolution} px"
    lines = ["# A named segmenter", "", *legend_table(legend), ""]
    lines += [f"Images are looked at {seen} by the backbone {config.backbone}; masks have the image's own size."]
    lines += ["", *facts] if facts else []
    use = _USE
    if config.channels is not None:
        lines += ["", "Images are measured ones. Of each channel this range becomes the levels 1 to 255:", ""]
        lines += channel_table(config.channels)
        use = use.replace("photo.jpg", "image.tif").replace(
            "also takes uint8 arrays and PIL images", "also takes arrays of values, or of uint8 levels"
        )
    return "\n".join([*lines, "", use])
