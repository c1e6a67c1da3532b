"""Is a data set on disk what it should be? Counts, missing and damaged files, class shares and a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from selfseg.collection.false_colours import painter_of
from selfseg.data.labelled.catalog import LabelledImages, Source, missing_files, parse_source, with_labels
from selfseg.data.labelled.datasets import Files
from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.layouts.finding import counted, understand
from selfseg.data.labelled.layouts.left_over import left_over
from selfseg.data.reading.decoding import quiet
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.surveying import Survey
from selfseg.data.reading.windows import expand, look_into
from selfseg.drawing.contact_sheet import contact_sheet
from selfseg.drawing.pictures import write_image
from selfseg.errors import BadImage, ConfigError, DataError, EmptyCollection, LabelError
from selfseg.exchange.any_labels import drawn_labels, find_labels, splits_of_labels, unpacked
from selfseg.storage.outputs.claiming import check_picture
from selfseg.storage.remote.places import at_places
from selfseg.telling import cell as escape
from selfseg.telling.bars import passing

_ALL_IMAGES = "images"  # the one "split" of a plain folder of images
_Verdict = tuple[str, str, NDArray[np.int64] | None]  # what is wrong with the image, the label; the label's pixels
_NAMED = 5  # files of one kind that are named in a table


@dataclass(frozen=True)
class SplitCheck:
    """What was found of one split.

    Attributes:
        split: its name.
        images: how many images it lists.
        published: how many it should have, if that is known.
        labelled: whether it has labels.
        missing: images that are not there.
        missing_labels: labels that are not there.
        bad_images: images that can't be read, with the reason.
        bad_labels: sentences on labels that can't be read or used.
        pixels: (C,) labelled pixels of each class.
        void: pixels that count for nothing.
        labels_read: how many labels that is counted from.
        problem: why there is nothing to check, or "".
        wanted: whether a missing or incomplete split is an error.
    """

    split: str
    images: int = 0
    published: int | None = None
    labelled: bool = False
    missing: tuple[str, ...] = ()
    missing_labels: tuple[str, ...] = ()
    bad_images: tuple[str, ...] = ()
    bad_labels: tuple[str, ...] = ()
    pixels: tuple[int, ...] = ()
    void: int = 0
    labels_read: int = 0
    problem: str = ""
    wanted: bool = True

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences on everything that is wrong."""
        if self.problem:
            return (f"{self.split}: {self.problem}",) if self.wanted else ()
        found = []
        if self.published is not None and self.images != self.published:
            found.append(f"it has {self.images} images, the published one has {self.published}; --partial accepts that")
        for what, files in (
            ("images are missing", self.missing),
            ("labels are missing", self.missing_labels),
            ("images can't be read", self.bad_images),
            ("labels can't be used", self.bad_labels),
        ):
            if files:
                more = f", and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
                found.append(f"{len(files)} {what}: {'; '.join(files[:_NAMED])}{more}")
        if self.labels_read and not sum(self.pixels):
            found.append(f"no pixel of its {self.labels_read} labels has a class: all are void")
        return tuple(f"{self.split}: {sentence}" for sentence in found)

    def faults(self) -> tuple[str, ...]:
        """Everything that is missing or can't be read, a line each."""
        gone = (f"{path}: missing" for path in (*self.missing, *self.missing_labels))
        return (*gone, *self.bad_images, *self.bad_labels)

    def shares(self) -> NDArray[np.float64]:
        """(C,) share of each class in the labelled pixels; zeros if there are none."""
        return np.asarray(np.asarray(self.pixels, np.float64) / max(sum(self.pixels), 1), np.float64)


