r"""classes.txt: the classes of label files, and the colours that stand for them.

    0 sky  128 128 128      a class per line, numbered from 0 without gaps, or just the names in their order;
    1 road #804080          then its colour if label files hold colours: #rrggbb, or red, green and blue.
    1 road 128,0,64         A class may have several colours: a line for each.
    255 void 0 0 0          255 is void: what counts for nothing.

Columns are divided by blanks, tabs, commas, semicolons or colons. Lines that begin with # are comments, and so is what
follows # behind a colour. Either every class has a colour or none. Two other orders are understood: red, green, blue
and then the name, as CamVid's label_colors.txt has it, and any that a first line names, such as "name,r,g,b".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfseg.data.labelled.labels import MOST_CLASSES, VOID
from selfseg.data.labelled.legend import Colour, Legend, parse_colour
from selfseg.errors import LabelError
from selfseg.storage.regular import read_text

_BETWEEN = r"[\s,;:]+"
_RGB = r"\d{1,3}[\s,;]+\d{1,3}[\s,;]+\d{1,3}"
_COLOUR = rf"(?P<colour>#[0-9A-Fa-f]{{6}}|\(?\s*{_RGB}\s*\)?)"
_COMMENT = r"(?:\s+#.*)?"
_LAST = re.compile(rf"(?P<name>.+?){_BETWEEN}{_COLOUR}{_COMMENT}")
_FIRST = re.compile(rf"(?P<colour>{_RGB}){_BETWEEN}(?P<name>[^\d\s].*)")
_NUMBERED = re.compile(r"(\d+)[\s:,;]+(.+)")
_BELOW_0 = re.compile(r"-\d+[\s:,;]+(.+)")
_NO_CLASS = re.compile("void|ignore|unlabel|none|nothing|background|other", re.IGNORECASE)  # in names of 255
_HEADS = {
    "index": ("index", "id", "value", "number"),
    "name": ("name", "class", "label", "names", "classes", "labels"),
    "colour": ("colour", "color", "colours", "colors", "rgb", "hex"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}
_PATTERNS = {"index": r"(?P<index>\d+)", "name": r"(?P<name>.+?)", "colour": _COLOUR} | {
    head: rf"(?P<{head}>\d{{1,3}})" for head in ("red", "green", "blue")
}


@dataclass(frozen=True)
class ClassList:
    """What a classes.txt says.

    Attributes:
        names: C names.
        colours: (red, green, blue, class) each, 255 = void; empty if it gives none.
        void: whether it says what 255 is.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int, int], ...] = ()
    void: bool = False

    def legend(self) -> Legend:
        """The classes with the first colour of each, safe ones where the file gives none.

        Raises:
            ConfigError: if two have one name.
        """
        first = {self.names[c]: (red, green, blue) for red, green, blue, c in reversed(self.colours) if c != VOID}
        return Legend.of(self.names, first)


@dataclass(frozen=True)
class _Line:
    text: str
    name: str
    index: int | None
    colour: Colour | None


def read_classes(path: Path) -> ClassList:
    """Read a classes.txt.

    Raises:
        LabelError: if it can't be read or understood, with the line.
    """
    try:
        return parse_classes(read_text(path), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"can't read {path}: {error}") from error


