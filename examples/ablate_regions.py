"""ViCE's ablation of regions (P2, table 3) on a labelled folder: superpixels, grid, pixels, with and without masking.

Six short runs that differ in nothing else, from the same random weights over the same images in the same order, each
measured by `linear` and `clusters`. With `--stride 1` regions are pooled at full resolution, as in the paper. With
`--stride 4` they are pooled at the embedding's own resolution, three times as fast, and "pixels" are its single cells
of 4x4 pixels: between them the embedding is only interpolated.

    python examples/ablate_regions.py DATA --out runs/ablation --steps 400
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

import selfseg
from selfseg.data.labelled.catalog import open_labelled
from selfseg.data.regions import Grid, Pixels, RegionSource, Superpixels
from selfseg.recipe_book.vice import vice_scratch
from selfseg.storage.files import write_json

MASKING = {"masked": 0.25, "unmasked": 0.0}


@dataclass(frozen=True)
class Ablation:
    """The comparison.

    Attributes:
        data: folder with {train,val}/{images,labels}.
        out: folder of the runs; runs that are there already are not repeated.
        steps: of each run.
        batch_size: images a step.
        stride: pixels between the points that are pooled; 1 or the embedding's 4.
        seed: of every run.
        k: number of clusters with a majority vote.
        seeds: of k-means.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    steps: int = 400
    batch_size: int = 4
    stride: int = 1
    seed: int = 0
    k: int = 64
    seeds: int = 2


def main(ablation: Ablation) -> Path:
    """Train and measure; returns the file with the table."""
    classes = len(open_labelled(ablation.data, "val").class_names)
    table = {}
    single: RegionSource = Pixels() if ablation.stride == 1 else Grid(ablation.stride)
    for name, regions in {"superpixels": Superpixels(8), "grid": Grid(8), "pixels": single}.items():
        for masking, area in MASKING.items():
            base = vice_scratch(ablation.data / "train" / "images", ablation.out / f"{name}-{masking}")
            views = replace(base.method.views, views=3, regions=regions, mask_area=area, region_stride=ablation.stride)
            recipe = replace(
                base,
                method=replace(base.method, views=views, pool_stride=ablation.stride),
                steps=ablation.steps,
                batch_size=ablation.batch_size,
                seed=ablation.seed,
                workers=0,
                checkpoint_every=10**6,
            )
            run = selfseg.train(recipe, progress=False)
            protocols = [selfseg.Clusters(k=(classes, ablation.k)), selfseg.Linear()]
            alone = selfseg.Beside(baselines=False)
            results = selfseg.evaluate(selfseg.load(run), ablation.data, protocols, seeds=ablation.seeds, beside=alone)
            lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            seconds = recipe.batch_size / (sum(line["images_per_second"] for line in lines) / len(lines))
            scores = {f"{result.protocol}{f' k={result.k}' if result.k else ''}": result.metrics for result in results}
            table[f"{name}, {masking}"] = {"seconds_per_step": round(seconds, 3), **scores}
            write_json(ablation.out / "table.json", {"settings": str(ablation), "table": table})
    return ablation.out / "table.json"


if __name__ == "__main__":
    print(main(tyro.cli(Ablation, description=__doc__)))
