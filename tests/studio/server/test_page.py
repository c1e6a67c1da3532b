"""The page's files: nothing from outside, nothing inline, nothing that makes markup of what a person typed."""

import re
from html.parser import HTMLParser

import pytest

from selfseg.studio.server.app import page_files

FILES = {path: body.decode() for path, (body, _) in page_files().items()}
SCRIPTS = [path for path in FILES if path.endswith(".js")]
STYLES = [path for path in FILES if path.endswith(".css")]
OUTSIDE = re.compile(r"""(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.-]+\.[a-z]{2,}""", re.IGNORECASE)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)


def test_the_page_has_no_inline_script_or_style() -> None:
    page = Tags(FILES["/"])
    assert not page.inline
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_all_that_the_page_names_is_there() -> None:
    named = {a[key] for tag, a in Tags(FILES["/"]).tags for key in ("src", "href") if key in a and tag != "a"}
    assert len(named) >= 8
    assert named <= FILES.keys()
    assert set(STYLES) <= named


@pytest.mark.parametrize("path", SCRIPTS)
def test_modules_import_only_what_is_there(path: str) -> None:
    names = re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""", FILES[path])
    for name in names:
        assert name.startswith("./"), name
        assert "/scripts/" + name.removeprefix("./") in FILES, name


def test_every_module_is_used() -> None:
    used = {name for path in SCRIPTS for name in re.findall(r"""from "\./([a-z_]+\.js)";""", FILES[path])}
    named = {path.removeprefix("/scripts/") for path in SCRIPTS}
    assert named - used == {"main.js", "theme.js"}  # the page itself names these two


@pytest.mark.parametrize("path", FILES)
def test_nothing_comes_from_outside(path: str) -> None:
    assert not OUTSIDE.search(FILES[path])
    assert "@import" not in FILES[path]
    assert "url(" not in FILES[path]


@pytest.mark.parametrize("path", SCRIPTS)
def test_no_script_makes_markup_or_code_of_text(path: str) -> None:
    words = (
        "innerHTML outerHTML insertAdjacentHTML document.write DOMParser createContextualFragment srcdoc eval( setHTML"
    )
    for word in (*words.split(), ".cssText", "javascript:", "new Function"):
        assert word not in FILES[path], word
    assert not re.search(r"""setAttribute\(["'](?:style|on)""", FILES[path])
    assert not re.search(r"set(?:Timeout|Interval)\(\s*[\"'`]", FILES[path])


def test_numbers_that_are_shown_are_never_read_back() -> None:
    for path in SCRIPTS:
        assert not re.search(r"(?:parseFloat|Number|parseInt)\([^)]*textContent", FILES[path]), path


def test_who_wants_less_motion_gets_none() -> None:
    styles = "".join(FILES[path] for path in STYLES)
    moving = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\n\}\n", "", styles, flags=re.DOTALL)
    assert "transition" in styles
    assert not re.search(r"\b(?:transition|animation)\b", moving)


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLES])
def test_files_are_about_one_thing(path: str) -> None:
    assert len(FILES[path].splitlines()) <= 600
