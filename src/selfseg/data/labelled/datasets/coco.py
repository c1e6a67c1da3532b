"""COCO 2017, and COCO-Stuff 164k with three sets of classes.

Layout (cocodataset.org/#download; github.com/nightrome/cocostuff, README "Downloads" and labels.txt):

    {train,val}2017/000000000139.jpg                          or images/{train,val}2017/
    stuffthingmaps/{train,val}2017/000000000139.png           of stuffthingmaps_trainval2017.zip, also where it is
                                                              unpacked as annotations/ or stuffthingmaps_trainval2017/
    curated/{train,val}2017/Coco164kFull_Stuff_Coarse_7.txt   optional, a list of image ids for *_curated

Label files hold ids 0 to 181 (the id of labels.txt minus 1), 255 = nothing is labelled.

- `coco27`: 27 coarse classes, 12 of things and 15 of stuff, over which IIC, PiCIE, STEGO and ViCE report. The curated
  list of IIC (Ji et al., ICCV 2019) has 49,629 and 2,175 images, those with mostly stuff.
- `coco171`: the 80 things and 91 stuffs that occur.
- `coco21`: VOC's 20 classes and everything else that is labelled as background.
- `coco`: images only, also unlabeled2017, and as "plus" that and train2017 together (COCO+, "semi-supervised" COCO, on
  which SlotCon's table 3 is trained); and the folder for detection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder, pair_folders, read_list
from selfseg.data.labelled.datasets.voc import CLASSES as VOC_CLASSES
from selfseg.data.labelled.labels import LabelMap
from selfseg.data.reading.listing import list_images

IDS = 182
"""Ids in label files, 0 to 181."""

NAMES = tuple(
    " ".join(name.split())
    for name in """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
    hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
    baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
    potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard,
    cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear,
    hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard,
    carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,
    door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit,
    furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain,
    mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river,
    road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
    structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
    wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood""".split(
        ","
    )
)
"""The name of each id."""

# Ids that COCO gave up: in labels.txt, but in no label file.
UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})

COARSE: dict[str, tuple[int, ...]] = {
    "electronic": tuple(range(71, 77)),
    "appliance": tuple(range(77, 83)),
    "food (thing)": tuple(range(51, 61)),
    "furniture (thing)": tuple(range(61, 71)),
    "indoor": tuple(range(83, 91)),
    "kitchen": tuple(range(43, 51)),
    "accessory": tuple(range(25, 33)),
    "animal": tuple(range(15, 25)),
    "outdoor": tuple(range(9, 15)),
    "person": (0,),
    "sports": tuple(range(33, 43)),
    "vehicle": tuple(range(1, 9)),
    "ceiling": (101, 102),
    "floor": (100, 113, 114, 115, 116, 117),
    "food (stuff)": (120, 121, 152, 169),
    "furniture (stuff)": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "raw material": (99, 131, 138, 142),
    "textile": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall": tuple(range(170, 177)),
    "window": (179, 180),
    "building": (94, 95, 127, 150, 157, 165),
    "ground": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky": (105, 156),
    "solid": (126, 134, 149, 159, 161, 181),
    "structural": (98, 112, 137, 145, 163),
    "water": (119, 147, 154, 177, 178),
}
"""The ids of each coarse class, in the order that tables have."""

_OF_VOC = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def _coarse() -> LabelMap:
    return LabelMap.of(tuple(COARSE), {label: c for c, ids in enumerate(COARSE.values()) for label in ids})


def _fine() -> LabelMap:
    used = [label for label in range(IDS) if label not in UNUSED]
    return LabelMap.of(tuple(NAMES[label] for label in used), {label: c for c, label in enumerate(used)})


def _voc() -> LabelMap:
    ids = dict.fromkeys(range(IDS), 0)
    for c, name in enumerate(VOC_CLASSES[1:], start=1):
        ids[NAMES.index(_OF_VOC.get(name, name))] = c
    return LabelMap.of(VOC_CLASSES, ids)


_LIST = "Coco164kFull_Stuff_Coarse_7.txt"
_CURATED = "_curated"


def _images(root: Path, part: str) -> Path:
    return first_folder(root, (part, f"images/{part}"), f"COCO's images {part}")


def _finder(codes: LabelMap) -> Callable[[Path, str], Files]:
    def find(root: Path, split: str) -> Files:
        part = f"{split.removesuffix(_CURATED)}2017"
        images = _images(root, part)
        # images/ and annotations/ may hold the archives' own JSON beside; only folders of PNGs count.
        homes = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")
        labels = first_folder(root, [f"{home}/{part}" for home in homes], f"COCO-Stuff's labels {part}")
        names: list[str] = []
        if split.endswith(_CURATED):
            names = read_list((root / "curated" / part / _LIST,), f"the curated images of {part}")
        return pair_folders(images, lambda name: labels / f"{name}.png", codes, names)

    return find


def _find_images(root: Path, split: str) -> Files:
    if split == "plus":
        folders = [_images(root, f"{part}2017") for part in ("train", "unlabeled")]
        paths = [path for folder in folders for path in list_images(folder).paths]
        return Files(Path(os.path.commonpath(folders)), tuple(paths))
    folder = _images(root, f"{split}2017")
    return Files(folder, tuple(list_images(folder).paths))


_LABELLED = {"train": 118_287, "val": 5000, "train_curated": 49_629, "val_curated": 2175}
_LAYOUT = "{train,val}2017, stuffthingmaps/{train,val}2017"


def _stuff(name: str, about: str, codes: LabelMap) -> DataSet:
    return DataSet(name, f"{about}; {_LAYOUT}", _finder(codes), _LABELLED, codes.classes)


COCO27 = _stuff("coco27", "COCO-Stuff, 27 coarse classes; *_curated with IIC's list", _coarse())
COCO171 = _stuff("coco171", "COCO-Stuff, its 171 classes", _fine())
COCO21 = _stuff("coco21", "COCO, VOC's 20 classes and background", _voc())
_PLAIN = {"train": 118_287, "val": 5000, "test": 40_670, "unlabeled": 123_403, "plus": 241_690}
COCO = DataSet(
    "coco",
    "COCO 2017, images only, and for detection; {train,val,test,unlabeled}2017; plus is train and unlabeled",
    _find_images,
    _PLAIN,
    unlabelled=frozenset(_PLAIN),
)
