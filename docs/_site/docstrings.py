"""The package's docstrings, as the site's reader of them wants them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """The package writes `Example:` before what can be run; the reader knows `Examples:` only."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute that was read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
