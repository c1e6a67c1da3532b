"""What a person's minute buys: mIoU on images that nobody looked at, after so many decisions.

    python benchmarks/person.py RUN DATA [--seeds 3] [--clusters 50] [--out benchmarks/results/person.json]

DATA is a labelled folder (or NAME:ROOT of the catalog); of a set with a single split (`--fit train --test train`) the
odd images test what was decided on the even ones. The person works on the images of its fit split, through what
the studio is made of: the regions, the concepts, the queue, the classifier. What she does is simulated by the labels:

- Naming a cluster (one decision): she sees the six typical segments that the page shows and gives the class that at
  least four of them are; otherwise she passes on, which costs the decision all the same.
- A click (one decision): at the place that is proposed, on the segment under it, which she makes larger by the wheel
  as long as 95 % of it is of one class. Of a segment that is less than 60 % of one class she says nothing, which costs
  the decision all the same.

Four ways: `clusters` only; `random`, clicks at places drawn by area; `queue`, clicks where "What next?" asks, asked
again after each ten; `both`, the clusters first and then the queue. After 25, 50, 100, 200, 300 and 500 decisions the
images of the other split are predicted: each region's class, painted over its superpixel, against every labelled pixel
(so that small things which no superpixel follows count as mistakes).

Beside them the way of ilastik: a random forest (scikit-learn, 100 trees) on a classical filter bank (Gaussian,
Laplacian, gradient magnitude, difference of Gaussians, structure tensor's and Hessian's eigenvalues, each at seven
scales, of the three colours, 0.3 to 10 px as there), on the pixels of the very segments that the clicks labelled, for
`random` and for `queue`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

POINTS = (25, 50, 100, 200, 300, 500)
SCALES = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
PIXELS = 60  # of a clicked segment that the forest learns from
EVERY = 4  # the forest predicts every 4th pixel of a row and a column; more changes nothing but the time


class Split:
    """The regions of a split with their labels."""

    def __init__(self, run: Path, data: Any, copy: Path, looks: Any = None) -> None:
        import shutil

        from selfseg.studio.regions import RegionStore

        if not copy.is_dir():
            copy.mkdir(parents=True)
            shutil.copytree(run / "embedder", copy / "embedder")
            (copy / "log.jsonl").write_text("", encoding="utf-8")
            if (run / "clusters").is_dir():
                shutil.copytree(run / "clusters", copy / "clusters")
        self.run, self.data = copy, data
        self.store = RegionStore.build(copy, data.images, device="cpu", looks=looks)
        self.classes = len(data.class_names)
        self.place = {name: number for number, name in enumerate(data.images.names)}
        found = [self._counts(image) for image in range(len(self.store.names))]
        self.counts = np.concatenate(found)  # (N, C + 1) labelled pixels of each region, void last
        self.vectors = np.asarray(self.store.vectors, np.float32)

    def label(self, image: int) -> NDArray[np.uint8]:
        return np.asarray(self.data.read_label(self.place[self.store.names[image]]))

    def _counts(self, image: int) -> NDArray[np.int64]:
        label = self.label(image)
        regions = cv2.resize(self.store.superpixels(image), label.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        n = int(self.store.first[image + 1] - self.store.first[image])
        codes = np.asarray(regions).astype(np.int64) * (self.classes + 1) + np.minimum(label, self.classes)
        return np.bincount(codes.ravel(), minlength=n * (self.classes + 1)).reshape(n, -1)

    def miou(self, predicted: NDArray[np.integer]) -> tuple[float, list[float]]:
        """Mean IoU over the classes, and each one's, of a class for each region."""
        table = np.stack(
            [np.bincount(predicted, self.counts[:, c], self.classes) for c in range(self.classes)]
        )  # rows = truth
        return mean_iou(table)


def mean_iou(table: NDArray[np.floating]) -> tuple[float, list[float]]:
    hits = np.diag(table)
    iou = hits / np.maximum(table.sum(0) + table.sum(1) - hits, 1)
    return float(iou.mean()), np.round(iou, 3).tolist()


