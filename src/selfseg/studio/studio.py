"""The studio of a run: what a person decides about a collection, and what follows from it at once.

The page calls it through `selfseg.studio.server`; in Python it is `selfseg.Studio`, with the same operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.clusters import available_clusters, load_clusters
from selfseg.data.labelled.legend import Colour, Legend, format_colour
from selfseg.errors import ConfigError
from selfseg.studio.audit.view import view as view_audit
from selfseg.studio.concepts import Example, Grouping
from selfseg.studio.decisions import State
from selfseg.studio.decisions.kinds import CHANGE_NO_MASK
from selfseg.studio.handing_over import Decided, formats
from selfseg.studio.photographs import Box, box_around
from selfseg.studio.queue import FIRST, next_questions
from selfseg.studio.regions import VOID
from selfseg.studio.server.contract import (
    AfterClick,
    AnotherNow,
    AuditView,
    Channels,
    ClusterView,
    Crop,
    FormatView,
    ImageView,
    JobView,
    Prediction,
    Progress,
    Pulse,
    QuestionView,
    StudioState,
)
from selfseg.studio.session import Session

_OUTLINE: Colour = (255, 196, 0)  # of a concept without a name
_LOOKED_AT = 400_000  # regions among which the next questions are looked for


class Studio(Session):
    """A run's clusters, what a person decided about them, and what is believed of every region.

    All methods may be called from several threads. A method that decides something returns when the decision is on the
    disk. The image that it is about is up to date then; the others follow in another thread.

    Args:
        run: a run with clusters.
        images: the collection. The regions of its images are found once, which takes about as long as `embed`.
        k: the number of clusters to begin with; None = the one that was worked with last, or one that a person can look
            through.
        looks: how often each image is looked at; once if None.
        device: see `selfseg.load`.
        progress: whether to show progress bars on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Raises:
        RunError: if the run has no clusters; see `selfseg.load` too.
        EmptyCollection: if there are no images, or none can be read.

    Example:
        >>> studio = Studio("runs/photos", "photos")  # doctest: +SKIP
        >>> studio.name("27/3", "road")  # doctest: +SKIP
        >>> studio.hand_over(["coco"], model=True)  # doctest: +SKIP
    """

    # What is shown.

    def state(self) -> StudioState:
        """Everything but the images."""
        with self._lock:
            self._look()
            state, grouping = self._log.state(), self._groups()
            clusters = [self._cluster(path, state, grouping) for path in grouping.paths]
            named = sum(one.share for one in clusters if one.name or one.left_out)
            return StudioState(
                run=self.run.name,
                images=len(self.store.names),
                k=available_clusters(self.run),
                k_now=grouping.clusters.k,
                clusters=clusters,
                classes=list(self._class_views),
                undoes=state.last,
                redoes=state.next,
                progress=self._progress(state, named),
                busy=self._busy(),
                version=self._version,
                session=self.session,
                undo_of=state.undo,
                redo_of=state.redo,
                channels=self._photographs.channels,
                legend=self._photographs.legend,
                unusable=self.store.unusable,
            )

    def pulse(self) -> Pulse:
        """Whether anything has changed."""
        with self._lock:
            self._look()
            return Pulse(self._version, self._busy(), self.session)

    def legend(self) -> Legend:
        """The classes, in the order of their values.

        Raises:
            ConfigError: if nothing has a name yet.
        """
        with self._lock:
            self._look()
            classes = self._log.state().classes
        if not classes:
            raise ConfigError("nothing has a name yet; name a cluster, or click on a segment")
        return Legend(classes)

    def crop(self, image: int, box: Box, cluster: str | None, size: int, channels: Channels = None) -> bytes:
        """A JPEG of a part of an image, in which a cluster is outlined and the rest dimmed."""
        with self._lock:
            mask, colour = None, _OUTLINE
            if cluster is not None:
                grouping, state = self._groups(), self._log.state()
                self._check(image)
                # A cluster that was split meanwhile is still shown for a moment: it is its parts.
                parts = [
                    n for n, path in enumerate(grouping.paths) if path == cluster or path.startswith(cluster + ".")
                ]
                if not parts:
                    raise ConfigError(f"there is no cluster {cluster!r} among {grouping.clusters.k}")
                rows = slice(int(self.store.first[image]), int(self.store.first[image + 1]))
                mask = self.store.spread(image, np.isin(grouping.members[rows], parts), False)
                colour = state.colours.get(state.names.get(cluster, ""), _OUTLINE)
        return self._photographs.crop(image, box, mask, colour, size, channels)

    def photograph(self, image: int, size: int, channels: Channels = None) -> bytes:
        """The image as a JPEG, at most `size` px long; measured channels in false colours."""
        return self._photographs.jpeg(image, size, channels)

    def images(self, start: int, count: int) -> list[ImageView]:
        """Images from `start` on, at most `count`."""
        with self._lock:
            doubts = self._beliefs.doubts()
            clicks = np.bincount([image for image, _ in self._clicked.values()], minlength=len(doubts))
            chosen = range(max(start, 0), min(max(start, 0) + max(count, 0), len(doubts)))
            return [
                ImageView(
                    index=i,
                    name=self.store.names[i],
                    height=int(self.store.sizes[i, 0]),
                    width=int(self.store.sizes[i, 1]),
                    uncertainty=float(doubts[i]),
                    clicks=int(clicks[i]),
                )
                for i in chosen
            ]

    def regions(self, image: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Superpixels (h, w) with numbers 0 to n - 1, 65535 for none, and the merges (n - 1, 3): a, b, height."""
        self._check(image)
        return self.store.superpixels(image), np.asarray(self.store.tree(image), np.float32)

    def prediction(self, image: int) -> Prediction:
        """What is believed of the image, by the last decision."""
        self._check(image)
        with self._lock:
            return Prediction(*self._beliefs.of_image(image))

    # What is decided.

    def name(self, cluster: str, name: str) -> None:
        """Give a cluster a class; "" takes it away."""
        self._decide("name", cluster=self._existing(cluster), name=name)

    def leave_out(self, cluster: str, on: bool) -> None:
        """Make a cluster belong to no class, or take that back."""
        self._decide("leave_out", cluster=self._existing(cluster), on=on)

    def split(self, cluster: str, parts: int) -> None:
        """Make 2 to 8 parts of a cluster."""
        with self._deciding():
            centres = self._groups().find_parts(self._existing(cluster), parts)
            self._log.append("split", cluster=cluster, parts=parts, centroids=centres)

    def unsplit(self, cluster: str) -> None:
        """Make a cluster that was split one again."""
        with self._deciding():
            self._look_before()
            self._log.append("unsplit", cluster=cluster)

    def colour(self, name: str, colour: Colour) -> None:
        """Give a class a colour."""
        self._decide("colour", name=name, colour=format_colour(colour))

    def rename(self, old: str, new: str) -> None:
        """Give a class another name; an existing one makes the two one."""
        self._decide("rename", old=old, new=new)

    def choose_k(self, k: int) -> None:
        """Work with another number of clusters; names that were given to others are kept for when they come back."""
        load_clusters(self.run, k)  # says what to do if there are none
        self._decide("k", k=k)

    def undo(self, of: int | None = None) -> None:
        """Take back the last decision; without one, or if it is another than a named one, nothing happens."""
        with self._deciding():
            self._log.undo(of)

    def redo(self, of: int | None = None) -> None:
        """Give back what undo took; see `undo`."""
        with self._deciding():
            self._log.redo(of)

    def click(
        self,
        image: int,
        places: Sequence[tuple[float, float]],
        level: float,
        name: str | None,
        stroke: str = "",
    ) -> AfterClick:
        """Give segments a class.

        Args:
            image: its index.
            places: a place x, y in [0, 1] in each segment.
            level: how many segments the image is cut into; as many as superpixels and more: those.
            name: the class; None takes back what was said of the segments.
            stroke: clicks with the same are one decision for undo.
        """
        self._check(image)
        if not places:
            raise ConfigError("a click needs a place")
        places = [place for place in places if self.store.region_at(image, *place) != VOID]
        if not places:
            raise ConfigError("nothing was measured at this place of the image; click where something was")
        told = {"hash": self.store.hashes[image], "name": self.store.names[image]}
        entries = [
            ("click", {"image": told, "level": level, "point": [float(x), float(y)], "name": name}) for x, y in places
        ]
        with self._lock:
            with self._deciding():
                self._log.append_all(
                    entries, group=stroke or (f"click {self._log.state().seq}" if len(entries) > 1 else "")
                )
            state = self._log.state()
            prediction = Prediction(*self._beliefs.of_image(image))
            return AfterClick(self._version, list(self._class_views), state.last, state.next, prediction)

    # What helps.

    def queue(self, count: int) -> list[QuestionView]:
        """What to ask next, best first."""
        with self._lock:
            first, store = self.store.first, self.store
            images = np.arange(len(store.names))
            regions = len(store.areas)
            if regions > _LOOKED_AT:  # others each time something was decided
                step = -(-regions // _LOOKED_AT)
                images = images[self._log.state().seq % step :: step]
            rows = np.concatenate([np.arange(first[i], first[i + 1]) for i in images])
            lengths = np.concatenate([[0], np.cumsum(first[images + 1] - first[images])])
            said = np.concatenate([rows[:0], *(clicked for _, clicked in self._clicked.values())])
            scores = self._beliefs.probabilities(rows)
            questions = next_questions(
                store.vectors[rows],
                scores,
                store.areas[rows],
                lengths,
                np.flatnonzero(np.isin(rows, said)),
                count,
                seed=self._log.state().seq,
                new_first=len(self._clicked) < FIRST and not self._log.state().names,
            )
            return [self._question(int(rows[one.region]), scores[one.region], one.new) for one in questions]

    def _question(self, row: int, scores: NDArray[np.float32], new: bool) -> QuestionView:
        image = int(np.searchsorted(self.store.first, row, side="right")) - 1
        x, y = self._inside(image, row)
        count = float(self.store.first[image + 1] - self.store.first[image])
        why = _why(scores, ("none of the names", *self._known), new)
        return QuestionView(image, x, y, count, why)

    def _inside(self, image: int, row: int) -> tuple[float, float]:
        """A place of a region: the one of its pixels that is nearest to their middle."""
        superpixels = self.store.superpixels(image)
        ys, xs = np.nonzero(superpixels == row - int(self.store.first[image]))
        nearest = int(((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin())
        height, width = superpixels.shape
        return (float(xs[nearest]) + 0.5) / width, (float(ys[nearest]) + 0.5) / height

    def audit_start(self, count: int, seed: int) -> None:
        """Draw places at random; audits before it are kept."""
        if not 1 <= count <= 10_000:
            raise ConfigError(f"an audit has 1 to 10,000 places, not {count}")
        self._decide("audit_start", count=count, seed=seed)

    def audit_answer(self, n: int, verdict: str, round: int | None = None) -> None:
        """Judge place n, of this audit where one is named: the right class, "" for none of the classes, "unsure"."""
        with self._lock:
            self._look()
            view = self.audit()
            if view is not None and round not in (None, view.round):
                raise AnotherNow("another audit was begun meanwhile; this answer was not kept")
            if view is None or not 0 <= n < len(view.places):
                raise ConfigError(f"there is no place {n} in this audit; begin one, or give a number of its places")
            place = view.places[n]
            told = {"hash": self.store.hashes[place.image], "name": self.store.names[place.image]}
            self._decide("audit", image=told, point=[place.x, place.y], predicted=place.predicted, verdict=verdict, n=n)

    def audit(self) -> AuditView | None:
        """The last audit; None before the first."""
        with self._lock:
            rounds = self._log.state().audits
            return view_audit(rounds[-1], self.store, self._class_at) if rounds else None

    # What is handed over.

    def formats(self) -> list[FormatView]:
        """What can be handed over."""
        return formats()

    def hand_over(self, formats: Sequence[str], model: bool) -> str:
        """Begin to write masks of all images, and the model; returns the job's name."""
        with self._lock:
            self._check_embedder()
            legend = self.legend()
            # Learned from nothing, as when the studio is opened: what is handed over follows from the log alone, not
            # from the order in which it was learned.
            if self._examples is not None:
                self._beliefs.refit(self._examples, len(self._known), anew=True)
            while self._beliefs.catch_up():
                pass
            self._changed()
            classes = self._beliefs.classes.copy()
            classifier = self._beliefs.classifier
            if classifier is None:
                raise ConfigError("nothing of this collection has a name yet; name a cluster, or click on a segment")
            about = {"made_of": "decisions", "run": self.run.resolve().name, "decisions": len(self._log.standing)}
            decided = Decided(classes, legend, classifier, about)
            images = list(zip(self._photographs.file_names, self._photographs.files, strict=True))
            job = self._job.start(self.run, self.store, images, decided, formats, model, self._looks)
            self._handed = self._log.state().seq
            return job

    def job(self) -> JobView | None:
        """The last job; None before the first."""
        view = self._job.view()
        if view is None:
            return None
        with self._lock:
            self._look()
            later = [one.kind for one in self._log.entries if one.seq > self._handed]
        return replace(view, decisions_since=sum(kind not in CHANGE_NO_MASK for kind in later))

    def file(self, name: str) -> Path:
        """Where a finished file of the last job lies."""
        return self._job.file(name)

    # Inside.

    def _cluster(self, path: str, state: State, grouping: Grouping) -> ClusterView:
        concept = grouping.concept(path)
        return ClusterView(
            id=path,
            share=concept.share,
            mixed=concept.mixed,
            name=state.names.get(path, ""),
            left_out=path in state.left_out,
            typical=self._crops(concept.typical),
            diverse=self._crops(concept.diverse),
        )

    def _crops(self, shown: Iterable[Example]) -> list[Crop]:
        store = self.store
        return [
            Crop(
                one.image,
                box_around(
                    store.centres[one.region].tolist(), float(store.areas[one.region]), store.sizes[one.image].tolist()
                ),
            )
            for one in shown
        ]

    def _progress(self, state: State, named: float) -> Progress:
        decisions, clicks = len(self._log.standing), len(state.clicks)
        return Progress(decisions, clicks, min(named, 1.0), _sentence(decisions, clicks, named, len(state.classes)))

    def _busy(self) -> str | None:
        behind = self._beliefs.behind
        images = "image does" if behind == 1 else "images do"
        return f"{behind:,} {images} not show your last decision yet" if behind else None


def _why(scores: NDArray[np.float32], names: Sequence[str], new: bool) -> str:
    """Why an answer would help, from the probabilities of none and the classes."""
    second, first = np.argsort(scores, kind="stable")[-2:] if len(scores) > 1 else (0, 0)
    if scores[first] <= 0:
        return "Nothing is known about this yet."
    if new:
        return f"This is unlike anything that you have clicked so far. The prediction is {names[first]}."
    if first == second or scores[second] < 0.05:
        return f"The prediction is {names[first]}, but it is less sure than usual."
    if scores[first] - scores[second] < 0.2:
        one, other = (first, second) if first else (second, first)  # "none of the names" begins no sentence
        return f"{names[one]} or {names[other]}? Both are about as likely."
    return f"Probably {names[first]}, perhaps {names[second]}."


def _sentence(decisions: int, clicks: int, named: float, classes: int) -> str:
    """How far a person has come, in words."""
    if not decisions:
        return "Nothing is decided yet. Begin with the largest clusters: name what you recognise, and leave the rest."
    share = f"{named:.0%} of all pixels lie in clusters that have a name or are left out"
    if named < 0.8:
        return f"{share}; the largest of the others would help most."
    if classes < 2:
        return f"{share}. With one class there is nothing to tell apart yet: name a second one."
    if clicks < 20:
        return f"{share}. Now correct what is wrong in a few images; “What next?” says where that helps most."
    return f"{share}, and {clicks:,} segments were clicked. Only an audit tells how good that is."
