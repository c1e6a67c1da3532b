"""Imports only go down the house; docs/design.md draws it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "selfseg"
FILES = sorted(SOURCE.rglob("*.py"))

# The rooms (a folder or a file right below the package), lowest floor first: a room may import those of lower floors.
FLOORS = (
    ("errors", "kinds", "showing", "signals", "telling", "threads", "types", "version"),
    ("numbers", "storage", "ops", "plugins"),
    ("drawing", "data", "sharing"),
    ("pages", "models", "exchange", "workers"),
    ("fitting", "methods"),
    ("collection", "training"),
    ("segmenter",),
    ("masks", "evaluation", "exporting", "recipe_book", "timing"),
    ("studio", "clusterer"),
    ("cli", "__init__"),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Where the rule is stricter than the floors.
ONLY = {
    "pages": {
        "errors",
        "showing",
        "types",
        "version",
        "storage",
        "drawing",
    },  # they are handed what they show, and write a file
    "types": {"errors", "kinds", "showing"},
    "methods": {"errors", "types", "version", "numbers", "storage", "ops", "plugins", "data", "models"},
}
MEASURING = ("collection", "segmenter", "masks", "evaluation", "exporting", "studio")
NEVER = {"methods", "training", "recipe_book"}
"""What the measuring rooms don't know: they see an embedder, whatever trained it."""


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def may_import(room: str) -> set[str]:
    if room in ONLY:
        return ONLY[room] | {room}
    below = {other for other, floor in FLOOR.items() if floor < FLOOR[room]}
    return (below - NEVER if room in MEASURING else below) | {room}


def imported(text: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of the package, inside of functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "selfseg":
                yield node.lineno, name


def rooms_imported(text: str) -> Iterator[tuple[int, str]]:
    for line, name in imported(text):
        yield line, name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_a_room_imports_only_lower_ones(file: Path) -> None:
    room = room_of(file)
    assert room in FLOOR, f"{room} is a new room: draw it in docs/design.md and say here on which floor it is"
    allowed = may_import(room)
    wrong = [(line, other) for line, other in rooms_imported(file.read_text("utf-8")) if other not in allowed]
    assert not wrong, f"{file.relative_to(SOURCE)} must not import {wrong}"


def test_the_rule_sees_every_form_of_import() -> None:
    text = (
        "import selfseg.cli\n"
        "from selfseg import training\n"
        "def f():\n    from selfseg.methods.vice import ViCE\n"
        "import selfseg\n"
        "import selfsegment.x\n"
    )
    assert [room for _, room in rooms_imported(text)] == ["cli", "training", "__init__", "methods"]


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.slow
def test_there_is_no_circle() -> None:
    modules = {module_of(file): file for file in FILES}
    arrows: dict[str, set[str]] = {}
    for module, file in modules.items():
        # `from package import name` points at the module of that name where there is one, else at the package.
        names = (name for _, name in imported(file.read_text("utf-8")))
        arrows[module] = {n if n in modules else n.rpartition(".")[0] for n in names} - {module}
    left = {module: set(others) & arrows.keys() for module, others in arrows.items()}
    while ready := [module for module, others in left.items() if not others]:
        left = {module: others - set(ready) for module, others in left.items() if module not in ready}
    assert not left, f"these modules import each other in a circle, or one that does: {sorted(left)}"


FLAT = {"kernels": 13}  # a file for each function and device


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_a_room_can_be_taken_in_at_a_glance(folder: Path) -> None:
    files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= FLAT.get(folder.name, 11), f"{folder.name} has {len(files)} files; give it rooms of its own"


@pytest.mark.parametrize("init", [f for f in FILES if f.name == "__init__.py"], ids=lambda file: file.parent.name)
def test_a_room_says_what_is_in_it(init: Path) -> None:
    words = ast.get_docstring(ast.parse(init.read_text("utf-8"))) or ""
    assert len(words) > 60, f"{init.relative_to(SOURCE)}: say in a few lines what is in this room and where to begin"