class Person:
    """Decides by the labels of the fit split."""

    def __init__(self, split: Split, clusters: Any, seed: int) -> None:
        from selfseg.studio.beliefs import Beliefs
        from selfseg.studio.concepts import Grouping

        self.split, self.store = split, split.store
        self.random = np.random.default_rng(seed)
        self.grouping = Grouping(split.store, clusters, {})
        self.beliefs = Beliefs(split.store)
        self.names: dict[str, int] = {}
        self.clicks: list[tuple[NDArray[np.int64], int]] = []
        self.asked: set[int] = set()
        self.decisions = 0

    def name_next(self) -> bool:
        """Look at the largest cluster that was not looked at."""
        order = np.argsort([-self.grouping.concept(path).share for path in self.grouping.paths], kind="stable")
        if self.decisions >= len(order):
            return False
        path = self.grouping.paths[int(order[self.decisions])]
        self.decisions += 1
        shown = [one.region for one in self.grouping.concept(path).typical]
        seen = [int(self.split.counts[row, :-1].argmax()) for row in shown if self.split.counts[row, :-1].any()]
        votes = np.bincount(seen, minlength=1)
        if seen and votes.max() >= 4 / 6 * len(shown):
            self.names[path] = int(votes.argmax())
        return True

    def click(self, row: int) -> None:
        """Answer about a region, widened as long as it is of one class."""
        self.decisions += 1
        self.asked.add(row)
        own = self.split.counts[row]
        if own[:-1].max() < 0.6 * own.sum() or not own[:-1].any():
            return
        label = int(own[:-1].argmax())
        image = int(np.searchsorted(self.store.first, row, side="right")) - 1
        first = int(self.store.first[image])
        counts = self.split.counts[first : int(self.store.first[image + 1])]
        tree = self.store.tree(image)
        members = [[number] for number in range(len(counts))]
        sums = [count for count in counts]
        best = members[row - first]
        for a, b, _ in tree:
            joined = members[int(a)] + members[int(b)]
            members.append(joined)
            sums.append(sums[int(a)] + sums[int(b)])
            if row - first in joined:
                if sums[-1][label] < 0.95 * sums[-1].sum():
                    break
                best = joined
        self.clicks.append((first + np.array(best), label))

    def learn(self, classes: int) -> None:
        from selfseg.studio.beliefs import examples

        self.beliefs.refit(examples(self.grouping, self.names, (), self.clicks), classes)

    def propose(self, way: str, count: int) -> list[int]:
        from selfseg.studio.queue import FIRST, next_questions

        said = np.concatenate([np.fromiter(self.asked, np.int64, len(self.asked)), *(rows for rows, _ in self.clicks)])
        if way == "random":
            chance = np.asarray(self.store.areas, np.float64).copy()
            chance[said] = 0
            return self.random.choice(len(chance), count, replace=False, p=chance / chance.sum()).tolist()
        rows = np.arange(len(self.store.areas))
        found = next_questions(
            self.split.vectors,
            self.beliefs.probabilities(rows),
            self.store.areas,
            self.store.first,
            said,
            count,
            seed=int(self.random.integers(1 << 30)),
            new_first=len(self.clicks) < FIRST and not self.names,
        )
        return [one.region for one in found]

    def predict(self, other: Split) -> NDArray[np.int64]:
        """A class for each region of another split; what is believed to be none has its best class."""
        classifier = self.beliefs.classifier
        assert classifier is not None
        scores = classifier.scores(other.vectors)
        return scores[:, 1:].argmax(1)


def curve(way: str, fit: Split, test: Split, clusters: Any, seed: int, forest: Any) -> dict[str, Any]:
    """The mIoU on `test` after each of `POINTS`."""
    person = Person(fit, clusters, seed)
    found: dict[str, Any] = {}
    iou: list[float] = []
    for point in POINTS:
        while person.decisions < point and way in ("clusters", "both") and person.name_next():
            pass
        if way == "clusters" and person.decisions < point:
            break
        if person.names or person.clicks:
            person.learn(fit.classes)
        while person.decisions < point:
            asked = person.propose("random" if way == "random" else "queue", min(10, point - person.decisions))
            for row in asked:
                person.click(row)
            person.learn(fit.classes)
        found[str(point)], iou = test.miou(person.predict(test))
        if forest is not None:
            found[f"forest {point}"] = forest.miou(person.clicks)
    return {"way": way, "seed": seed, "miou": found, "iou_of_each": iou, "clicks": len(person.clicks)}


