"""What a notebook shows of clusters and of classes: a row with a colour for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from selfseg.drawing.pictures import hex_colour, palette
from selfseg.showing import bar, card, facts, note, swatch, table

_SHOWN = 3  # names of images beside a cluster


def clusters_card(
    share: Sequence[float],
    typical: Sequence[Sequence[str]],
    names: Mapping[int, str],
    info: Mapping[str, Any],
    title: str = "",
) -> str:
    """The clusters of a run.

    Args:
        share: of the pixels, K fractions.
        typical: per cluster, names of images that show it.
        names: that a person gave, by number.
        info: how they were found, as `selfseg.collection.clusters.Clusters.info` tells it.
        title: above all; "" = their number.
    """
    count = len(share)
    colours = [hex_colour(colour) for colour in palette(count)]
    rows = [
        (swatch(colours[number]), number, bar(part, colours[number]), names.get(number, ""), ", ".join(images[:_SHOWN]))
        for number, (part, images) in enumerate(zip(share, typical, strict=True))
    ]
    without = [number for number in range(count) if number not in names]
    left = sum(share[number] for number in without)
    told = [("images", f"{info['count']:,}")] if isinstance(info.get("count"), int) else []
    told += [("merged from", f"{info['merge']} clusters")] if info.get("merge") else []
    told += [("weight of the place in the image", f"{info['position']:g}")] if info.get("position") else []
    skipped = info.get("skipped")
    return card(
        title or f"{count} clusters",
        facts(told),
        table(
            ("", "number", "share of the pixels", "name", "images that show it best"), rows, right=(1,), what="clusters"
        ),
        note(f"{len(without)} of {count} clusters have no name yet, {left:.1%} of the pixels."),
        warnings=[said_of_skipped(skipped)] if isinstance(skipped, int) and skipped else [],
    )


def legend_rows(classes: Sequence[Mapping[str, Any]]) -> Markup:
    """A table of classes or clusters, each with its value, name, colour, and share of the pixels if it is known.

    Args:
        classes: {"value", "name", "colour", perhaps "share"} each, as legend.json has them.
    """
    shared = all(isinstance(one.get("share"), float | int) for one in classes)
    rows = [
        (
            swatch(str(one["colour"])),
            one["value"],
            one["name"],
            *([bar(float(one["share"]), str(one["colour"]))] if shared else []),
        )
        for one in classes
    ]
    head = ("", "value", "name", *(["share of the pixels"] if shared else []))
    return table(head, rows, right=(1,), what="classes")


def said_of_skipped(count: int) -> str:
    """That images could not be used."""
    return f"{count:,} {'image' if count == 1 else 'images'} could not be used; skipped.jsonl says which, and why"
