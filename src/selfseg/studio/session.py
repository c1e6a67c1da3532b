"""What a studio knows: the log of decisions, the groups and beliefs that follow from it, and the thread that follows.

Letters in shapes: N regions of the collection.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.clusters import Clusters, available_clusters, load_clusters
from selfseg.collection.opening import Images, collect_for
from selfseg.collection.proposal import load_proposal
from selfseg.data.reading.formats.base import Window
from selfseg.errors import ConfigError, RunError
from selfseg.models.embedder import Looks
from selfseg.models.inputs.in_memory import ImagesInMemory
from selfseg.storage.hashes import embedder_hash
from selfseg.studio.beliefs import NONE, Beliefs, Examples, examples
from selfseg.studio.carrying import ImageFinder, LabelReport, Report, carry_over, remember, take_labels
from selfseg.studio.carrying.clusterings import fingerprint
from selfseg.studio.concepts import Grouping
from selfseg.studio.decisions import DecisionLog, ImageId, State
from selfseg.studio.handing_over import HandOver
from selfseg.studio.photographs import Photographs
from selfseg.studio.regions import VOID, RegionStore
from selfseg.studio.server.contract import AnotherNow, ClassView

_MANY = 40  # clusters that a person can look through; the studio begins with at most so many


_ROWS = 1 << 18  # regions that are counted at a time


class Session:
    """A run, a collection, what was decided about it, and what follows; `selfseg.studio.studio` has the operations.

    Attributes:
        run: the run's folder.
        store: the regions of the images that can be read.
        session: another one where images or clusters of the same number may be others.
    """

    def __init__(
        self,
        run: Path | str,
        images: Images,
        k: int | None = None,
        looks: Looks | None = None,
        device: str = "auto",
        progress: bool = True,
        max_bad: float = 0.05,
    ) -> None:
        self.run = Path(run)
        self._looks = looks
        if not available_clusters(self.run):
            load_clusters(self.run)  # says what to do
        collection = self._collection = collect_for(self.run, images)
        self._device = device
        self._embedder = embedder_hash(self.run)
        self.store = RegionStore.build(
            self.run, collection, device=device, looks=looks, progress=progress, max_bad=max_bad
        )
        self.session = _session_of(self.run, self.store)
        place = {name: number for number, name in enumerate(collection.names)}
        self._lock = threading.RLock()
        self._log = DecisionLog.open(self.run / "studio")
        self._photographs = Photographs(collection, [place[name] for name in self.store.names])
        self._finder = ImageFinder(self.store.names, self.store.hashes)
        self._beliefs = Beliefs(self.store)
        self._examples: Examples | None = None
        self._grouping: Grouping | None = None
        self._begin = self._first_k()
        self._fingerprint = ""  # of the clusters that are shown
        self._asked_k = 0  # the grouping's is another one where the run lost the clusters of this
        self._clicked: dict[int, tuple[int, NDArray[np.int64]]] = {}  # image and rows of each click by its seq
        self._known: tuple[str, ...] = ()
        self._class_views: list[ClassView] = []
        self._counted: dict[str, tuple[int, float]] = {}  # regions and share of each class, when last counted
        self._uncounted = False  # whether there was a decision since the last count
        self._followed: State | None = None  # what of the log groups and beliefs follow
        self._version = time.time_ns() // 1_000_000  # not one that a page has from before a restart
        self._handed = 0  # the last entry of the log that the last job's files follow
        self._job = HandOver(self.run / "studio" / "handed_over")
        self._closed = False
        self._late = threading.Condition(self._lock)
        if k is not None:
            load_clusters(self.run, k)  # says what to do if there are none
            self._log.append("k", k=k)
        with self._lock:
            self._follow()
        self._worker = threading.Thread(target=self._catch_up, name="studio", daemon=True)
        self._worker.start()

    def carry(self, decisions: Path | str) -> Report:
        """Take over what was decided in another run's studio, or for another clustering.

        Args:
            decisions: the folder of the log, RUN/studio.

        Returns:
            What fits and what does not.
        """
        with self._lock:
            report = carry_over(
                decisions,
                self.run,
                self._collection,
                self.store,
                k=self._groups().clusters.k,
                device=self._device,
                progress=False,
            )
            self._look()
            return report

    def take_labels(self, labels: Path | str, format: str = "auto") -> LabelReport:
        """Take over labels that a person already has, as clicks; one undo takes them back.

        Args:
            labels: a file, folder or zip of them.
            format: a name in `selfseg.exchange.FORMATS`; "auto" looks what is there.

        Returns:
            What became of them.

        Raises:
            ConfigError: if there is no such format, or the images lie in shards or are pages of files.
            DataError: if the labels can't be read; nothing is taken over then.
        """
        if self._collection.blocks or isinstance(self._collection, ImagesInMemory):
            raise ConfigError(
                "labels can be taken over for images in folders, but not for images in shards or in memory"
            )
        collection = self._collection
        if any(part.page for part in collection.parts):
            raise ConfigError(
                "labels can be taken over for files of one page, but not for stacks: nothing says which page they show"
            )
        paths: dict[Path, list[tuple[str, Window | None]]] = {}
        for i, (path, name) in enumerate(zip(collection.paths, collection.names, strict=True)):
            part = collection.part(i)
            paths.setdefault(path, []).append((name, None if part is None else part.window))
        with self._deciding():
            return take_labels(self._log, self.store, paths, labels, format)

    def close(self) -> None:
        """End the threads; what was decided is on the disk already."""
        with self._lock:
            self._closed = True
            self._late.notify_all()
        self._worker.join()
        self._job.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide(self, kind: str, **fields: Any) -> None:
        with self._deciding():
            self._log.append(kind, **fields)

    def _look_before(self) -> None:
        """See what others decided, before something is decided that names a cluster by its number.

        Raises:
            AnotherNow: if the number means another cluster since the page was opened.
        """
        before = self.session
        self._look()
        if self.session != before:
            raise AnotherNow("the run was clustered again meanwhile, and this was not kept; load the page again")

    def _check_embedder(self) -> None:
        """Raise RunError if the run was trained on since the studio was opened: a model would be of two halves."""
        if embedder_hash(self.run) != self._embedder:
            raise RunError(
                f"{self.run} was trained on since the studio was opened, so that its network is another one now; stop "
                "the studio, cluster the run again, and start it with --decisions "
                f"{self.run / 'studio'}"
            )

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Around what writes to the log. A decision that is refused has still read what others decided."""
        with self._lock:
            try:
                yield
            finally:
                if self._log.state() is not self._followed:
                    self._follow()

    def _look(self) -> None:
        """See what another process decided meanwhile."""
        self._log.refresh()
        if self._log.state() is not self._followed:
            self._follow()

    def _follow(self) -> None:
        """Bring groups and beliefs to what the log says."""
        state = self._log.state()
        grouping = self._regroup(state)
        while self._log.state() is not state:  # it was told which clustering this is, and names may rest now
            state = self._log.state()
            grouping = self._regroup(state)
        names = tuple(one.name for one in state.classes)
        place = {name: number for number, name in enumerate(names)}
        standing = {click.seq: click for click in state.clicks}
        self._clicked = {seq: kept for seq, kept in self._clicked.items() if seq in standing}
        for seq, click in standing.items():
            if seq not in self._clicked:
                found = self._rows(click.image, click.point, click.level)
                if found is not None:
                    self._clicked[seq] = found
        clicks = [
            (self._clicked[seq][1], None if click.name is None else place[click.name])
            for seq, click in standing.items()
            if seq in self._clicked
        ]
        named = {path: place[name] for path, name in state.names.items() if name in place}
        self._examples = examples(grouping, named, state.left_out, clicks)
        self._beliefs.refit(self._examples, len(names), anew=names[: len(self._known)] != self._known)
        self._known = names
        self._class_views = self._list(state)
        self._followed = state
        self._changed()

    def _changed(self) -> None:
        """What is believed is another thing: the page is told, and the classes are counted."""
        self._uncounted = True
        self._version += 1
        self._late.notify_all()

    def _regroup(self, state: State) -> Grouping:
        """The concepts of the log's k and splits."""
        before = self._grouping
        k = state.k if state.k is not None else self._begin
        shown = before is not None and k in (self._asked_k, before.clusters.k)
        if before is None or not shown or state.clusterings.get(before.clusters.k) != self._fingerprint:
            # The last: the run was clustered again, and somebody has named clusters of now. A number that this page
            # shows would mean another cluster.
            clusters = self._clusters(k)
            self._asked_k, self._fingerprint = k, fingerprint(clusters)
            if before is not None:
                self.session = _session_of(self.run, self.store)
            before = None
        else:
            self._asked_k, clusters = k, before.clusters
        splits = {path: np.asarray(split.centroids, np.float32) for path, split in state.splits.items()}
        wanted = {path: centres for path, centres in splits.items() if path.startswith(f"{clusters.k}/")}
        if before is not None and wanted.keys() == before.splits.keys():
            if all(np.array_equal(centres, before.splits[path]) for path, centres in wanted.items()):
                return before
        self._grouping = Grouping(self.store, clusters, wanted, before)
        return self._grouping

    def _clusters(self, k: int) -> Clusters:
        """The clustering of a k, or the one begun with if it is gone; the log is told which one it is."""
        try:
            clusters = load_clusters(self.run, k)
        except RunError:
            clusters = load_clusters(self.run, self._begin)
        remember(self._log, clusters)
        return clusters

    def _first_k(self) -> int:
        """The number of clusters to begin with."""
        there = available_clusters(self.run)
        proposal = load_proposal(self.run)
        if proposal is not None and proposal.k in there:
            return proposal.k
        few = [k for k in there if k <= _MANY]
        return few[-1] if few else there[0]

    def _groups(self) -> Grouping:
        if self._grouping is None:  # _follow was called first
            raise RunError(f"the studio of {self.run} is not open")
        return self._grouping

    def _existing(self, cluster: str) -> str:
        with self._lock:
            self._look_before()
            paths = self._groups().paths
        if cluster not in paths:
            raise ConfigError(f"there is no cluster {cluster!r}; there are {paths[0]} to {paths[-1]}")
        return cluster

    def _check(self, image: int) -> None:
        if not 0 <= image < len(self.store.names):
            raise ConfigError(f"there is no image {image}; there are {len(self.store.names)}")

    def _rows(self, told: ImageId, point: tuple[float, float], level: float) -> tuple[int, NDArray[np.int64]] | None:
        """The image and the rows of a segment; None where the image is not in this collection."""
        image = self._finder.find(told)
        if image is None:
            return None
        return image, self.store.segment_at(image, *point, level)

    def _class_at(self, image: int, x: float, y: float) -> str:
        """The name of the class at a place; "" for none."""
        region = self.store.region_at(image, x, y)
        if region == VOID:
            return ""
        row = int(self.store.first[image]) + region
        self._beliefs.of_image(image)
        found = int(self._beliefs.classes[row])
        return "" if found == NONE else self._known[found]

    def _list(self, state: State) -> list[ClassView]:
        """The classes with what was last counted of them."""
        return [ClassView(one.name, one.colour, *self._counted.get(one.name, (None, None))) for one in state.classes]

    def _count(self) -> None:
        """Count what is believed to be of each class; a pass over all regions, so not while a person waits."""
        regions = np.zeros(len(self._known), np.int64)
        areas = np.zeros(len(self._known))
        for start in range(0, len(self.store.areas), _ROWS):
            rows = slice(start, start + _ROWS)
            believed = self._beliefs.classes[rows]
            kept = believed < len(self._known)  # not NONE, nor a class that went away meanwhile
            regions += np.bincount(believed[kept], minlength=len(regions))
            areas += np.bincount(believed[kept], self.store.areas[rows][kept], minlength=len(areas))
        share = areas / max(len(self.store.names), 1)
        self._counted = {name: (int(regions[number]), float(share[number])) for number, name in enumerate(self._known)}

    def _catch_up(self) -> None:
        """Let all images follow the last decision, whenever there was one."""
        while True:
            with self._lock:
                if self._closed:
                    return
                if not self._beliefs.behind and not self._uncounted:
                    self._late.wait()
                    continue
            moved: Callable[[], bool] = self._beliefs.catch_up
            with suppress(IndexError):  # classes went away meanwhile; the next turn has the new ones
                while not self._closed and moved():
                    pass
            with self._lock:
                if self._beliefs.behind:
                    continue
                self._uncounted = False
                self._count()
                self._class_views = self._list(self._log.state())
                self._version += 1


def _session_of(run: Path, store: RegionStore) -> str:
    """What indices of images and paths of clusters mean, in short."""
    digest = hashlib.blake2b(store.key.encode(), digest_size=8)
    for k in available_clusters(run):
        with suppress(RunError):  # of an earlier embedder: none of them can be shown
            digest.update(fingerprint(load_clusters(run, k)).encode())
    return digest.hexdigest()
