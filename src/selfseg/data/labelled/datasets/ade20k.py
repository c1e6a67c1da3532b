"""ADE20K with the 150 classes of the scene parsing challenge.

Layout (sceneparsing.csail.mit.edu, archive ADEChallengeData2016; classes: its objectInfo150.txt, the first name each):

    ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg
    ADEChallengeData2016/annotations/{training,validation}/ADE_train_00000001.png     0 other objects, 1 to 150
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder, pair_folders
from selfseg.data.labelled.labels import LabelMap

CLASSES = tuple(
    " ".join(name.split())
    for name in """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
    mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box,
    column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand,
    path, stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind,
    coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel
    chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman,
    bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool,
    stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
    microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic
    light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock,
    flag""".split(",")
)
_CODES = LabelMap.of(CLASSES, {c + 1: c for c in range(len(CLASSES))}, void=(0,))
_FOLDERS = {"train": "training", "val": "validation"}


def _find(root: Path, split: str) -> Files:
    part = _FOLDERS[split]
    images = first_folder(
        root, (f"images/{part}", f"ADEChallengeData2016/images/{part}"), f"ADE20K's images of {split}"
    )
    home = images.parents[1]
    labels = first_folder(home, (f"annotations/{part}",), f"ADE20K's labels of {split}")
    return pair_folders(images, lambda name: labels / f"{name}.png", _CODES)


ADE20K = DataSet(
    "ade20k",
    "ADE20K, 150 classes; ADEChallengeData2016/{images,annotations}/{training,validation}",
    _find,
    {"train": 20210, "val": 2000},
    CLASSES,
)
