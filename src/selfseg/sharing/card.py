"""The model card: the README.md that goes with a shared model, with the front matter that the hub reads.

It is made of facts that it is handed, and says what is not known. Images are counted in it and never named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from selfseg.errors import ConfigError
from selfseg.ops.channels import Channels
from selfseg.version import __version__

Kind = Literal["embedder", "segmenter"]

_PIPELINE: dict[str, str] = {"embedder": "image-feature-extraction", "segmenter": "image-segmentation"}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")


@dataclass(frozen=True)
class Network:
    """What a model knows of itself.

    Attributes:
        kind: what it is.
        facts: what it is made of, name to value.
        channels: of measured images; None = photographs.
        classes: lines of a Markdown table; none of an embedder.
    """

    kind: Kind
    facts: Mapping[str, str]
    channels: Channels | None = None
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Story:
    """What is known of a model beside what it is made of; a model alone knows none of it.

    Attributes:
        learned: how it came about, name to value: the recipe, how many images, steps.
        checks: sentences on whether it has learned something, made without labels.
        measured: lines of Markdown, a table of what was measured with labels.
        tags: further tags for the hub.
        notes: sentences that whoever uses it must know.
    """

    learned: Mapping[str, str] = field(default_factory=dict)
    checks: Sequence[str] = ()
    measured: Sequence[str] = ()
    tags: Sequence[str] = ()
    notes: Sequence[str] = ()


def cell(text: str) -> str:
    r"""A text inside of Markdown, whatever is in it: it begins no table, link, tag or code.

    Example:
        >>> cell("a|b\n<c>")
        'a\\|b \\<c\\>'
    """
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|~&" else c for c in " ".join(text.split()))


def fact_table(facts: Mapping[str, str]) -> list[str]:
    """Lines of Markdown: a table of names and values."""
    return ["| | |", "|---|---|", *(f"| {cell(name)} | {cell(value)} |" for name, value in facts.items() if value)]


def channel_table(channels: Channels) -> list[str]:
    """Lines of Markdown: the range of each channel of measured images."""
    lines = ["| channel | place in a file | low | high |", "|---|---|---|---|"]
    rows = zip(channels.names, channels.take, channels.low, channels.high, strict=True)
    return lines + [
        f"| {cell(name)} | {place} of 0 to {channels.of - 1} | {low:.6g} | {high:.6g} |"
        for name, place, low, high in rows
    ]


def checked_licence(licence: str | None) -> str | None:
    """A licence as the hub writes it.

    Raises:
        ConfigError: if it can't be one.

    Example:
        >>> checked_licence("Apache-2.0"), checked_licence(None)
        ('apache-2.0', None)
    """
    if licence is None:
        return None
    found = licence.strip().lower()
    if not _LICENCE.fullmatch(found):
        raise ConfigError(
            f"{licence!r} is no name of a licence; the hub calls them apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0 or "
            "other, see https://huggingface.co/docs/hub/repositories-licenses"
        )
    return found


def model_card(network: Network, story: Story, place: str, licence: str | None = None, repo: str = "") -> str:
    """The text of README.md.

    Args:
        network: what the model is.
        story: how it came about.
        place: the folder's name.
        licence: see `checked_licence`; None = none is given, which the card says.
        repo: USER/NAME on the hub, if that is known.

    Returns:
        Markdown with YAML front matter, which ends with a line break.
    """
    tags = ["selfseg", "self-supervised-learning", "semantic-segmentation", *story.tags]
    front: dict[str, Any] = {"library_name": "selfseg", "pipeline_tag": _PIPELINE[network.kind]}
    front |= {} if licence is None else {"license": licence}
    front["tags"] = list(dict.fromkeys(tags))
    named = repo.rpartition("/")[2] or ("A named segmenter" if network.kind == "segmenter" else "A dense embedder")
    segmenter = network.kind == "segmenter"
    what = (
        "It says for every pixel of an image which of the classes below it shows, or that it shows none of them."
        if segmenter
        else "It turns an image into a vector for every place. Places that look alike to it have vectors that point in "
        "like directions. It has no classes."
    )
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {cell(named)}", "", what]
    lines += [f"It was written by selfseg {__version__}, which is needed to use it.", "", "## Use it", ""]
    lines += _use(network, repo, place)
    if segmenter:
        lines += ["", "## Classes", "", *network.classes]
    lines += ["", "## What it is made of", "", *fact_table(network.facts)]
    if network.channels is not None:
        lines += ["", "Images are measured ones. Of each channel this range becomes the levels 1 to 255:", ""]
        lines += channel_table(network.channels)
    lines += ["", "## What it learned from", ""]
    lines += fact_table(story.learned) if story.learned else ["Not known: it was written without its run."]
    lines += ["", "## Has it learned something?", ""]
    lines += [f"- {cell(check)}" for check in story.checks] or ["This was not checked."]
    lines += ["", "## What was measured with labels", ""]
    lines += story.measured or [_UNMEASURED[network.kind]]
    lines += [
        "",
        "## What is not known",
        "",
        *(f"- {cell(note)}" for note in (*story.notes, *_unknown(network, story))),
    ]
    lines += ["", "## Licence", "", _terms(licence)]
    return "\n".join(lines) + "\n"


_UNMEASURED = {
    "embedder": "Nothing. So it is not known how well its vectors tell things apart.",
    "segmenter": "Nothing. So it is not known how often its masks are right. Look at some before you rely on them.",
}


def _unknown(network: Network, story: Story) -> list[str]:
    found = ["How it does on images that are unlike those it learned from."]
    if not network.facts.get("weights began from"):
        found.append("What its weights began from.")
    if network.kind == "segmenter":
        found.append("How sure it is: its probabilities are not calibrated.")
    found.append("Whether it treats people, places or things unequally. Nobody has looked.")
    return found


def _terms(licence: str | None) -> str:
    if licence is not None:
        return f"The one who shares this chose {cell(licence)}."
    return (
        "None is given yet, so nobody has been allowed to use this for more than looking at it. Whoever owns it can "
        "choose one: write it again with `--license NAME`, such as `apache-2.0` or `cc-by-4.0`. What can be chosen "
        "depends on the images it learned from, and on the weights it began from."
    )


def _use(network: Network, repo: str, place: str) -> list[str]:
    name, where = (repo, "") if repo else (place, "  # this folder, or USER/NAME on the hub")
    photo = "photo.jpg" if network.channels is None else "image.tif"
    fetched = repo or "USER/NAME"
    if network.kind == "segmenter":
        code = [
            f"segmenter = selfseg.Segmenter.from_pretrained({name!r}){where}",
            f"mask = segmenter({photo!r})  # (H, W), values of the classes below",
        ]
        folder = "segmenter"
        command = f"selfseg apply {folder} photos --out masks"
    else:
        code = [
            f"embedder = selfseg.Embedder.from_pretrained({name!r}){where}",
            f"vectors = embedder.embed({photo!r})  # (D, h, w), unit length over D",
        ]
        folder = "runs/shared/embedder"
        command = "selfseg cluster runs/shared photos -k 8"
    return [
        "```python",
        "import selfseg",
        "",
        *code,
        "```",
        "Or from the command line:",
        "```bash",
        f"hf download {fetched} --local-dir {folder}",
        command,
        "```",
        "The weights are safetensors and the settings JSON. Nothing here is unpickled, and nothing runs code of this "
        "repository.",
    ]
