"""Does the audit's 95 % interval hold the truth in 95 of 100 audits? Simulated, with known mistakes.

python benchmarks/audit.py                # 500 audits of 60 places a cell
python benchmarks/audit.py --audits 5000  # the same, with a third of the chance in the numbers

Collections of N images differ in how mistakes lie: "spread" evenly, "clumped" (each image's share right is drawn from a
beta distribution, from all right to all wrong), "whole" (an image is right or wrong as a whole) and "large" (images
differ 400-fold in size, and the larger ones are worse). Places are drawn

    images     as `selfseg.studio.audit.draw_places` does, each image counting the same
    pixels     the same, each pixel counting the same
    free       each place on its own: two may be in one image while others have none
    few        six places in each of ten images, which is less work for whoever draws

and the truth is that of the whole collection, weighed as the places are. A place is right with its image's share right,
as any pixel of the image may be drawn. Intervals: exact (Clopper and Pearson), Wilson's, Jeffreys's.

Below that, without simulation, how often each interval holds a truth when places are right or wrong on their own; the
precision of a class that has a part of the places; and audits in which a tenth of the places can't be judged, mostly
wrong ones, against the truth of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import binom

from selfseg.studio.audit.places import draw_images, interval

RESULTS = Path(__file__).parent / "results"
TRUTHS = (0.5, 0.8, 0.95, 0.99)
STRUCTURES = ("spread", "clumped", "whole", "large")
DRAWS = ("images", "pixels", "free", "few")

Interval = Callable[[int, int], tuple[float, float]]


def wilson(right: int, judged: int) -> tuple[float, float]:
    """E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927)."""
    z, share = 1.959963984540054, right / judged
    middle = (share + z * z / (2 * judged)) / (1 + z * z / judged)
    half = z / (1 + z * z / judged) * np.sqrt(share * (1 - share) / judged + z * z / (4 * judged * judged))
    return max(0.0, middle - half), 1.0 if right == judged else middle + half


def jeffreys(right: int, judged: int) -> tuple[float, float]:
    """L. D. Brown, T. T. Cai, A. DasGupta, "Interval estimation for a binomial proportion" (2001), section 3.1.2."""
    low = float(betaincinv(right + 0.5, judged - right + 0.5, 0.025)) if right else 0.0
    high = float(betaincinv(right + 0.5, judged - right + 0.5, 0.975)) if right < judged else 1.0
    return low, high


INTERVALS: dict[str, Interval] = {"exact": interval, "wilson": wilson, "jeffreys": jeffreys}


def collection(
    structure: str, truth: float, images: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) share right of each image, about `truth` in the mean, and (N,) pixels of each."""
    pixels = np.full(images, 1e6)
    if structure == "spread":
        return np.full(images, truth), pixels
    if structure == "clumped":
        return random.beta(truth, 1 - truth, images), pixels
    if structure == "whole":
        return (np.arange(images) < round(images * truth)).astype(float), pixels
    pixels = 1e6 * np.exp(random.uniform(-3, 3, images))
    rank = pixels.argsort().argsort() / (images - 1)  # the largest: 1
    return np.clip(1 - 2 * (1 - truth) * rank, 0, 1), pixels


