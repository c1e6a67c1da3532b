"""The commands of docs/papers.md in their order: all of them once at toy size, or as a script for real data.

    python benchmarks/papers.py --toy [--only TEXT] [--out benchmarks/results/papers_toy.json]
    python benchmarks/papers.py --root COCO=/data/coco --root VOC=/data/VOCdevkit/VOC2012 > all.sh

`--toy` shows that the whole chain of each row holds: training, masks, clusters, probes, transfer, few labels. It says
nothing of the figures. The data sets are the small copies that the tests have (layouts, names and label codes of the
real ones); networks are timm's smallest; two steps of two images (300 of the run whose objects are measured, 40 of a
network for masks); weights come from files instead of the hub. What was changed in each command
stands in the log beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
PLAIN = ("COCO", "VOC", "CITYSCAPES", "ADE", "BDD", "IMAGENET", "POTSDAM", "DUTS")
SMALL = {"cnn": "test_resnet", "vit": "test_vit"}


def commands() -> list[str]:
    """In the order of the document: of each section the trainings first, as they stand in its block."""
    text = (ROOT / "docs" / "papers.md").read_text("utf-8")
    found: list[str] = []
    for section in text.split("\n### "):
        found += re.findall(r"^(selfseg .*)$", section, re.MULTILINE) + re.findall(r"`(selfseg [^`]+)`", section)
    found = list(dict.fromkeys(found))
    makers = [line for line in found if line.split()[1] in ("weights", "masks", "train")]
    order = {"weights": 0, "masks": 1, "train": 2}
    return sorted(makers, key=lambda line: order[line.split()[1]]) + [line for line in found if line not in makers]


# Toy data.


def make_data(home: Path) -> None:
    """The roots of the document as folders in `home`, and files of weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    import timm
    import torch
    from PIL import Image

    import layouts
    import published_layouts

    layouts.coco(home / "COCO")
    (home / "COCO" / "annotations").mkdir()
    for split, names in (("train2017", ("000000000009", "000000000025")), ("val2017", ("000000000139",))):
        (home / "COCO" / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances(names)))
    os.rename(layouts.voc(home), home / "VOC")
    layouts.sbd(home / "VOC")
    layouts.cityscapes(home / "CITYSCAPES")
    layouts.ade20k(home / "ADE")
    layouts.bdd100k(home / "BDD")
    layouts.imagenet(home / "IMAGENET")
    for i in range(4):
        layouts.image(home / "POTSDAM" / f"{i}.jpg", i)
        layouts.image(home / "DUTS" / "images" / f"{i}.jpg", i)
    for number, path in enumerate(
        sorted([*home.rglob("*.jpg"), *home.rglob("*.JPEG"), *home.rglob("*leftImg8bit.png")])
    ):
        Image.fromarray(scene(number)).save(path)
    (home / "DUTS" / "masks").mkdir()
    for path in (home / "DUTS" / "images").iterdir():
        thing = np.asarray(Image.open(path)).mean(2) > 128
        Image.fromarray(np.where(thing, 255, 0).astype(np.uint8)).save(home / "DUTS" / "masks" / f"{path.stem}.png")
    for name in SMALL.values():
        torch.save(timm.create_model(name).state_dict(), home / f"{name}.pth")
    for name, (config, write) in published().items():
        torch.save(write(published_layouts.drawn(config, 1)), home / name)


def published() -> dict[str, tuple[Any, Any]]:
    """Files of whole models: the embedder that each is written from, and its layout."""
    import published_layouts as layouts

    def backbone(embedder: Any) -> Any:
        return {"model": layouts.part(embedder, "backbone", "module.encoder.")}

    return {
        "vice_coco_lowres.torch": (layouts.small("fpn", output_stride=8), layouts.vice),
        "maskcontrast_unsupervised.pth": (
            layouts.small("deeplabv3", saliency=True, **layouts.HIGH),
            layouts.maskcontrast,
        ),
        "slotcon_coco_r50_800ep.pth": (layouts.small("projector", hidden=12), layouts.slotcon),
        "picie_coco27.pth": (layouts.small("fpn"), layouts.picie),
        "infomin.pth": (layouts.small("none"), backbone),
        "pixpro_coco.pth": (layouts.small("none"), backbone),
    }


