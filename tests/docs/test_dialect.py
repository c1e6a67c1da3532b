"""Pages in GitHub's Markdown come out the same from Python-Markdown, which wants other spaces."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "docs" / "_site"
specification = importlib.util.spec_from_file_location("dialect", SITE / "dialect.py")
assert specification is not None
assert specification.loader is not None
dialect = importlib.util.module_from_spec(specification)
specification.loader.exec_module(dialect)


@pytest.mark.parametrize(
    ("github", "python"),
    [
        ("A:\n- b\n- c\n\nd", "A:\n\n- b\n- c\n\nd"),
        ("1. a\n   b\n2. c", "1. a\n    b\n2. c"),
        ("- a\n  - b\n    c\n- d", "- a\n    - b\n        c\n- d"),
        ("- a\n  ```\n  - no list\n    x\n  ```\n- b", "- a\n    ```\n    - no list\n      x\n    ```\n- b"),
        ("- a\n\n  of a\n\nnot of a", "- a\n\n    of a\n\nnot of a"),
        ("a\n| b |\n| - |\n| c |", "a\n\n| b |\n| - |\n| c |"),
        ("```\na\n- b\n```\n- c", "```\na\n- b\n```\n\n- c"),
        ("- a\n## b\nc", "- a\n## b\nc"),
        ("a - b\nwraps here", "a - b\nwraps here"),
    ],
)
def test_lists_and_tables(github: str, python: str) -> None:
    assert dialect.for_python_markdown(github) == python