@dataclass(frozen=True)
class DataCheck:
    """What `check_data` found.

    Attributes:
        name: what results call the data.
        about: one line on it.
        class_names: C names; empty without labels.
        splits: one each.
        sheet: the contact sheet, if one was drawn.
        understood: of data of one's own, how it was understood, in phrases.
        not_taken: sentences on what lies there and is not part of it.
        left_out: sentences on what can't be used of another tool's labels.
        survey: what the files of the images are, unless all are of formats that hold photographs only.
    """

    name: str
    about: str
    class_names: tuple[str, ...]
    splits: tuple[SplitCheck, ...]
    sheet: Path | None = None
    understood: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    survey: Survey | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences on everything that is wrong, of all splits."""
        return (*(sentence for split in self.splits for sentence in split.problems), *self.left_out)

    @property
    def many(self) -> bool:
        """Whether more is wrong than the table names."""
        return any(len(split.faults()) > _NAMED for split in self.splits)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def table(self) -> Group:
        """Counts per split, shares per class, and what is wrong, for a terminal."""
        counts = Table("split", title=f"{escape(self.name)}: {escape(self.about)}", title_justify="left")
        for head in ("images", "published", "labels read", "missing", "damaged", "void"):
            counts.add_column(head, justify="right")
        there = [split for split in self.splits if not split.problem]
        for split in there:
            total = sum(split.pixels) + split.void
            counts.add_row(
                escape(split.split),
                str(split.images),
                "" if split.published is None else str(split.published),
                str(split.labels_read) if split.labelled else "no labels",
                str(len(split.missing) + len(split.missing_labels)),
                str(len(split.bad_images) + len(split.bad_labels)),
                f"{split.void / total:.1%}" if total else "",
            )
        parts: list[Table | str] = [f"understood as: {escape(phrase)}" for phrase in self.understood[:1]]
        parts += [f"  {escape(phrase)}" for phrase in self.understood[1:]]
        parts += [f"  [yellow]left out:[/] {escape(sentence)}" for sentence in self.not_taken]
        parts.append(counts)
        if self.survey is not None:
            parts += survey_parts(self.survey)
        labelled = [split for split in there if split.labels_read]
        if labelled:
            shares = Table("", "class", title="share of the labelled pixels", title_justify="left")
            for split in labelled:
                shares.add_column(escape(split.split), justify="right")
            columns = [split.shares() for split in labelled]
            for c, name in enumerate(self.class_names):
                # A class that a whole split lacks has no IoU there: that should be seen.
                cells = [f"{100 * column[c]:.2f} %" if column[c] else "[yellow]none[/]" for column in columns]
                shares.add_row(str(c), escape(name), *cells)
            parts.append(shares)
        absent = [split for split in self.splits if split.problem and not split.wanted]
        parts += [f"[dim]not there: {escape(split.split)} ({escape(split.problem)})[/]" for split in absent]
        fine = f"[green]all {'that is needed ' if absent else ''}is there[/]"
        parts += [f"[red]wrong:[/] {escape(sentence)}" for sentence in self.problems] or [fine]
        return Group(*parts)


@at_places(reads=["data"], writes=["sheet"])
def check_data(
    data: Path | str,
    splits: Sequence[str] = (),
    sheet: Path | str | None = None,
    count: int = 12,
    decode: bool = False,
    partial: bool = False,
    progress: bool = True,
    channels: Sequence[str] = (),
    pages: str = "auto",
) -> DataCheck:
    """Check a data set on disk.

    The header and the end of every image are read. Every label is decoded, mapped to classes, and compared with the
    size of its image. Without `splits`, the first two splits of a labelled data set must be there (the first one, if it
    has no labels). If others are missing, that is only reported.

    Args:
        data: NAME:ROOT, NAME/SPLIT:ROOT, a labelled folder, or a folder of images.
        splits: which splits are checked; each must be there.
        sheet: a file (.png, .jpg or .webp) for a picture of some images under their labels.
        count: how many images the sheet shows, about equally many of each split.
        decode: also decode every image.
        partial: whether numbers of images that differ from the published ones are accepted.
        progress: whether to show a progress bar on stderr.
        channels: for measured images: which channels are looked at, by index from 0 or by name; "rgb" reads all files
            as photographs.
        pages: for files with several pages: which of them are images, as `Recipe.pages`.

    Returns:
        What was found. Missing or damaged files raise nothing; the result lists them.

    Raises:
        ConfigError: if there is no data set of that name; if the sheet would lie among the images.
        DataError: if the root is not laid out like the data set at all; the message says what was looked for.
        StorageError: if the sheet can't be written.
    """
    source = parse_source(data)
    if source.split and splits:
        raise ConfigError(f"{data} names a split already; leave out --splits ({', '.join(splits)})")
    check_picture(sheet, source.root, "--sheet")
    known = splits_of_labels(source)
    if source.dataset is None and not known:
        if splits:
            raise ConfigError(f"{data} has no splits; leave out --splits")
        return _check_images(source, sheet, count, decode, progress, channels, pages)
    asked = tuple(splits) or ((source.split,) if source.split else ())
    published = source.dataset.splits if source.dataset else {}
    needed = asked or known
    if source.dataset and published and not asked:
        needed = known[: 1 if known[0] in source.dataset.unlabelled else 2]
    checks: list[SplitCheck] = []
    opened: list[tuple[SplitCheck, Files]] = []
    first: DataError | None = None
    looked: Survey | None = None
    for split in asked or known:
        try:
            files = find_labels(source, split, leave_out=True)
        except DataError as error:
            first = first or error
            checks.append(SplitCheck(split, problem=str(error), wanted=split in needed))
            continue
        expected = None if partial else published.get(split)
        if looked is None and not opened:
            looked = _look(with_labels(source, split, files).images, channels, pages)
        images = with_labels(source, split, files).images.measured(None if looked is None else looked.channels)
        checks.append(_check_split(source, split, files, expected, split in needed, decode, progress, images))
        opened.append((checks[-1], files))
    if not opened:
        raise first or DataError(f"there is no split in {data}")
    name = source.dataset.name if source.dataset else source.root.resolve().name
    about = source.dataset.about if source.dataset else "a labelled folder"
    classes = next((files.codes.classes for _, files in opened if files.codes is not None), ())
    understood, not_taken, left_out = _tell(source, opened)
    result = DataCheck(
        name, about, classes, tuple(checks), Path(sheet) if sheet else None, understood, not_taken, left_out, looked
    )
    if sheet is not None:
        chosen = [pair for pair in opened if pair[0].labels_read] or opened
        data_of = [(check, with_labels(source, check.split, files)) for check, files in chosen]
        channels_of = None if looked is None else looked.channels
        shown = [(check, data.images.measured(channels_of), data) for check, data in data_of]
        _draw(Path(sheet), result, shown, count)
    return result


def _tell(
    source: Source, opened: Sequence[tuple[SplitCheck, Files]]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """How a folder of one's own was understood, what was not taken, and what is wrong in another tool's labels."""
    if not source.plain:
        return (), (), ()
    kinds = dict.fromkeys(files.notes[0] for _, files in opened if files.notes)
    where = [f"{check.split}: {files.notes[1]}" for check, files in opened if len(files.notes) > 1]
    meanings = dict.fromkeys(note for _, files in opened for note in files.notes[2:])
    settled = unpacked(source)
    drawn = drawn_labels(settled)
    if drawn is not None:
        return (*kinds, *where, *meanings), drawn.not_taken(), drawn.left_out
    layout = understand(settled.root, settled.options)
    return (*kinds, *where, *meanings), left_over(layout) if layout is not None else (), ()


def _check_images(
    source: Source,
    sheet: Path | str | None,
    count: int,
    decode: bool,
    progress: bool,
    channels: Sequence[str],
    pages: str,
) -> DataCheck:
    name = source.root.resolve().name
    images = list_images(unpacked(source).root)
    looked = _look(images, channels, pages)
    # Pages are images of their own; what is too large to be looked at whole is no less an image.
    images = expand(images.measured(None if looked is None else looked.channels), cut=False)
    files = Files(images.root, tuple(images.paths))
    check = _check_split(source, _ALL_IMAGES, files, None, True, decode, progress, images)
    result = DataCheck(name, "a folder of images", (), (check,), Path(sheet) if sheet else None, survey=looked)
    if sheet is not None:
        _draw(Path(sheet), result, [(check, images, with_labels(source, _ALL_IMAGES, files))], count)
    return result


def _look(images: ImageCollection, channels: Sequence[str], pages: str) -> Survey | None:
    """What the files of images are; None where nothing but photographs can be in them, or all shall be read so."""
    if images.blocks:
        return None
    try:
        return look_into(images, channels, pages)
    except EmptyCollection:  # no file can be opened: each is told by itself
        return None


def _check_split(
    source: Source,
    split: str,
    files: Files,
    published: int | None,
    wanted: bool,
    decode: bool,
    progress: bool,
    images: ImageCollection | None = None,
) -> SplitCheck:
    gone, unlabelled = set(missing_files(files.images)), set(missing_files(files.labels))
    data = with_labels(source, split, files)
    images, classes = images or data.images, data.class_names

    def judge(i: int) -> _Verdict:
        bad_image = bad_label = ""
        present = None
        if files.images[i] not in gone:
            try:
                images.glimpse(i) if decode else images.check(i)
            except BadImage as error:
                bad_image = str(error)
        if files.labels and files.labels[i] not in unlabelled:
            try:
                present = np.bincount(data.read_label(i).ravel(), minlength=VOID + 1)
            except LabelError as error:
                bad_label = str(error)
        return bad_image, bad_label, present

    pixels = np.zeros(VOID + 1, np.int64)
    read = 0
    bad: tuple[list[str], list[str]] = ([], [])
    for bad_image, bad_label, present in _in_threads(judge, len(images), split, progress):
        bad[0].extend([bad_image] if bad_image else [])
        bad[1].extend([bad_label] if bad_label else [])
        if present is not None:
            pixels += present
            read += 1
    return SplitCheck(
        split,
        len(images),
        published,
        bool(files.labels),
        tuple(str(path) for path in files.images if path in gone),
        tuple(str(path) for path in files.labels if path in unlabelled),
        tuple(bad[0]),
        tuple(bad[1]),
        tuple(int(value) for value in pixels[: len(classes)]),
        int(pixels[VOID]),
        read,
        wanted=wanted,
    )


def _in_threads(judge: Callable[[int], _Verdict], count: int, what: str, progress: bool) -> Iterator[_Verdict]:
    """`judge` of 0 ... count - 1 in order; decoding lets go of Python's lock."""
    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(judge, range(count))
        yield from passing(done, what, progress, count)


