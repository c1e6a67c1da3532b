"""What classes and colours are called in files that can't hold every name, so that no two become one; classes.txt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, product

from selfseg.data.labelled.classes_file import format_classes, parse_classes
from selfseg.data.labelled.labels import MOST_CLASSES, VOID
from selfseg.data.labelled.legend import Colour, Legend, NamedClass
from selfseg.errors import LabelError

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and bytes that are no UTF-8
MOST_COLOURED = MOST_CLASSES - 2
"""Classes that a classes.txt with colours holds."""

_PARTS = re.compile(r"[\s,;:#()]+")  # what a list can be divided at


def list_classes(legend: Legend) -> tuple[str, Legend]:
    """The text of a classes.txt, which is read back as the same classes.

    Up to 253 classes it has their colours, and black for void; up to 255 it has their numbers; of more only the names,
    since the file has no void but 255.

    Args:
        legend: the classes.

    Returns:
        The text, and the classes as it has them: a name that would be read otherwise is changed a little, and of equal
        colours one by a shade.

    Example:
        >>> text, listed = list_classes(Legend.of(["zone 1 2 3", "sky"]))
        >>> print(text, end="")
        0 zone_1_2_3  #0072b2
        1 sky  #e69f00
        255 void  #000000
    """
    colours = distinct_colours([one.colour for one in legend.classes])
    labels = _tidy(legend.names)
    with_own = [
        label if _holds(Legend((NamedClass(label, colour),)), len(labels)) else _PARTS.sub("_", label)
        for label, colour in zip(labels, colours, strict=True)
    ]
    for names in (with_own, [_PARTS.sub("_", label) for label in labels]):
        listed = Legend(tuple(NamedClass(*both) for both in zip(_tidy(names), colours, strict=True)))
        if _holds(listed, len(labels)):
            break
    return _text(listed, len(labels)), listed


def _tidy(names: Iterable[str]) -> list[str]:
    ends = " ,;:"
    return plain_labels(label.strip(ends) or "_" for label in plain_labels(name.strip(ends) for name in names))


def _text(legend: Legend, among: int) -> str:
    if among <= MOST_COLOURED:
        return f"{format_classes(legend)}{VOID} void  #000000\n"
    if among <= VOID:
        return "".join(f"{value} {name}\n" for value, name in enumerate(legend.names)) + f"{VOID} void\n"
    head = f"# values from 0 in this order, {65_535} is void\n"
    return head + "".join(f"{name}\n" for name in legend.names)


def _holds(legend: Legend, among: int) -> bool:
    """Whether the text of so many classes says the same when it is read."""
    try:
        return parse_classes(_text(legend, among), "classes.txt").names == legend.names
    except LabelError:
        return False


def plain_labels(names: Iterable[str], taken: Iterable[str] = (), in_map: bool = False) -> list[str]:
    """Names of classes on one line each, without spaces at the ends, all different.

    Args:
        names: as a person typed them.
        taken: labels that the format uses itself.
        in_map: whether they go into a labelmap.txt, where ":" ends a name and "#" begins a comment; "_" stands for
            them.

    Example:
        >>> plain_labels(["a:b", "a_b", " #c"], in_map=True)
        ['a_b', 'a_b 2', '_c']
    """
    used, labels = set(taken), list[str]()
    for name in names:
        label = CONTROL.sub(" ", name).strip() or "_"
        if in_map:
            label = re.sub("^#|:", "_", label)
        if label in used:
            label = next(numbered for i in count(2) if (numbered := f"{label} {i}") not in used)
        used.add(label)
        labels.append(label)
    return labels


def distinct_colours(colours: Sequence[Colour], taken: Iterable[Colour] = ((0, 0, 0),)) -> list[Colour]:
    """The colours, where the second of two that are equal becomes the nearest that is free.

    Args:
        colours: R, G, B in [0, 255].
        taken: colours that mean something else; black is what tools read as no class.

    Example:
        >>> distinct_colours([(9, 9, 9), (9, 9, 9), (0, 0, 0)])
        [(9, 9, 9), (8, 9, 9), (0, 0, 1)]
    """
    kept = set(colours) - set(taken)  # the first of each keeps its own
    used, found, near = set(taken), list[Colour](), dict[Colour, Iterator[Colour]]()
    for colour in colours:
        if colour in used:
            choices = near.setdefault(colour, _neighbours(colour))
            colour = next(choice for choice in choices if choice not in used and choice not in kept)
        used.add(colour)
        found.append(colour)
    return found


def _neighbours(colour: Colour) -> Iterator[Colour]:
    """All other colours, those at a smaller distance first."""
    for distance in range(1, 256):
        steps = [step for step in product(range(-distance, distance + 1), repeat=3) if _reach(step) == distance]
        for step in sorted(steps, key=lambda step: (sum(map(abs, step)), step)):
            red, green, blue = (c + s for c, s in zip(colour, step, strict=True))
            if 0 <= min(red, green, blue) and max(red, green, blue) <= 255:
                yield red, green, blue


def _reach(step: tuple[int, ...]) -> int:
    return max(map(abs, step))