def read_labelmap(path: Path) -> ClassList:
    """Read a labelmap.txt as VOC's tools and CVAT write it: NAME:R,G,B:PARTS:ACTIONS a line, or without a colour.

    Raises:
        LabelError: if it can't be read or understood.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"can't read {path}: {error}") from error
    fields = [line.split(":") for line in lines if line.strip() and not line.startswith("#")]
    coloured = any(len(parts) > 1 and parts[1].strip() for parts in fields)
    return parse_classes("\n".join(" ".join(parts[: 1 + coloured]) for parts in fields), str(path))


def parse_classes(text: str, where: str) -> ClassList:
    r"""What a classes.txt says; `where` is its name for messages.

    Raises:
        LabelError: if it can't be understood.

    Example:
        >>> parse_classes("0 sky 128 128 128\n1 road #804080\n255 void 0 0 0", "classes.txt").colours
        ((128, 128, 128, 0), (128, 64, 128, 1), (0, 0, 0, 255))
    """
    texts = [line.strip() for line in text.splitlines()]
    texts = [line for line in texts if line and not line.startswith("#")]
    if not texts:
        raise LabelError(f"{where} names no class; write one per line, e.g. '0 sky'")
    if any(map(_BELOW_0.fullmatch, texts)) and all(_BELOW_0.fullmatch(t) or _NUMBERED.fullmatch(t) for t in texts):
        below = next(filter(_BELOW_0.fullmatch, texts))
        raise LabelError(
            f"{where}: the line {below!r} has a number below 0; classes are numbered from 0, and void is 255 in labels"
        )
    lines = _with_header(texts, where) or _with_colours(texts, where) or _plain(texts)
    if all(line.index is not None for line in lines):
        names = _by_index(lines, where)
        index_of = {line.text: line.index for line in lines}
    else:
        names = tuple(line.text if line.colour is None else line.name for line in lines)
        if lines[0].colour is not None:  # a name that comes again has one more colour
            names = tuple(dict.fromkeys(names))
        index_of = {line.text: names.index(line.name) for line in lines if line.colour is not None}
    owners: dict[Colour, _Line] = {}
    colours = []
    for line in lines:
        if line.colour is None:
            continue
        index = index_of[line.text]
        assert index is not None
        other = owners.setdefault(line.colour, line)
        if index_of[other.text] != index:
            raise LabelError(f"{where} gives the colour {line.colour} to two classes: {other.text!r} and {line.text!r}")
        if other is line:
            colours.append((*line.colour, index))
    if colours and len(names) > MOST_CLASSES - 2:
        raise LabelError(f"{where} names {len(names)} classes with colours; there can be {MOST_CLASSES - 2}")
    return ClassList(names, tuple(colours), any(line.index == VOID for line in lines))


def format_classes(legend: Legend, comments: Sequence[str] = ()) -> str:
    """The text of a classes.txt with colours.

    Args:
        legend: the classes.
        comments: what stands behind each, if anything.
    """
    entries = legend.to_json()
    notes = [f"  # {note}" for note in comments] or [""] * len(entries)
    rows = [
        f"{entry['value']} {entry['name']}  {entry['colour']}{note}" for entry, note in zip(entries, notes, strict=True)
    ]
    return "\n".join(rows) + "\n"


def _plain(texts: list[str]) -> list[_Line]:
    numbered = [_NUMBERED.fullmatch(text) for text in texts]
    return [
        _Line(text, match[2] if match else text, int(match[1]) if match else None, None)
        for text, match in zip(texts, numbered, strict=True)
    ]


def _with_header(texts: list[str], where: str) -> list[_Line]:
    """Lines whose order the first one names; none if it doesn't."""
    words = [word.lower() for word in re.split(_BETWEEN, texts[0]) if word]
    heads = [next((head for head, known in _HEADS.items() if word in known), "") for word in words]
    colours = {head for head in heads if head not in ("index", "name")}
    if "name" not in heads or colours not in ({"colour"}, {"red", "green", "blue"}) or len(set(heads)) != len(heads):
        return []
    pattern = re.compile(_BETWEEN.join(_PATTERNS[head] for head in heads) + _COMMENT)
    lines = []
    for text in texts[1:]:
        match = pattern.fullmatch(text)
        if match is None:
            raise LabelError(f"{where}: the line {text!r} doesn't have the columns that the first names, {texts[0]!r}")
        found = match.groupdict()
        colour = found.get("colour") or " ".join(found[head] for head in ("red", "green", "blue"))
        index = found.get("index")
        lines.append(
            _Line(text, found["name"].strip("\"' "), int(index) if index else None, _colour(colour, text, where))
        )
    if not lines:
        raise LabelError(f"{where} names no class; write one per line below the first")
    return lines


def _with_colours(texts: list[str], where: str) -> list[_Line]:
    """Lines with a colour each; none if the file has no such column."""
    found = [_LAST.fullmatch(text) for text in texts]
    if not any(found):
        found = [_FIRST.fullmatch(text) for text in texts]
        if not all(found):
            return []
    certain = any(match and match["colour"].startswith("#") for match in found)
    if not certain and 2 * sum(match is not None for match in found) <= len(texts):
        return []  # names that end with numbers
    heads = [_NUMBERED.fullmatch(match["name"] if match else text) for text, match in zip(texts, found, strict=True)]
    numbered = all(heads)  # else a number is part of the name
    lines = []
    for text, match, head in zip(texts, found, heads, strict=True):
        index = int(head[1]) if numbered and head else None
        if match is None and index != VOID:
            raise LabelError(
                f"{where}: the line {text!r} has no colour, but others have; write e.g. '#804080' behind it"
            )
        name = head[2] if numbered and head else match["name"] if match else text
        lines.append(_Line(text, name, index, _colour(match["colour"], text, where) if match else None))
    return lines


def _colour(text: str, line: str, where: str) -> Colour:
    if text.startswith("#"):
        return parse_colour(text)
    red, green, blue = (int(number) for number in re.findall(r"\d+", text))
    if max(red, green, blue) > 255:
        raise LabelError(f"{where}: the colour in the line {line!r} has a number above 255")
    return red, green, blue


def _by_index(lines: list[_Line], where: str) -> tuple[str, ...]:
    by_index: dict[int, _Line] = {}
    for line in lines:
        assert line.index is not None
        other = by_index.setdefault(line.index, line)
        if other is not line and line.index != VOID and (other.name != line.name or line.colour is None):
            raise LabelError(f"{where} names class {line.index} twice: {other.name!r} and {line.name!r}")
    void = by_index.pop(VOID, None)
    if max(by_index, default=0) > VOID or (
        void is not None and VOID - 1 in by_index and not _NO_CLASS.search(void.name)
    ):
        raise LabelError(
            f"{where} names {len(by_index) + (void is not None)} classes; labels of a folder have at most {VOID}, 0 to "
            f"{VOID - 1}, as {VOID} is void"
        )
    gaps = sorted(set(range(max(by_index, default=-1) + 1)) - set(by_index))
    if gaps or not by_index:
        raise LabelError(
            f"{where} does not name class {gaps[0] if gaps else 0}; classes are numbered from 0 without gaps"
        )
    return tuple(by_index[index].name for index in range(len(by_index)))
