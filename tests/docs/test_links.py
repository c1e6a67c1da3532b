"""Every link of the documentation leads somewhere: files and headings, without building the site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
MADE_LATER = {ROOT / "docs" / "reference" / "cli.md"}  # while the site is built

FENCED = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@cache
def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings, and the site, too."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
    return found


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target, anchor in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        file = (page.parent / target).resolve() if target else page
        if file in MADE_LATER:
            continue
        if not file.exists() or (file.suffix == ".md" and anchor and anchor[1:] not in anchors(file)):
            found.append(target + anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# It's `one` thing: this\n")
    (tmp_path / "a.md").write_text("[1](b.md) [2](b.md#its-one-thing-this) [3](b.md#other) [4](c.md) `[5](d.md)`\n")
    assert broken(tmp_path / "a.md") == ["b.md#other", "c.md"]


def test_every_page_is_in_the_navigation() -> None:
    """A page that is not listed can only be found by whoever knows its name."""
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert there <= listed, "add these pages to nav in mkdocs.yml"
    beside = {"readme.md", "contributing.md", "changelog.md", "security.md", "code-of-conduct.md"}
    assert listed - there == {"reference/cli.md", *beside}