def scene(seed: int) -> NDArray[np.uint8]:
    """(24, 32, 3): a bright thing before a dark ground, so that masks find something."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 50, (24, 32, 3), np.uint8)
    y, x = rng.integers(2, 10), rng.integers(2, 16)
    image[y : y + 12, x : x + 14] = rng.integers(180, 250, (12, 14, 3), np.uint8) * np.array([1, 0.9, 0.8])
    return image


def instances(names: tuple[str, ...]) -> dict[str, Any]:
    """Detection labels: one box-shaped object of two classes in each image."""
    images = [{"id": i, "file_name": f"{name}.jpg", "height": 24, "width": 32} for i, name in enumerate(names)]
    polygon = [4.0, 4.0, 20.0, 4.0, 20.0, 18.0, 4.0, 18.0]
    marks = [
        {
            "id": 2 * i + c,
            "image_id": i,
            "category_id": 1 + c,
            "segmentation": [[x + 6 * c for x in polygon]],
            "bbox": [4.0 + 6 * c, 4.0 + 6 * c, 16.0, 14.0],
            "area": 224.0,
            "iscrowd": 0,
        }
        for i in range(len(names))
        for c in range(2)
    ]
    return {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]}


# Toy commands.


def toy(line: str) -> list[str]:
    """The command with what makes it small."""
    words = shlex.split(line)[1:]
    small = {
        "train": _train,
        "masks": _masks,
        "evaluate": _evaluate,
        "transfer": _transfer,
        "finetune": _finetune,
        "time": _time,
        "weights": _weights,
    }
    return small.get(words[0], lambda given: [*given, "--device", "cpu"])(words)


def without(words: list[str], **options: bool) -> list[str]:
    """The words without some options and their values (several if told so)."""
    kept: list[str] = []
    skipping = ""
    for word in words:
        name = _key(word)
        if word.startswith("--") or word == "-k":
            skipping = word if name in options or (word == "-k" and "k" in options) else ""
            if not skipping:
                kept.append(word)
        elif not skipping:
            kept.append(word)
        elif not options[_key(skipping)]:
            skipping = ""  # it had one value; the next word is something else
    return kept


def _key(word: str) -> str:
    return word.lstrip("-").replace("-", "_").replace(".", "_")


def _train(words: list[str]) -> list[str]:
    backbone = SMALL["vit" if "vit" in words[1] or "stego" in words[1] else "cnn"]
    init = ["--init", f"{backbone}.pth"] if "--init" in words or "stego" in words[1] else []
    # Options of a chosen source of regions stay behind its name.
    at = next((place for place, word in enumerate(words) if word.startswith("method.")), len(words))
    one = ("devices", "nodes", "init", "epochs", "batch_size", "steps", "method_embedder_backbone")
    kept = without(words[:at], **dict.fromkeys(one, False))
    if words[words.index("--out") + 1] == "runs/mc":  # rows of it ask for its objects, which two steps don't find
        kept += ["--steps", "300", "--checkpoint-every", "100", "--optimizer.base-lr", "0.5"]
    else:
        kept += ["--steps", "2", "--checkpoint-every", "1"]
    kept += ["--batch-size", "2", "--workers", "0", "--accelerator", "cpu", "--precision", "32-true"]
    kept += ["--keep", "3", *init, "--method.embedder.backbone", backbone]
    return [*kept, *words[at:]]


def _time(words: list[str]) -> list[str]:
    small = ["--batch-size", "2", "--accelerator", "cpu", "--precision", "32-true", "--init", "test_resnet.pth"]
    small += ["--measured", "3", "--warm-up", "1", "--looks", "2", "--method.embedder.backbone", "test_resnet"]
    return [*without(words, batch_size=False), *small]


def _weights(words: list[str]) -> list[str]:
    return [*without(words, backbone=False), "--backbone", "test_resnet", "--resolution", "32"]


def _masks(words: list[str]) -> list[str]:
    small = ["--device", "cpu"]
    if {"bootstrapped", "supervised", "network"} & set(words):
        small += ["--network.backbone", "test_resnet", "--network.init", "test_resnet.pth", "--network.size", "64"]
        small += ["--network.rounds", "1", "--network.round-steps", "40", "--network.steps", "40"]
        small += ["--network.boundary-steps", "100", "--network.batch-size", "4", "--threshold", "otsu"]
    return [*words, *small]


def _evaluate(words: list[str]) -> list[str]:
    source = words[1]
    if source.startswith("timm:"):
        words = [words[0], "timm:test_resnet:random", *words[2:]]
    if "-k" in words:
        words = [*without(words, k=True), "-k", "2", "3"]
    if "--linear.steps" in words:
        words = [*without(words, linear_steps=False), "--linear.steps", "20"]
    return [*words, "--device", "cpu", "--seeds", "1"]


def _transfer(words: list[str]) -> list[str]:
    small = ["--device", "cpu", "--workers", "0", "--steps", "2", "--batch-size", "2"]
    if words[1].startswith("coco"):
        small += ["--short-sides", "64", "--test-side", "64", "--max-side", "96"]
    else:
        small += ["--crop", "64"]
    if words[2] in ("random", "FILE"):
        words = [*words[:2], "test_resnet.pth" if words[2] == "FILE" else "random", *words[3:]]
        small += ["--backbone", "test_resnet"]
    return [*words, *small]


def _finetune(words: list[str]) -> list[str]:
    words = without(words, labels=True, splits=False)
    small = ["--labels", "50", "100", "--splits", "1", "--device", "cpu", "--workers", "0", "--steps", "2"]
    return [*words, *small, "--batch-size", "2", "--crop", "64"]


def run(line: str, home: Path) -> dict[str, Any]:
    """Run a command at toy size; what came of it."""
    from selfseg.cli import main

    words = toy(line)
    if "--masks" in words and not Path(words[words.index("--masks") + 1]).exists():
        masks = words[words.index("--masks") + 1]
        main(["masks", words[2], "--out", masks, "--method", "rbd"])
    said, start = io.StringIO(), time.perf_counter()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(words)
    except SystemExit as error:
        code = int(error.code or 0) if not isinstance(error.code, str) else 1
    except Exception:
        said.write(traceback.format_exc())
        code = 1
    told = said.getvalue().replace(str(home), "").strip()
    found = {"command": line, "run as": shlex.join(["selfseg", *words]), "exit": code}
    return {**found, "seconds": round(time.perf_counter() - start, 1), **({"told": told[-1500:]} if code else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="run all at toy size")
    parser.add_argument("--only", default="", help="commands that contain this text")
    parser.add_argument("--root", action="append", default=[], help="COCO=/data/coco; for the script")
    parser.add_argument("--scratch", type=Path, help="where the toy runs lie; a temporary folder if not given")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "papers_toy.json")
    options = parser.parse_args()
    lines = [line for line in commands() if options.only in line]
    if not options.toy:
        roots = dict(pair.split("=", 1) for pair in options.root)
        for line in lines:
            print(re.sub(r"\b(" + "|".join(PLAIN) + r")\b", lambda found: roots.get(found[1], found[1]), line))
        return
    out = options.out.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.scratch or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.chdir(home)
        if not (home / "COCO").exists():
            make_data(home)
        rows = []
        for number, line in enumerate(lines, 1):
            rows.append(run(line, home))
            row = rows[-1]
            print(
                f"{number}/{len(lines)}  {'ok' if row['exit'] == 0 else 'FAILED'}  {row['seconds']} s  {line}",
                flush=True,
            )
            if row["exit"]:
                print(row["run as"], "\n", row["told"][-700:], flush=True)
        os.chdir(ROOT)
    failed = sum(row["exit"] != 0 for row in rows)
    about = {"date": time.strftime("%Y-%m-%d"), "commands": len(rows), "failed": failed}
    out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} commands, {failed} failed; written: {out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
