"""What a report says in words beside its pictures: the facts of a run, and how to go on with it."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import accepting
from selfseg.telling.bars import lasting


def facts_of(
    recipe: Mapping[str, Any], collection: ImageCollection | None, log: Sequence[Mapping[str, Any]], start: str = ""
) -> list[tuple[str, str]]:
    """What the page's head says, as (name, value).

    Args:
        recipe: plain values of recipe.yaml; empty if it can't be read.
        collection: the images learned from, if they can be found.
        log: the lines of log.jsonl.
        start: what the weights began from, see `Embedder.start`; "" if that isn't known.
    """
    facts = []
    if recipe:
        facts.append(("recipe", str(recipe.get("name", "custom"))))
    if start:
        facts.append(("began from", start))
    if collection is not None:
        facts.append(("images", f"{len(collection):,}"))
    if log:
        last = log[-1]
        progress = float(last.get("progress", 1.0))
        facts.append(("steps", f"{last['step']:,}" + (f" ({progress:.0%} of the run)" if progress < 0.995 else "")))
        if "epoch" in last:
            facts.append(("epochs", f"{last['epoch']:.4g}"))
        times = [float(line["time"]) for line in log if "time" in line]
        gaps = [b - a for a, b in pairwise(times) if b > a]
        if gaps:
            # A pause between a stop and its resume is no training time.
            usual = 10 * statistics.median(gaps)
            seconds = sum(min(gap, usual) for gap in gaps) * len(times) / len(gaps)
            facts.append(("training time", lasting(seconds)))
        speeds = [float(line["images_per_second"]) for line in log if "images_per_second" in line]
        if speeds:
            facts.append(("images per second", f"{statistics.median(speeds):.3g}"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    facts.append(("page made on", f"{platform.system()} {platform.machine()}, {device}"))
    return facts


def next_commands(run: Path, recipe: Mapping[str, Any], clustered: bool) -> list[tuple[str, str]]:
    """How to go on, as (what it does, command).

    Args:
        run: its folder.
        recipe: plain values of recipe.yaml.
        clustered: whether there are clusters.
    """
    there, images = quote(_from_here(run)), quote(_from_here(str(recipe.get("images", "IMAGES"))))
    max_bad = recipe.get("max_bad", 0.05)
    bad = accepting(max_bad if isinstance(max_bad, float | int) else 0.05)
    commands = (
        [] if clustered else [("Group the pixels into concepts", f"selfseg cluster {there} {images}{bad} -k 8 27")]
    )
    method = recipe.get("method")
    learns_concepts = isinstance(method, Mapping) and "prototypes" in method
    concepts = "What each prototype finds" if learns_concepts else "The segments of each cluster"
    which = "" if learns_concepts else " -k 27"
    return [
        *commands,
        ("Name the clusters in your browser", f"selfseg studio {there} {images}{bad}"),
        ("Or name them here, for example", f"selfseg name {there} 0=road 3=sky"),
        ("Masks of what has a name", f"selfseg apply {there} {images}{bad} --out masks"),
        ("Masks of clusters without names", f"selfseg segment {there} {images}{bad} --out segments"),
        ("Another number of clusters", f"selfseg cluster {there} {images}{bad} -k 64"),
        (concepts, f"selfseg concepts {there} {images}{bad}{which} --top 10"),
        ("Measure on a labelled folder", f"selfseg evaluate {there} LABELLED"),
        ("One vector per pixel, for your own code", f"selfseg embed {there} {images}{bad} --out embeddings"),
        ("This page again", f"selfseg report {there}"),
    ]


def _from_here(path: Path | str) -> str:
    """A path as it is written in a command that is given in the current folder: recipes hold whole paths."""
    here = os.getcwd()
    return os.path.relpath(path, here) if str(path).startswith(here + os.sep) else str(path)
