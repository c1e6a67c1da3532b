"""Masks of all images and the model, written in a thread while the person goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.opening import load
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, SelfsegError
from selfseg.exchange.base import FORMATS, NamedMask, find_format, write_formats
from selfseg.exporting.export import export
from selfseg.models.embedder import Looks
from selfseg.segmenter.segmenter import NO_CLASS, Segmenter
from selfseg.storage.files import sole_use, storage_errors
from selfseg.studio.beliefs import NONE
from selfseg.studio.classifier import RegionClassifier
from selfseg.studio.regions import RegionStore
from selfseg.studio.server.contract import FileView, FormatView, JobView

_ONNX = "segmenter.onnx"


@dataclass(frozen=True)
class Decided:
    """What is handed over: it doesn't change while the person goes on.

    Attributes:
        classes: (N,) uint16 of the store's regions, 65535 = none.
        legend: what they are called.
        classifier: what they were learned by; its class 0 is none.
        about: plain values on how it was made.
    """

    classes: NDArray[np.uint16]
    legend: Legend
    classifier: RegionClassifier
    about: Mapping[str, Any]


def formats() -> list[FormatView]:
    """What masks can be handed over as."""
    return [FormatView(one.name, one.title, f"{one.for_what} {one.how_to_import}") for one in FORMATS.values()]


def masks(store: RegionStore, decided: Decided, images: Sequence[tuple[str, Path | None]]) -> Iterator[NamedMask]:
    """The mask of each image at its own size, as the studio shows it.

    Args:
        store: the collection's regions.
        decided: their classes.
        images: what each is called, with its suffix, and its file, where it has one.
    """
    void = decided.legend.void
    for number, (name, file) in enumerate(images):
        found = decided.classes[store.first[number] : store.first[number + 1]]
        values = np.where(found == NONE, void, found).astype(np.uint8 if void == 255 else np.uint16)
        size = (int(store.sizes[number, 0]), int(store.sizes[number, 1]))
        yield NamedMask(name, enlarge(store.spread(number, values, void), size), file)


def enlarge(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A mask at another size, with smooth edges: each pixel has the value that is most around it.

    Args:
        mask: (h, w) uint8 or uint16.
        size: (H, W) of the result.
    """
    if mask.shape == size:
        return mask
    result = np.zeros(size, mask.dtype)
    best = np.full(size, -1.0, np.float32)
    for value in np.unique(mask):
        share = np.asarray(cv2.resize((mask == value).astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR))
        more = share > best
        result[more] = value
        np.maximum(best, share, out=best)
    return result


def segmenter_of(run: Path, decided: Decided, looks: Looks | None = None) -> Segmenter:
    """The segmenter that carries what was decided, for images that the studio has never seen."""
    table = torch.arange(-1, decided.classifier.classes - 1)
    table[table >= len(decided.legend.classes)] = NO_CLASS
    return Segmenter(
        load(run, "cpu", looks),
        decided.legend,
        torch.from_numpy(decided.classifier.weights),
        torch.from_numpy(decided.classifier.bias),
        table,
        about=decided.about,
    ).eval()


