"""When two runs learn the same: the hash that checkpoints, results and exported files carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from selfseg.storage.reading import read_recipe_values

EXECUTION = frozenset(
    (
        "images out accelerator devices nodes workers checkpoint_every keep log_every max_bad cache name wait_process "
        "wait_folder recompute"
    ).split()
)
"""Settings that change how a run is executed and not what it learns: a resumed run may change them."""


PLACES = frozenset(["folder"])
"""Settings anywhere inside that only tell where files lie, as `images` does: masks may be moved."""


def learned(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe's plain values decides what a run learns.

    Example:
        >>> learned({"steps": 9, "out": "a", "method": {"views": {"size": 8, "regions": {"folder": "masks"}}}})
        {'steps': 9, 'method': {'views': {'size': 8, 'regions': {}}}}
    """
    values = {key: value for key, value in recipe.items() if key not in EXECUTION}
    return {key: _without_places(value) for key, value in values.items()}


def _without_places(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_places(item) for key, item in value.items() if key not in PLACES}


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """16 hex digits of what a run learns: equal for recipes that differ only in how they are executed.

    Args:
        recipe: plain values, as in recipe.yaml.

    Example:
        >>> recipe_hash({"steps": 9, "out": "a"}) == recipe_hash({"steps": 9, "out": "b"})
        True
    """
    return hashlib.blake2b(json.dumps(learned(recipe), sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def run_hash(run: Path) -> str:
    """What checkpoints of the run carry, see `recipe_hash`; "" without a readable recipe."""
    values = read_recipe_values(run)
    return recipe_hash(values) if values else ""


def training_of(run: Path) -> dict[str, Any]:
    """Which training of its recipe a run is; {} without a readable recipe.

    Returns:
        `recipe`: 16 hex digits, equal for runs that differ in nothing but their seed and how they were executed, and
        whose images have the same sizes; `seed`: theirs.
    """
    values = read_recipe_values(run)
    seed = values.pop("seed", None)
    if not values or not isinstance(seed, int):
        return {}
    digest = hashlib.blake2b(recipe_hash(values).encode(), digest_size=8)
    with suppress(OSError):
        digest.update((run / "image_bytes.json").read_bytes())
    return {"recipe": digest.hexdigest(), "seed": seed}


def embedder_hash(run: Path | str) -> str:
    """SHA-256 of a run's embedder: its weights and its description."""
    digest = hashlib.sha256()
    for name in ("embedder.json", "weights.safetensors"):
        path = Path(run) / "embedder" / name
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
