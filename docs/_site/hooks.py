"""What MkDocs calls while it builds the site: pages made from the code, and links that leave docs/.

The pages of docs/ are read on their own, too, as files of the repository. So they are not changed for the site; what it
needs otherwise is done here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cli_pages
from dialect import for_python_markdown
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Pages that lie beside docs/, and where they are in the site.
BESIDE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
COMMANDS = "reference/cli.md"
WIDE = ("papers.md",)  # pages whose tables need the place of the table of contents

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
_CODE = re.compile(r"<code>([^<]*)</code>")
_OPTION = re.compile(r"(?<![\w-])--[a-z0-9]+")
_FENCED = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside docs/, the files that pages link to, and the command line."""
    sources = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for name, place in BESIDE.items():
        sources[name] = (ROOT / name).read_text("utf-8")
        files.append(File.generated(config, place, content=sources[name]))
    for source, text in sources.items():
        for target in outside_links(source, text):
            place = f"repository/{target}"
            if (ROOT / target).is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    files.append(File.generated(config, COMMANDS, content=cli_pages.page(ROOT)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into the site's, and GitHub's Markdown into Python-Markdown's."""
    place = page.file.src_uri
    if place in WIDE:
        page.meta["hide"] = ["toc"]
    source = next((name for name, there in BESIDE.items() if there == place), f"docs/{place}")

    def relink(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target.startswith("docs/"):
            wanted = target.removeprefix("docs/")
        elif target in BESIDE:
            wanted = BESIDE[target]
        elif (ROOT / target).is_file():
            wanted = f"repository/{target}"
        else:
            return match[0]  # MkDocs tells that it is not there
        return posixpath.relpath(wanted, posixpath.dirname(place) or ".") + (match[2] or "")

    for target in outside_links(source, markdown):
        if (ROOT / target).is_dir():
            raise PluginError(f"{source} links to the folder {target}, which a site can't show: link to a file in it")
    pieces, last = [], 0
    for fence in _FENCED.finditer(markdown):
        pieces += [_LINK.sub(relink, markdown[last : fence.start()]), fence[0]]
        last = fence.end()
    return for_python_markdown("".join([*pieces, _LINK.sub(relink, markdown[last:])]))


def on_page_content(html: str, **_: object) -> str:
    """Keep the dashes of an option together with its first word where a line ends."""
    return _CODE.sub(lambda code: _OPTION.sub(r'<span class="option">\g<0></span>', code[0]), html)


def outside_links(source: str, text: str) -> Iterator[str]:
    """Files and folders of the repository, outside of docs/, that a page links to."""
    for match in _LINK.finditer(_FENCED.sub("", text)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if not target.startswith(("docs/", "../")) and target not in BESIDE:
            yield target
