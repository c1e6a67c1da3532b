"""Decisions taken over to another run: what fits, and what does not and why.

What is carried, and how:

- **Classes** with their colours, in their order.
- **Clicks**: the image is found again by its content, wherever it lies now; level and point are kept as they are. Other
  superpixels don't matter to a point. Where the other run has a click of its own on the same segment, that one stays
  and the other is left out.
- **Names of clusters**, clusters left out and splits: as they are, if the other run has the very same clustering.
  Otherwise both runs look at some of the images, and each new cluster gets what most of its pixels were called, if more
  than half were. A cluster that the other run's log has decided about already keeps what it has.
- **Answers of audits** are not carried: they judge what the old run predicted.

Only what stands is carried, not what was undone. It becomes one step of the new history, so that one undo takes it
back. Carrying again adds what came since. The old log is only read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfseg.collection.clusters import Clusters, load_clusters
from selfseg.collection.opening import Images, collect_for
from selfseg.data.labelled.legend import format_colour
from selfseg.errors import RunError
from selfseg.storage.hashes import embedder_hash
from selfseg.studio.carrying.clusterings import fingerprint, recall, remember
from selfseg.studio.carrying.images import ImageFinder, ImageIndex, OwnClicks
from selfseg.studio.carrying.votes import LEFT_OUT, UNDECIDED, choose, gather, labels_of, missed, spoken_label
from selfseg.studio.decisions.history import Entry
from selfseg.studio.decisions.kinds import clusters_of
from selfseg.studio.decisions.log import DecisionLog
from selfseg.studio.decisions.state import Named, State, counted

_MOST_SENTENCES = 12  # about clusters, the largest first


@dataclass(frozen=True)
class Report:
    """What became of the decisions.

    Attributes:
        clicks: carried.
        clusters: clusters and parts that have got a name or were left out.
        before: clicks that an earlier carrying had brought already.
        problems: sentences about what did not fit, and why.
        notes: sentences about what else is to be known.
    """

    clicks: int
    clusters: int
    before: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        again = f" ({self.before} were here already)" if self.before else ""
        first = f"Carried {self.clicks} clicks{again} and what {self.clusters} clusters are called."
        return " ".join([first, *self.problems, *self.notes])


def carry_over(
    source: Path | str,
    run: Path | str,
    images: Images,
    index: ImageIndex | None = None,
    *,
    k: int | None = None,
    source_run: Path | str | None = None,
    look_at: int = 100,
    device: str = "auto",
    progress: bool = True,
) -> Report:
    """Take the decisions in a log over to another run, or to another clustering of the same run.

    Args:
        source: the folder of the log, RUN/studio.
        run: the run to carry them to; its log is RUN/studio.
        images: its images. Some are looked at where clusters differ.
        index: names and content hashes of the images, a `RegionStore`; without it no clicks are carried.
        k: which of its clusterings gets names: that with the old K if None and there is one, else its largest.
        source_run: the run that the old decisions were made on, if it is no longer the folder above the log.
        look_at: at most so many images are looked at.
        device: see `selfseg.load`.
        progress: whether to show progress bars on stderr.

    Returns:
        What fits and what does not. The decisions are on the disk then.

    Raises:
        RunError: if there is no log in `source`, or the new run has no clusters with this k.
        StorageError: if the new log can't be written.
        TooManyBadImages: if too many of the images can't be read.
    """
    old, run = DecisionLog.open(source), Path(run)
    if not old.entries:
        raise RunError(f"{source} holds no decisions; give the folder of a log, RUN/studio")
    carrying = _Carrying(old, DecisionLog.open(run / "studio"))
    state = old.state()
    carrying.classes(state)
    carrying.clicks(state, index)
    looking = _Looking(run, Path(source_run or Path(source).parent), images, look_at, device, progress)
    for named in reversed((*state.resting, *state.by_clustering)):  # what was decided about last has the first say
        carrying.clusters(named, k, looking)
    if answers := sum(len(audit.answers) for audit in state.audits if not carrying.same_log):
        carrying.notes.append(
            f"Answers of audits were not carried over ({answers:,}), because they judge what the other run predicted."
        )
    carrying.problems += [f"In the old log, {text}." for text in (*old.damage, *state.problems)]
    return carrying.finish()


@dataclass(frozen=True)
class _Looking:
    """Where to look at images with both runs."""

    run: Path
    source_run: Path
    images: Images
    most: int
    device: str
    progress: bool

    def target(self, k: int | None, fallback: int) -> Clusters:
        """The clusters that are to get names."""
        if k is not None:
            return load_clusters(self.run, k)
        try:
            return load_clusters(self.run, fallback)
        except RunError:
            return load_clusters(self.run)

    def source(self, named: Named, folder: Path) -> tuple[Path, Clusters]:
        """The clusters that have names, and a run with their embedder; raises RunError where there are none."""
        try:
            clusters = recall(folder, named.fingerprint)
        except RunError:
            clusters = load_clusters(self.source_run, named.k)
            if named.fingerprint not in ("", fingerprint(clusters)):
                raise
        for run in (self.run, self.source_run):
            if embedder_hash(run) == clusters.info.get("embedder"):
                return run, clusters
        raise RunError(f"the embedder that they were named with is no longer in {self.source_run}")


class _Carrying:
    """What goes from one log to the other, collected and then written at once."""

    def __init__(self, old: DecisionLog, new: DecisionLog) -> None:
        self.same_log = old.folder.resolve() == new.folder.resolve()
        self.old, self.new = old, new
        self.identity = _identity(old)
        self.decisions: list[tuple[str, dict[str, Any]]] = []
        self.given: dict[str, str] = {}  # whole clusters and parts of the new run, and what they are called from now on
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.clicked = self.before = 0

    def add(self, kind: str, **fields: Any) -> None:
        self.decisions.append((kind, {"carried": {"from": self.identity}, **fields}))

    def classes(self, state: State) -> None:
        """Colours first, which gives the classes their order too."""
        known = self.new.state().colours
        for one in state.classes:
            if one.name not in known:
                self.add("colour", name=one.name, colour=format_colour(one.colour))

    def clicks(self, state: State, index: ImageIndex | None) -> None:
        if self.same_log or not state.clicks:
            return
        if index is None:
            self.problems.append(
                f"{counted(len(state.clicks), 'click')} left out: the images have no content hashes here."
            )
            return
        finder = ImageFinder(index.names, index.hashes)
        identity = _identity(self.new) if self.new.entries else ""
        here = {_origin(entry, identity) for entry in _clicks(self.new)}
        own = OwnClicks(index)
        for click, entry in zip(self.new.state().clicks, _clicks(self.new), strict=True):
            if "carried" not in entry.fields and (found := finder.find(click.image)) is not None:
                own.add(found, click)
        lost: dict[str, Counter[str]] = {}
        # A seq may be there twice in a file that was put together by hand; the order is the same in both.
        for click, entry in zip(state.clicks, _clicks(self.old), strict=True):
            fields, found = entry.fields, finder.find(click.image)
            if _origin(entry, self.identity) in here:
                self.before += 1
            elif found is None:
                lost.setdefault(f"in images {finder.why_not(click.image)}", Counter())[click.image.name] += 1
            elif own.has(found, click):
                reason = "where this run has clicks of its own, in the images"
                lost.setdefault(reason, Counter())[index.names[found]] += 1
            else:
                image = {"hash": index.hashes[found], "name": index.names[found]}
                carried = fields.get("carried") or {"from": self.identity, "seq": entry.seq, "time": entry.time}
                self.add("click", **{**fields, "image": image, "name": click.name, "carried": carried})
                self.clicked += 1
        for reason, names in sorted(lost.items()):
            listed = ", ".join(name for name, _ in names.most_common(3)) + (", ..." if len(names) > 3 else "")
            self.problems.append(f"{counted(names.total(), 'click')} left out, {reason}: {listed}.")

    def clusters(self, named: Named, k: int | None, looking: _Looking) -> None:
        """What one clustering's clusters are called."""
        if not named.decided and not named.splits:
            return
        try:
            target = looking.target(k, named.k)
            same = fingerprint(target) == named.fingerprint
            if same and self.same_log:
                return
            run, clusters = (looking.run, target) if same else looking.source(named, self.old.folder)
        except RunError as error:
            what = counted(named.decided, "named or left out cluster")
            self.problems.append(f"{what} of {named.k} could not be carried: {error}.")
            return
        remember(self.new, target)
        decided = _wholes(self.new.state(), target.k)
        self.given |= {path: name for path, name in decided.items() if path not in self.given}
        if same:
            self._copy(named, decided)
        else:
            self._vote(named, (run, clusters), target, looking, {*decided, *self.given})

    def _copy(self, named: Named, decided: Mapping[str, str]) -> None:
        """The very same clusters."""

        def is_free(path: str) -> bool:
            return path.split(".")[0] not in decided

        for path in sorted(filter(is_free, named.splits), key=lambda path: path.count(".")):
            split = named.splits[path]
            self.add("split", cluster=path, parts=split.parts, centroids=[list(row) for row in split.centroids])
        for path, label in labels_of(named.names, named.left_out).items():
            if is_free(path):
                self._call(path, label)

    def _vote(
        self,
        named: Named,
        source: tuple[Path, Clusters],
        target: Clusters,
        looking: _Looking,
        decided: set[str],
    ) -> None:
        labels = labels_of(named.names, named.left_out)
        votes = gather(
            (*source, named.splits, labels),
            (looking.run, target),
            collect_for(looking.run, looking.images),
            looking.most,
            device=looking.device,
            progress=looking.progress,
        )
        unclear = []
        for choice in choose(votes):
            path = f"{target.k}/{choice.cluster}"
            if path in decided:
                continue
            if choice.certainty > 0.5:
                if choice.label != UNDECIDED:
                    self._call(path, choice.label)
            elif UNDECIDED != choice.label:
                unclear.append(choice)
        for choice in sorted(unclear, key=lambda choice: -choice.share)[:_MOST_SENTENCES]:
            self.problems.append(
                f"{target.k}/{choice.cluster} ({choice.share:.1%} of the area) has no name: {choice.certainty:.0%} of "
                f"it was {spoken_label(choice.label)}, and the next largest part {spoken_label(choice.second)}."
            )
        whole = {path: name for path, name in self.given.items() if "." not in path and clusters_of(path) == target.k}
        called = {int(path.split("/")[1]): name for path, name in whole.items()}
        for label, share, instead in missed(votes, called)[:_MOST_SENTENCES]:
            self.problems.append(
                f"Of what was “{label}”, {share:.0%} is in clusters of that name; most of the rest is in what is "
                f"{spoken_label(instead)}."
            )
        self.notes.append(
            f"Clusters of {named.k} and of {target.k} were compared on at most {looking.most} of the images."
        )

    def _call(self, path: str, label: str) -> None:
        self.given[path] = label
        if label == LEFT_OUT:
            self.add("leave_out", cluster=path, on=True)
        else:
            self.add("name", cluster=path, name=label)

    def finish(self) -> Report:
        clusters = sum(kind in ("name", "leave_out") for kind, _ in self.decisions)
        if clusters or self.clicked or any(kind == "split" for kind, _ in self.decisions):
            self.new.append_all(self.decisions, group=f"carried from {self.identity} at {self.new.state().seq}")
        return Report(self.clicked, clusters, self.before, tuple(self.problems), tuple(self.notes))


