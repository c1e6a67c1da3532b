"""Figures against steps: every kept checkpoint of a run, measured on a labelled folder, as JSON and a picture.

selfseg train vice_scratch IMAGES --out RUN --checkpoint-every 500 --keep 100
python examples/learning_curve.py RUN DATA
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro

import selfseg
from selfseg.data.labelled.catalog import open_labelled
from selfseg.storage.checkpoint import load_checkpoint
from selfseg.storage.files import write_json
from selfseg.training.recipe import read_recipe


@dataclass(frozen=True)
class Curve:
    """What is measured.

    Attributes:
        run: a run with several checkpoints.
        data: folder with {train,val}/{images,labels}.
        k: number of clusters with a majority vote, beside as many clusters as classes.
        seeds: of k-means.
        every: take every n-th checkpoint, the last one always.
    """

    run: tyro.conf.Positional[Path]
    data: tyro.conf.Positional[Path]
    k: int = 64
    seeds: int = 2
    every: int = 1


def main(curve: Curve) -> Path:
    """Measure and draw; returns the picture's path."""
    classes = len(open_labelled(curve.data, "val").class_names)
    method = read_recipe(curve.run / "recipe.yaml").build_method()
    figures: dict[str, dict[int, float]] = {}
    folders = sorted((curve.run / "checkpoints").glob("step_*"))
    for folder in folders[::-1][:: curve.every][::-1]:
        checkpoint = load_checkpoint(folder)
        method.load_state_dict(checkpoint.model)
        results = selfseg.evaluate(
            method.embedder.eval(),
            curve.data,
            [selfseg.Clusters(k=(classes, curve.k)), selfseg.Linear()],
            seeds=curve.seeds,
            beside=selfseg.Beside(baselines=False),
        )
        for result in results:
            name = f"k = {result.k}, {result.matching}" if result.protocol == "clusters" else result.protocol
            figures.setdefault(name, {})[checkpoint.step] = result.metrics["miou"]
        write_json(curve.run / "learning_curve.json", figures)
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, points in figures.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set(xlabel="training steps", ylabel=f"mIoU on {curve.data.name} val", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(curve.run / "learning_curve.png", dpi=120, bbox_inches="tight")
    return curve.run / "learning_curve.png"


if __name__ == "__main__":
    print(main(tyro.cli(Curve, description=__doc__)))