def draw(how: str, pixels: NDArray[np.float64], places: int, seed: int) -> NDArray[np.int64]:
    """The images in which the places are."""
    if how in ("images", "pixels"):
        return draw_images(pixels, places, seed, how)
    random = np.random.default_rng((seed, 7))
    if how == "free":
        return random.integers(len(pixels), size=places)
    return np.repeat(random.choice(len(pixels), 10, replace=False), places // 10)


def simulate(audits: int, places: int, seed: int) -> list[dict[str, Any]]:
    tables = {name: np.array([give(right, places) for right in range(places + 1)]) for name, give in INTERVALS.items()}
    rows = []
    for truth in TRUTHS:
        for structure in STRUCTURES:
            for images in (40, 101, 1000):
                random = np.random.default_rng((seed, round(100 * truth), STRUCTURES.index(structure), images))
                share, pixels = collection(structure, truth, images, random)
                for how in DRAWS:
                    weights = pixels if how == "pixels" else np.ones(images)
                    real = float(np.average(share, weights=weights))
                    right = np.empty(audits, int)
                    for audit in range(audits):
                        chosen = draw(how, pixels, places, audit)
                        right[audit] = (random.random(places) < share[chosen]).sum()
                    row: dict[str, Any] = {"truth": truth, "mistakes": structure, "images": images, "draw": how}
                    row |= {"real": round(real, 4), "mean": round(float(right.mean() / places), 4)}
                    for name, table in tables.items():
                        low, high = table[right].T
                        row[name] = round(float(((low <= real) & (real <= high)).mean()), 4)
                        row[f"{name} width"] = round(float((high - low).mean()), 4)
                    rows.append(row)
    return rows


def certain(places: int) -> list[dict[str, Any]]:
    """How often the intervals hold a truth, summed over all outcomes: at the least, from .5 to .995, and where."""
    rows = []
    truths = np.linspace(0.5, 0.995, 991)
    for name, give in INTERVALS.items():
        low, high = np.array([give(right, places) for right in range(places + 1)]).T
        chances = binom.pmf(np.arange(places + 1), places, truths[:, None])
        holds = ((low <= truths[:, None]) & (truths[:, None] <= high)) * chances
        covered = holds.sum(1)
        row = {
            "interval": name,
            "least": round(float(covered.min()), 4),
            "at": round(float(truths[covered.argmin()]), 4),
        }
        rows.append(row | {"mean": round(float(covered.mean()), 4)})
    return rows


def precision(audits: int, places: int, seed: int) -> list[dict[str, Any]]:
    """A class on a part of the area of 101 images, unevenly; its mistakes clumped by image."""
    rows = []
    for part in (0.5, 0.2, 0.05):
        for truth in (0.5, 0.8, 0.95):
            random = np.random.default_rng((seed, round(100 * part), round(100 * truth)))
            covers = random.beta(part, 1 - part, 101)
            share = random.beta(truth, 1 - truth, 101)
            real = float((covers * share).sum() / covers.sum())
            held, shown = 0, 0
            for audit in range(audits):
                chosen = draw_images(np.ones(101), places, audit)
                of_it = random.random(places) < covers[chosen]
                right = int((of_it & (random.random(places) < share[chosen])).sum())
                low, high = interval(right, int(of_it.sum()))
                held += low <= real <= high
                shown += int(of_it.sum())
            rows.append(
                {"part": part, "precision": round(real, 4), "places": shown / audits, "exact": round(held / audits, 4)}
            )
    return rows


def unsure(audits: int, places: int, seed: int) -> list[dict[str, Any]]:
    """A tenth of the places can't be judged, four of five of those are wrong: what holds the truth of all places."""
    rows = []
    for truth in (0.8, 0.9):
        random = np.random.default_rng((seed, 3, round(100 * truth)))
        held = {"judged only": 0, "least to most": 0}
        for _ in range(audits):
            right = random.random(places) < truth
            doubtful = random.random(places) < np.where(right, 0.02 / truth, 0.08 / (1 - truth))
            n, good = int((~doubtful).sum()), int((right & ~doubtful).sum())
            low, high = interval(good, n)
            held["judged only"] += low <= truth <= high
            low, high = interval(good, places)[0], interval(good + int(doubtful.sum()), places)[1]
            held["least to most"] += low <= truth <= high
        rows.append({"truth": truth, **{name: round(n / audits, 4) for name, n in held.items()}})
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    names = list(rows[0])
    print("  ".join(f"{name:>14}" for name in names))
    for row in rows:
        print(
            "  ".join(f"{row[name]:>14.4g}" if isinstance(row[name], float) else f"{row[name]:>14}" for name in names)
        )
    print()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=500)
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "audit.json")
    arguments = parser.parse_args(argv)
    given = (arguments.audits, arguments.places, arguments.seed)
    rows = simulate(*given)
    show(rows)
    summary = []
    for how in DRAWS:
        cells = [row for row in rows if row["draw"] == how]
        line: dict[str, Any] = {"draw": how, "cells": len(cells)}
        for name in INTERVALS:
            line[f"{name} least"] = min(row[name] for row in cells)
            line[f"{name} mean"] = round(float(np.mean([row[name] for row in cells])), 4)
            line[f"{name} < .93"] = sum(row[name] < 0.93 for row in cells)
        summary.append(line)
    tables = {
        "audits": arguments.audits,
        "places": arguments.places,
        "seed": arguments.seed,
        "summary": summary,
        "independent": certain(arguments.places),
        "precision": precision(*given),
        "unsure": unsure(*given),
    }
    for name in ("summary", "independent", "precision", "unsure"):
        print(name)
        show(tables[name])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**tables, "simulated": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