def _identity(log: DecisionLog) -> str:
    """A log is told by its first entry, wherever it lies and however it has grown."""
    return hashlib.blake2b(json.dumps(log.entries[0][:4]).encode(), digest_size=8).hexdigest()


def _clicks(log: DecisionLog) -> list[Entry]:
    """The entries of `State.clicks`, in the same order."""
    return [entry for entry in log.standing if entry.kind == "click"]


def _origin(click: Entry, identity: str) -> tuple[object, ...]:
    """Which click it was when it was first made.

    Copies of a log have one identity and go on with the same seqs, so when and where it was made count too.
    """
    carried = click.fields.get("carried")
    first = (identity, str(click.seq), click.time)
    if isinstance(carried, Mapping) and "seq" in carried:
        first = str(carried.get("from")), str(carried["seq"]), str(carried.get("time"))
    return *first, click.fields["image"]["hash"], click.fields["level"], *click.fields["point"]


def _wholes(state: State, k: int) -> dict[str, str]:
    """The clusters among K that something was decided about, with their label where they aren't split."""
    labels = labels_of(state.names, state.left_out)
    paths = (path for path in (*labels, *state.splits) if clusters_of(path) == k)
    return {whole: labels.get(whole, "") for path in paths if (whole := path.split(".")[0])}
