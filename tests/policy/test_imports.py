"""Imports go one way; docs/design.md draws it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "selfseg"
FILES = sorted(SOURCE.rglob("*.py"))

_WORDS = {"errors", "types", "files", "identity"}
_PURE = _WORDS | {"geometry", "ops"}
_DATA = _PURE | {"nn", "data"}
_JOBS = {"checkpoint", "running"}
_USE = _DATA | {"clustering", "evaluation", "inference", "show", "streaming"}
_EVERYTHING = _USE | {"methods", "training", "discovery", "checking", "masks", "exporting", "diagnosis", "cli"}

# What each room (a folder or file right below the package) may import besides itself.
MAY_IMPORT = {
    "errors": _WORDS,
    "types": _WORDS,
    "files": _WORDS,
    "identity": _WORDS,
    "checkpoint": _WORDS,
    "running": _WORDS,
    "geometry": _PURE,
    "ops": _PURE,
    "nn": _DATA,
    "data": _DATA,
    "methods": _DATA,
    "training": _DATA | _JOBS | {"methods", "show", "clustering"},  # the trainer makes pictures and leaves prototypes
    "clustering": _USE,
    "evaluation": _USE | _JOBS,
    "inference": _USE,
    "streaming": _DATA,
    "show": _USE,
    "discovery": _USE,
    "checking": _USE,
    "masks": _USE | _JOBS,  # networks that learn from the priors come here
    "exporting": _USE,
    "diagnosis": _EVERYTHING,
    "cli": _EVERYTHING,
    "__init__": _EVERYTHING,
    "__main__": _EVERYTHING,
}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(text: str) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of the package, inside of functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [node.module or ""]
            if node.module == "selfseg":
                names = [f"selfseg.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("selfseg."):
                yield node.lineno, name.split(".")[1]
            elif name.split(".")[0] == "selfseg_recipes":
                yield node.lineno, "recipes"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_a_room_imports_only_what_it_may(file: Path) -> None:
    room = room_of(file)
    assert room in MAY_IMPORT, f"{room} is a new room: draw it in docs/design.md and say here what it may import"
    allowed = MAY_IMPORT[room] | {room}
    if file == SOURCE / "training" / "recipe.py":
        allowed = allowed | {"recipes"}  # the list of recipes by name
    wrong = [(line, other) for line, other in imported_rooms(file.read_text("utf-8")) if other not in allowed]
    assert not wrong, f"{file.relative_to(SOURCE)} must not import {wrong}"


def test_the_rule_sees_every_form_of_import() -> None:
    text = (
        "import selfseg.cli\n"
        "from selfseg import training\n"
        "def f():\n    from selfseg.methods.vice import ViCE\n"
        "from selfseg_recipes import vice\n"
        "import selfsegment.x\n"
    )
    assert [room for _, room in imported_rooms(text)] == ["cli", "training", "recipes", "methods"]


def test_the_measuring_rooms_know_no_method() -> None:
    for room in ("evaluation", "inference", "show", "clustering"):
        assert not MAY_IMPORT[room] & {"methods", "training", "recipes"}
