"""The page of the command line, made of what each verb's --help-all prints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

INTRODUCTION = """# The command line

This page is made from the program itself: it has what `selfseg VERB --help-all` prints, for every verb. In the terminal
`selfseg VERB --help` shows the everyday options only.

Options may be written with dashes or underscores. A value in brackets may be left out; `INT [INT ...]` takes one number
or several. The training of each method has settings of its own: [an example is below](#selfseg-train-vice), and
`selfseg train RECIPE --help-all` prints those of any recipe.
"""
# One call for all verbs: starting Python and loading torch takes longer than printing.
PRINT_ALL = """
import contextlib, io, json, sys
from selfseg.cli import _VERBS, main
pages = {}
for words in [*([verb] for verb in _VERBS), ["train", "vice"]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*words, "--help-all"])
    pages[" ".join(words)] = out.getvalue() if code == 0 else ""
json.dump(pages, sys.__stdout__)
"""


@dataclass
class Option:
    """A line of a help: how the option is written, and what it does."""

    written: str
    words: list[str] = field(default_factory=list)


def page(root: Path) -> str:
    """The page, as Markdown; what is printed is kept in build/ for as long as the package's code stays as it is."""
    code = hashlib.sha256(PRINT_ALL.encode())
    for file in sorted((root / "src").rglob("*.py")):
        code.update(file.read_bytes())
    kept = root / "build" / "help" / f"{code.hexdigest()[:16]}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".part").write_text(json.dumps(printed(root)), "utf-8")
        kept.with_suffix(".part").replace(kept)
    return written(json.loads(kept.read_text("utf-8")))


def printed(root: Path) -> dict[str, str]:
    """What each verb prints; "" where it takes no options."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONUTF8": "1", "TERM": "dumb", "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_ALL], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the helps could not be printed: {done.stderr[-2000:]}")
    pages: dict[str, str] = json.loads(done.stdout)
    return pages


def written(pages: dict[str, str]) -> str:
    """The page of these helps."""
    return "\n".join([INTRODUCTION, *(_verb(verb, text) for verb, text in pages.items())])


def _verb(verb: str, text: str) -> str:
    title = f"## selfseg {verb}\n\n"
    lines = _without_boxes(text)
    # Below the name of a group of options is a rule from the second column on; rules within a group begin further in.
    rules = [number for number, line in enumerate(lines) if re.fullmatch(" -{40,}", line)]
    if not text.strip():
        return title + "It takes no options.\n"
    if not rules:
        return title + f"```text\n{text.strip()}\n```\n"
    # A list of names stands before the usage line of verbs that take a preset or a data set.
    before, _, usage = "\n".join(lines[: rules[0] - 1]).strip().rpartition("usage: ")
    usage, _, about = usage.partition("\n\n")
    parts = [title]
    if before.strip():
        parts.append(f"```text\n{before.strip()}\n```\n\n")
    parts += [f"```text\n{' '.join(usage.split())}\n```\n\n", _paragraphs(about), "\n"]
    for rule, following in zip(rules, [*rules[1:], len(lines) + 1], strict=True):
        name = lines[rule - 1].strip()
        options = _options([line[2:] for line in lines[rule + 1 : following - 1]])
        # A group may begin with a sentence on itself, which names no option.
        named = "positional" in name or "subcommand" in name
        options = [each for each in options if each.written[0] == "-" or named]
        options = [each for each in options if not each.written.startswith("-h, --help")]
        if options:
            parts.append(f"**{name[0].upper() + name[1:]}**\n\n")
            parts += [f"`{option.written}`\n:   {_meaning(option)}\n\n" for option in options]
    return "".join(parts)


def _without_boxes(text: str) -> list[str]:
    """The lines of a help; terminals that know frames get each group of options in one."""
    lines = []
    for line in text.split("\n"):
        if line.startswith("╭"):
            lines += [" " + line.strip("╭─╮ "), " " + 40 * "-"]
        elif line.startswith("│"):
            lines.append((" " + line.strip().strip("│").replace("─", "-")).rstrip())
        elif not line.startswith("╰"):
            lines.append(line.rstrip())
    return [*lines, ""]


def _paragraphs(about: str) -> str:
    return (
        "\n\n".join(escape(" ".join(each.split()), quote=False) for each in about.split("\n\n") if each.strip()) + "\n"
    )


def _options(lines: list[str]) -> list[Option]:
    """The options of a box, whose descriptions stand in a column of their own or in the lines below."""
    found: list[Option] = []
    for line in lines:
        if (line and line[0] not in " -") or (line.startswith("-") and line.strip("-")):
            mark, _, rest = line.partition("  ")
            found.append(Option(mark.strip(), [rest.strip()] if rest.strip() else []))
        elif found and line.strip(" -"):
            found[-1].words.append(line.strip())
    return found


def _meaning(option: Option) -> str:
    text = " ".join(option.words)
    match = re.search(r"\s*\(default: (.*?)\)$", text)
    default = ""
    if match:
        text = text[: match.start()]
        default = f" Default: `{match[1]}`." if match[1] else ""
    required = text.endswith("(required)")
    text = text.removesuffix("(required)").rstrip()
    text = text[:1].upper() + text[1:]
    if text and text[-1] not in ".!?":
        text += "."
    return escape(text, quote=False) + (" **Required.**" if required else "") + default