def _draw(
    sheet: Path,
    result: DataCheck,
    shown: Sequence[tuple[SplitCheck, ImageCollection, LabelledImages]],
    count: int,
) -> None:
    """Images that can be read, evenly over each split, and their labels."""
    pictures, legends = [], []
    pixels = np.zeros(len(result.class_names), np.int64)
    each = max(0, -(-count // len(shown)))
    for check, images, data in shown:
        painter = painter_of(images)
        legends.append(painter.caption(""))
        pixels += np.asarray(check.pixels or np.zeros_like(pixels), np.int64)
        here = 0
        tried = (*spread_indices(len(images), each), *spread_indices(len(images), 20 * each))  # some may be damaged
        for i in dict.fromkeys(tried):
            if here == each:
                break
            try:
                label = data.read_label(i) if check.labelled else None
                pictures.append((f"{check.split}: {images.names[i]}", painter(images.glimpse(int(i))), label))
                here += 1
            except (BadImage, LabelError):
                continue  # the table names it
    counted = pixels / max(int(pixels.sum()), 1)
    title = f"{result.name}: " + ", ".join(f"{check.split} {check.images}" for check, *_ in shown)
    note = "; ".join(dict.fromkeys(legend for legend in legends if legend))
    shares = counted.tolist() if counted.any() else ()
    write_image(sheet, contact_sheet(pictures, result.class_names, shares, title, note=note))


def survey_parts(found: Survey) -> list[Table | str]:
    """What a survey found, for a terminal: sentences, and a table of the channels."""
    kinds = ", ".join(f"{count} {escape(kind)}" for kind, count in found.kinds.most_common())
    dtypes = ", ".join(f"{count} of {dtype}" for dtype, count in found.dtypes.most_common())
    sizes = " to ".join(dict.fromkeys(f"{width}x{height}" for height, width in found.sizes))
    looked = f"{found.looked_at} of {found.images} files" if found.looked_at < found.images else "the files"
    parts: list[Table | str] = [f"{looked} were opened: {kinds}; type of the values: {dtypes}; size: {sizes} px"]
    pages = [f"{files} with {count}" for count, files in found.pages.most_common() if count > 1]
    if pages:
        parts.append(f"files with several pages: {', '.join(pages)} (--pages says which are images)")
    note = [f"[yellow]note:[/] {escape(found.warning())}"] if found.warning() else []
    if len(found.groups) > 1:
        root = os.path.commonpath([file.parent for _, files in found.groups for file in files])
        parts.append("there are several kinds of files, and each could be a collection of its own:")
        for kind, files in found.groups:
            some = ", ".join(os.path.relpath(file, root) for file in files[:3]) + (", ..." if len(files) > 3 else "")
            parts.append(f"  {escape(kind)}: {escape(counted(len(files), 'file'))} ({escape(some)})")
    if found.channels is None:
        parts.append("selfseg reads them as photographs: each becomes 8-bit red, green and blue")
        return [*parts, *note]
    parts.append("selfseg reads them as measured images: all channels and bits are kept (--channels chooses some)")
    title = "values of drawn pixels (low: .1 %, high: 99.9 %)"
    table = Table("", "channel", title=title, title_justify="left")
    for head in ("least", "low", "median", "high", "most", "void"):
        table.add_column(head, justify="right")
    for number, spread in zip(found.channels.take, found.spread, strict=True):
        values = (spread.least, spread.low, spread.middle, spread.high, spread.most)
        void = f"{spread.void:.1%}" if spread.void else ""
        table.add_row(str(number), escape(spread.name), *(f"{value:.5g}" for value in values), void)
    parts.append(table)
    if found.channels.nodata is not None:
        parts.append(f"{found.channels.nodata:g} stands for pixels where nothing was measured")
    return [*parts, *note]
