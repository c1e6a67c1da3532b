"""What whoever runs an exported network on measured images must know: which channels, and how values become levels."""

from __future__ import annotations

import json
from collections.abc import Sequence

from selfseg.errors import ConfigError
from selfseg.models.embedder_config import EmbedderConfig
from selfseg.ops.channels import Channels

_SNIPPET = """```python
import numpy as np

# NAMES
take = TAKE  # of the OF channels of a file
low = np.array(LOW)
high = np.array(HIGH)
mean = np.array(MEAN)  # level of a channel that is missing where others are there


def levels(values):  # (H, W, C) of these channels, as the files have them
    there = THERE
    values = np.where(there, values, low).astype(np.float64)
    found = 1 + np.rint((values - low) * (254 / (high - low))).clip(0, 254)
    found = np.where(there, found, mean)
    found[~there.any(2)] = 0
    return found.astype(np.uint8)
```"""


def measured_facts(channels: Channels) -> dict[str, str]:
    """What of an export's header is about its channels."""
    return {
        "channels": ", ".join(" ".join(name.split()) for name in channels.names),
        "low": " ".join(f"{value:.9g}" for value in channels.low),
        "high": " ".join(f"{value:.9g}" for value in channels.high),
    }


def levels_card(channels: Channels, last: Sequence[str] = ()) -> str:
    """Markdown: how values become levels, with lines of numpy.

    Args:
        channels: as the run reads them.
        last: lines of Python behind the function `levels`.

    Example:
        >>> card = levels_card(Channels(("NIR",), (0,), 1, (100.0,), (1100.0,), (0.5,), (0.2,)))
        >>> "low = np.array([100.0])" in card
        True
    """
    names = json.dumps(list(channels.names)).replace("`", "\\u0060")  # a backtick could end the block of code
    there = "np.isfinite(values)"
    if channels.nodata is not None and channels.nodata == channels.nodata:
        there += f" & (values != {channels.nodata!r})"
    numbers = {
        "NAMES": f"Channels: {names}",
        "TAKE": repr(list(channels.take)),
        "LOW": repr(list(channels.low)),
        "HIGH": repr(list(channels.high)),
        "MEAN": repr([min(max(round(value * 255), 1), 255) for value in channels.mean]),
        "THERE": there,
        " OF ": f" {channels.of} ",
    }
    code = _SNIPPET
    for word, value in numbers.items():
        code = code.replace(word, value, 1)
    if last:
        code = code.removesuffix("```") + "\n\n" + "\n".join(last) + "\n```"
    return (
        f"The network learned from measured images of {len(channels)} channel{'s' * (len(channels) > 1)}. What was "
        "measured becomes levels from 1 (`low` and below) to 255 (`high` and above); 0 in all channels is a pixel "
        f"where nothing was measured.\n\n{code}"
    )


def refuse_measured(config: EmbedderConfig, format: str) -> None:
    """Raise ConfigError where a format's library reads photographs only, and these channels are no colours."""
    if not config.rgb:
        raise ConfigError(
            f"the format {format} is for photographs, and this network takes {config.inputs} measured channels; "
            "formats that keep them: timm, safetensors, onnx, hub, segmenter, segmenter-onnx, segmenter-hub"
        )