class Forest:
    """ilastik's way: a random forest on a classical filter bank, with the same clicks."""

    def __init__(self, fit: Split, test: Split, seed: int) -> None:
        self.fit, self.test, self.seed = fit, test, seed
        self.random = np.random.default_rng(seed)
        self.seen: list[NDArray[np.float32]] = []  # of each click so far, the responses at its pixels
        self.tested: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] | None = None

    def miou(self, clicks: list[tuple[NDArray[np.int64], int]]) -> float:
        from sklearn.ensemble import RandomForestClassifier

        for regions, _ in clicks[len(self.seen) :]:
            self.seen.append(self.look(regions))
        labels = np.repeat([label for _, label in clicks], [len(rows) for rows in self.seen])
        model = RandomForestClassifier(100, random_state=self.seed, n_jobs=1)
        model.fit(np.concatenate(self.seen), labels)
        if self.tested is None:
            step = slice(EVERY // 2, None, EVERY)
            self.tested = [
                (filter_bank(self.read(self.test, image))[step, step], self.test.label(image)[step, step])
                for image in range(len(self.test.store.names))
            ]
        classes = self.fit.classes
        table = np.zeros((classes, classes))
        for features, label in self.tested:
            found = model.predict(features.reshape(-1, features.shape[2])).astype(np.int64)
            known = label.ravel() < classes
            np.add.at(table, (label.ravel()[known], found[known]), 1)
        return mean_iou(table)[0]

    def look(self, regions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Responses at `PIXELS` random pixels of a segment."""
        store = self.fit.store
        image = int(np.searchsorted(store.first, regions[0], side="right")) - 1
        shape = self.fit.label(image).shape
        map_ = np.asarray(cv2.resize(store.superpixels(image), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
        places = np.flatnonzero(np.isin(map_, regions - int(store.first[image])))
        chosen = self.random.choice(places, min(PIXELS, len(places)), replace=False)
        responses = filter_bank(self.read(self.fit, image))
        return np.asarray(responses.reshape(-1, responses.shape[2])[chosen])

    def read(self, split: Split, image: int) -> NDArray[np.uint8]:
        picture = split.data.images.read(split.place[split.store.names[image]])
        return np.asarray(cv2.resize(picture, split.label(image).shape[::-1], interpolation=cv2.INTER_AREA))


def filter_bank(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 to (H, W, 3 * 7 * 8) responses."""
    found = []
    for channel in np.moveaxis(image.astype(np.float32) / 255, 2, 0):
        for sigma in SCALES:
            smooth = blur(channel, sigma)
            dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
            dxx, dyy = cv2.Sobel(dx, cv2.CV_32F, 1, 0), cv2.Sobel(dy, cv2.CV_32F, 0, 1)
            dxy = cv2.Sobel(dx, cv2.CV_32F, 0, 1)
            outer = [blur(each, 0.5 * sigma) for each in (dx * dx, dy * dy, dx * dy)]
            found += [smooth, dxx + dyy, np.hypot(dx, dy), smooth - blur(channel, 0.66 * sigma)]
            found += [*eigenvalues(*outer), *eigenvalues(dxx, dyy, dxy)]
    return np.stack(found, 2).astype(np.float32)


def blur(channel: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(channel, (0, 0), max(sigma, 0.1)), np.float32)


def eigenvalues(a: Any, b: Any, c: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the symmetric matrices ((a, c), (c, b))."""
    middle, reach = (a + b) / 2, np.sqrt(((a - b) / 2) ** 2 + c * c)
    return middle + reach, middle - reach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--fit", default="train")
    parser.add_argument("--test", default="val")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--forest-seeds", type=int, default=1, help="the forest takes minutes a point")
    parser.add_argument("--ways", nargs="+", default=["clusters", "random", "queue", "both"])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], help="of the looks at each image")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--scratch", type=Path, default=Path("build/person"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/person.json"))
    options = parser.parse_args()
    from selfseg.collection.clustering import cluster
    from selfseg.collection.clusters import available_clusters, load_clusters
    from selfseg.data.labelled.catalog import open_labelled
    from selfseg.models.embedder import Looks

    data = [open_labelled(options.data, split) for split in (options.fit, options.test)]
    names = [options.fit, options.test]
    if options.fit == options.test:
        data = [half.subset(range(start, len(half.images), 2)) for start, half in enumerate(data)]
        names = [f"{options.fit}_even", f"{options.test}_odd"]
    fit, test = (
        Split(options.run, half, options.scratch / name, Looks(tuple(options.scales), options.flip))
        for half, name in zip(data, names, strict=True)
    )
    if options.clusters not in available_clusters(fit.run):
        cluster(fit.run, fit.data.images, k=(options.clusters,), device="cpu", propose=False)
    clusters = load_clusters(fit.run, options.clusters)
    rows = []
    for way in options.ways:
        for seed in range(options.seeds if way != "clusters" else 1):
            with_forest = way in ("random", "queue") and seed < options.forest_seeds
            start = time.perf_counter()
            rows.append(curve(way, fit, test, clusters, seed, Forest(fit, test, seed) if with_forest else None))
            print(f"{time.perf_counter() - start:.0f} s", json.dumps(rows[-1]), flush=True)
    mean = {}
    for way in options.ways:
        own = [row["miou"] for row in rows if row["way"] == way]
        for key in own[0]:
            values = [one[key] for one in own if key in one]
            mean[f"{way} {key}"] = [round(float(np.mean(values)), 3), round(float(np.std(values)), 3), len(values)]
    result = {
        "run": str(options.run.name),
        "data": Path(options.data).name,
        "fit, test": names,
        "clusters": options.clusters,
        "scales, flip": [options.scales, options.flip],
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "mean, deviation, seeds": mean,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for key, value in mean.items():
        print(f"{key:24} {value[0]:.3f} ± {value[1]:.3f} ({value[2]} seeds)")


if __name__ == "__main__":
    main()
