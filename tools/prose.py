"""List the longest sentences of the README and the documentation: `python tools/prose.py [--count 50] [FILE ...]`.

Code blocks, tables, headings and pictures are left out. A link counts with its words, and what stands in backticks is
one word. An entry of a list begins a sentence. The first number of a line is how many words the sentence has.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^ *(```|~~~).*?^ *\1", re.MULTILINE | re.DOTALL)
LEFT_OUT = re.compile(r"^ *(\||#|!\[|<|[-=]{3,}$)")
ENTRY = re.compile(r"^ *([-*+]|\d+\.) +")
END = re.compile(r"(?<=[.!?])[)\"”*_]*\s+")
ABBREVIATED = re.compile(r"\b(e\.g|i\.e|cf|vs|et al|approx)\.$", re.IGNORECASE)


def pages(root: Path = ROOT) -> list[Path]:
    """README, CONTRIBUTING, SECURITY and every page of docs."""
    return [
        *(root / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
        *sorted((root / "docs").rglob("*.md")),
    ]


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each paragraph or list entry, without what is no prose."""
    text = FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)
    start, lines = 0, []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        begins = ENTRY.match(line) is not None
        if (not line.strip() or begins or LEFT_OUT.match(line)) and lines:
            yield start, " ".join(lines)
            lines = []
        if line.strip() and not LEFT_OUT.match(line):
            start = start if lines else number
            lines.append(ENTRY.sub("", line).strip())


def plain(text: str) -> str:
    """A paragraph as it is read: code is one word, a link its words."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "`code`", text)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """(line on which its paragraph begins, sentence) of each sentence of a page."""
    for line, paragraph in paragraphs(text):
        held = ""
        for part in END.split(plain(paragraph)):
            held = f"{held} {part}".strip()
            if not ABBREVIATED.search(held):
                yield line, held
                held = ""
        if held:
            yield line, held


def longest(files: list[Path]) -> list[tuple[int, str, int, str]]:
    """(words, file, line, sentence) of every sentence, the longest first."""
    found = [
        (len(sentence.split()), str(file), line, sentence)
        for file in files
        for line, sentence in sentences(file.read_text("utf-8"))
    ]
    return sorted(found, key=lambda entry: -entry[0])


def main() -> None:
    """Print the longest sentences and how long sentences are on each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="all of these pages if not given")
    parser.add_argument("--count", type=int, default=50, help="how many sentences")
    options = parser.parse_args()
    files = options.files or [
        page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page for page in pages()
    ]
    found = longest(files)
    for words, file, line, sentence in found[: options.count]:
        print(f"{words:4}  {file}:{line}  {sentence}")
    print()
    for file in files:
        lengths = [words for words, name, _, _ in found if name == str(file)]
        if lengths:
            print(
                f"{file}: {len(lengths)} sentences, mean {sum(lengths) / len(lengths):.0f} words, longest {lengths[0]}"
            )


if __name__ == "__main__":
    main()
