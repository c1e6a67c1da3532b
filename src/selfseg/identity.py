"""When two runs learn the same: the hash that checkpoints, results and exported files carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

EXECUTION = frozenset(
    "images out accelerator devices nodes workers checkpoint_every keep log_every max_bad cache name".split()
)
"""Settings that change how a run is executed and not what it learns: a resumed run may change them."""


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """16 hex digits of what a run learns: equal for recipes that differ only in how they are executed.

    Args:
        recipe: plain values, as in recipe.yaml.

    Example:
        >>> recipe_hash({"steps": 9, "out": "a"}) == recipe_hash({"steps": 9, "out": "b"})
        True
    """
    values = {key: value for key, value in recipe.items() if key not in EXECUTION}
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