class HandOver:
    """One job at a time, and its files.

    Args:
        folder: where they are written; those of the job before are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._view: JobView | None = None
        self._count = 0

    def start(
        self,
        run: Path,
        store: RegionStore,
        images: Sequence[tuple[str, Path | None]],
        decided: Decided,
        wanted: Sequence[str],
        model: bool,
        looks: Looks | None = None,
    ) -> str:
        """Begin.

        Args:
            run: the run.
            store: the collection's regions.
            images: see `masks`.
            decided: what is handed over.
            wanted: names of formats.
            model: whether to make the segmenter and its ONNX file.
            looks: of the store, which the segmenter has too.

        Returns:
            The job's name.

        Raises:
            ConfigError: if one is running, or nothing is wanted, or there is no such format.
        """
        for name in wanted:
            find_format(name)
        if not wanted and not model:
            raise ConfigError(f"nothing is chosen to be written; choose the model, or some of {', '.join(FORMATS)}")
        with self._lock:
            if self._view is not None and self._view.running:
                raise ConfigError("files are being written already; wait until they are finished")
            self._count += 1
            self._view = JobView(
                job=str(self._count),
                done=0,
                total=len(store.names) if wanted else 1,
                running=True,
                sentence="Beginning.",
                files=(),
                error=None,
            )
            self._stopping = False
            self._thread = threading.Thread(
                target=self._run, args=(run, store, images, decided, tuple(wanted), model, looks), daemon=True
            )
            self._thread.start()
            return self._view.job

    def view(self) -> JobView | None:
        """How far it has come; None before the first."""
        return self._view

    def file(self, name: str) -> Path:
        """Where a finished file lies.

        Raises:
            ConfigError: if the job has made none of this name.
        """
        view = self._view
        if view is None or name not in [one.name for one in view.files]:
            raise ConfigError(f"there is no finished file {name!r}")
        return self._folder / name

    def wait(self) -> JobView | None:
        """Wait until it is finished."""
        if self._thread is not None:
            self._thread.join()
        return self._view

    def stop(self) -> None:
        """End it; nothing half-written is left."""
        self._stopping = True
        self.wait()

    def _run(
        self,
        run: Path,
        store: RegionStore,
        images: Sequence[tuple[str, Path | None]],
        decided: Decided,
        wanted: tuple[str, ...],
        model: bool,
        looks: Looks | None,
    ) -> None:
        try:
            with sole_use(self._folder.parent, fixed=True):  # another studio of the run writes here, too
                self._remove_the_last()
                if wanted:
                    told = f"{len(store.names):,} images, {len(decided.legend.classes)} classes"
                    found = write_formats(
                        wanted, self._counted(masks(store, decided, images)), decided.legend, self._folder, zipped=True
                    )
                    for name, path in found.items():
                        self._add(path, f"{FORMATS[name].title}: {told}")
                if model:
                    self._say("Making the model.")
                    segmenter_of(run, decided, looks).save(run / "segmenter")
                    path = export(run, "segmenter-onnx", self._folder / _ONNX)
                    names = ", ".join(decided.legend.names)
                    self._add(path, f"The segmenter as one ONNX file, with the names {names}")
            total = self._view.total if self._view is not None else 0
            self._change(running=False, done=total, sentence=f"Finished: the files lie in {self._folder}.")
        except _Stopped:
            self._change(running=False, sentence="Stopped before it was finished.", error="The studio was closed.")
        except SelfsegError as error:
            self._change(running=False, sentence="Not finished.", error=str(error))
        except Exception as error:
            # A thread has nobody to raise to: the person has to read it.
            self._change(running=False, sentence="Not finished.", error=f"{type(error).__name__}: {error}")

    def _remove_the_last(self) -> None:
        """So that what lies in the folder is of this job."""
        with storage_errors(self._folder):
            for name in (*(f"{name}.zip" for name in FORMATS), _ONNX):
                (self._folder / name).unlink(missing_ok=True)

    def _counted(self, found: Iterator[NamedMask]) -> Iterator[NamedMask]:
        for number, one in enumerate(found):
            if self._stopping:
                raise _Stopped
            self._change(done=number, sentence=f"Writing {one.name}.")
            yield one
        self._say("Packing the files.")

    def _say(self, sentence: str) -> None:
        self._change(sentence=sentence)

    def _add(self, path: Path, about: str) -> None:
        view = self._view
        if view is not None:
            self._change(files=(*view.files, FileView(path.name, path.stat().st_size, about)))

    def _change(self, **fields: Any) -> None:
        with self._lock:
            if self._view is not None:
                self._view = replace(self._view, **fields)


class _Stopped(Exception):
    """The studio is being closed."""
