"""Look at the built site in a browser: `python docs/_site/look.py [FOLDER]`, after `make docs`.

Every page is opened as a file, 1280 and 390 px wide, in light and dark. It is an error if a page asks another host for
anything, is wider than the window, has a picture that doesn't load or a link that leads nowhere, or if the search finds
nothing. With a folder, a picture of every page is left there. Needs Playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlparse

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Error, Request

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
WAIT = 180_000  # ms; for busy machines
SEARCHED = {"Sinkhorn": "vice", "void": "void", "microscope": "microscopes", "detectron2": "detectron2"}


class Links(HTMLParser):
    """A page's links and the names within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.names.add(value)
            if name in ("href", "src") and value:
                self.targets.add(value)


def dead_links() -> list[str]:
    """The links of all pages that lead to no file or no name in it."""
    pages = {page.as_uri(): Links(page.read_text("utf-8")) for page in SITE.rglob("*.html")}
    dead = []
    for uri, page in pages.items():
        for target in page.targets:
            there, name = urldefrag(urljoin(uri, target))
            if urlparse(there).scheme != "file" or uri.endswith("/404.html"):
                continue
            if not Path(unquote(urlparse(there).path)).exists():
                dead.append(f"{uri}: {target}")
            elif name and there in pages and unquote(name) not in pages[there].names | {"__tabbed"}:
                dead.append(f"{uri}: {target}")
    return dead


def look(browser: Browser, pictures: Path | None) -> list[str]:
    """Open every page in every width and scheme; what was wrong."""
    wrong: list[str] = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            context.set_default_timeout(WAIT)
            page = context.new_page()
            page.on("request", partial(_note_request, wrong))
            page.on("pageerror", partial(_note_error, wrong))
            for file in sorted(SITE.rglob("*.html")):
                if file.name == "404.html":
                    continue
                page.goto(file.as_uri())
                name = f"{file.relative_to(SITE).with_suffix('').as_posix()} {width} {scheme}"
                if page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
                    wrong.append(f"{name}: wider than the window")
                missing = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
                wrong += [f"{name}: no picture {source}" for source in page.evaluate(missing)]
                if pictures is not None:
                    target = pictures / f"{name.replace('/', '_').replace(' ', '_')}.png"
                    page.screenshot(path=target)
            context.close()
    return wrong


def _note_request(wrong: list[str], asked: Request) -> None:
    if not asked.url.startswith(("file:", "data:", "blob:")):
        wrong.append(f"asked for {asked.url}")


def _note_error(wrong: list[str], error: Error) -> None:
    wrong.append(f"a script failed: {error}")


def searched(browser: Browser) -> list[str]:
    """Words that the search, without a server, doesn't find on the page that has them."""
    wrong = []
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    for words, wanted in SEARCHED.items():
        page.goto((SITE / "index.html").as_uri())
        page.locator("input[name=query]").click()
        page.keyboard.type(words)
        page.wait_for_selector(".md-search-result__link")
        found = page.eval_on_selector_all(".md-search-result__link", "all => all.map(one => one.href)")
        if not any(wanted in link for link in found):
            wrong.append(f"the search for {words} finds {found[:5]}")
    return wrong


def main(pictures: Path | None) -> int:
    """All checks; 1 if anything is wrong."""
    with sync_playwright() as started:
        here = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=here, args=["--no-sandbox"])
        wrong = [*dead_links(), *look(browser, pictures), *searched(browser)]
        browser.close()
    sys.stdout.write("\n".join([*wrong, f"{len(wrong)} things are wrong", ""]))
    return int(bool(wrong))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    sys.exit(main(folder))
