"""Pages that were written for readers in a hurry keep their sentences short; see tools/prose.py."""

import importlib.util
import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 40
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(
        f"docs/{name}.md"
        for name in (
            "add-a-method",
            "data",
            "decisions",
            "design",
            "examples/comparison",
            "examples/masks-to-coco",
            "examples/photographs",
            "examples/terrain",
            "examples/tissue",
            "formats",
            "labels",
            "machines",
            "masks",
            "measured",
            "numbers",
            "numbers/checks",
            "numbers/from-scratch",
            "numbers/good-start",
            "numbers/images",
            "numbers/masks",
            "numbers/speed",
            "numbers/studio",
            "odd_files",
            "papers",
            "protocols",
            "rasters",
            "remote",
            "scale",
            "segmenter",
            "start",
            "studio",
            "trust",
            "tutorial",
            "workers",
        )
    ),
]


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", ROOT / "tools" / "prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(prose: ModuleType, page: str) -> None:
    words, _, line, sentence = prose.longest([ROOT / page])[0]
    assert words <= MOST_WORDS, f"{page}:{line} has a sentence of {words} words, make two of it: {sentence}"


def test_what_counts_as_a_sentence(prose: ModuleType) -> None:
    page = (
        "# A heading is none\n\nOne sentence, e.g. this\none. Another [with a link](a.md), and `some code in it`.\n"
        "- An entry\n  of two lines\n- and one of one. timm begins a sentence with a small letter: it counts.\n\n"
        "| a | table |\n\n```\nsome code. More.\n```\n![a picture](b.jpg)\n"
    )
    assert list(prose.sentences(page)) == [
        (3, "One sentence, e.g. this one."),
        (3, "Another with a link, and `code`."),
        (5, "An entry of two lines"),
        (7, "and one of one."),
        (7, "timm begins a sentence with a small letter: it counts."),
    ]


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_a_paragraph_becomes_a_list(page: str) -> None:
    lines = (ROOT / page).read_text("utf-8").split("\n")
    for number, (before, line) in enumerate(itertools.pairwise(lines), start=2):
        if (
            re.match(r"\s*(\d\d+[.)]|[-*+]) ", line)
            and re.match(r"\w.*\w$", before)
            and not line.startswith(("- ", "* "))
        ):
            pytest.fail(f"{page}:{number} begins with what makes a list of it: {line[:40]}")
