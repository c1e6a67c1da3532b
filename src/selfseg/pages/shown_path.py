"""A path that a notebook shows by what lies there: what functions give back that write files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from PIL import Image

from selfseg.drawing.pictures import data_uri, fit_within
from selfseg.pages.cards import clusters_card, legend_rows, said_of_skipped
from selfseg.showing import card, facts, learned_with, note, pictures
from selfseg.storage.files import read_json
from selfseg.storage.reading import objects_of_lines, read_recipe_values

if TYPE_CHECKING:
    _Base = Path
else:  # before Python 3.12, Path itself is no base
    _Base = type(Path())

_PICTURES, _LONGEST = 4, 320
_LOOKED_THROUGH = 1000  # files
_SAYS_MOST = 1 << 24  # of a list of skipped images


class ShownPath(_Base):
    """A path as any other; as the last line of a notebook's cell, it shows what lies there.

    Of a folder of masks that is the legend and some of the photographs under their masks, of a run what it was made
    with, of a page its name. Files are read when they are shown, and not before. Of anything else it is a plain path.

    Example:
        >>> ShownPath("runs/photos") == Path("runs/photos")
        True
    """

    def _repr_html_(self) -> str | None:
        for look in (_masks, _segmenter, _run, _clusters, _embeddings, _page):
            try:
                found = look(self)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, or a stranger's
                continue
            if found is not None:
                return found
        return None


class ShownPaths(tuple[Path, ...]):
    """Paths as any other tuple; a notebook shows what lies at each."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        shown = [ShownPath(path)._repr_html_() for path in self]
        return "".join(filter(None, shown)) or None


def _masks(path: Path) -> str | None:
    """What `segment` and `apply` write."""
    if not (path / "legend.json").is_file():
        return None
    legend = read_json(path / "legend.json")
    classes = legend.get("classes") or legend["clusters"]
    kind = "masks" if "classes" in legend else "index"
    told = [("masks", str(path / kind))]
    told += [("images", f"{legend['images']:,}")] if isinstance(legend.get("images"), int) else []
    void = legend.get("void", {}).get("share")
    told += [("void, of the pixels", f"{void:.1%}")] if isinstance(void, float) else []
    shown = pictures(islice(_overlays(path / "overlay"), _PICTURES))
    title = "Masks of classes" if "classes" in legend else "Masks of clusters"
    return card(title, facts(told), shown, legend_rows(classes), warnings=_skipped(path))


def _overlays(folder: Path) -> Iterator[tuple[str, int, int, str]]:
    """Some of the pictures in a folder, evenly spread over it."""
    files = sorted(islice(folder.rglob("*.jpg"), _LOOKED_THROUGH))
    for place in np.unique(np.linspace(0, len(files) - 1, _PICTURES).astype(int)) if files else ():
        name = files[place].relative_to(folder).with_suffix("").as_posix()
        with suppress(OSError, ValueError, Image.DecompressionBombError), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is read smaller than it is
            with Image.open(files[place], formats=("JPEG",)) as opened:
                opened.draft("RGB", (_LONGEST, _LONGEST))
                seen = fit_within(np.asarray(opened.convert("RGB")), _LONGEST)
            yield data_uri(seen, 80), seen.shape[1], seen.shape[0], name


def _segmenter(path: Path) -> str | None:
    """What `name_clusters` writes."""
    if not (path / "segmenter.json").is_file():
        return None
    values = read_json(path / "segmenter.json")
    told = [("folder", str(path)), ("void", values["void"])]
    return card("A segmenter", facts(told), legend_rows(values["classes"]))


def _run(path: Path) -> str | None:
    """What `train` writes."""
    if not (path / "embedder" / "embedder.json").is_file():
        return None
    made_of, recipe = read_json(path / "embedder" / "embedder.json"), read_recipe_values(path)
    told = [("folder", str(path)), ("learned with", learned_with(recipe) or "not known")]
    told += [("backbone", made_of["backbone"]), ("began from", str(made_of.get("start") or "not known"))]
    clusters = sorted(int(file.stem[1:]) for file in (path / "clusters").glob("k*.safetensors"))
    told += [("clusters", ", ".join(f"k = {k}" for k in clusters))] if clusters else []
    said = _skipped(path)
    return card("A run", facts(told), warnings=said)


def _clusters(path: Path) -> str | None:
    """What `cluster` writes."""
    if path.parent.name != "clusters" or path.suffix != ".json":
        return None
    values = read_json(path)
    listed = values.pop("clusters")
    shares, typical = [float(one["share"]) for one in listed], [list(map(str, one["typical"])) for one in listed]
    return clusters_card(shares, typical, {}, values)


def _embeddings(path: Path) -> str | None:
    """What `embed` writes."""
    if path.name != "index.json":
        return None
    values = read_json(path)
    told = [("folder", str(path.parent)), ("numbers in a vector", values["dim"])]
    told += [("images", f"{len(values['images']):,}")] if "images" in values else []
    return card("Embeddings", facts(told), note("For each image NAME.npy, a (D, h, w) array of float16."))


def _page(path: Path) -> str | None:
    """What `report` and its like write: a notebook can only lead to what lies below its own folder."""
    if path.suffix != ".html" or not path.is_file():
        return None
    size = f"{path.stat().st_size / 2**20:.1f} MB"
    if path.is_absolute() or ".." in path.parts:
        where = Markup("<code>{}</code>").format(str(path))
    else:
        where = Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(quote(path.as_posix()), str(path))
    return card("A page, to be opened in a browser", facts([("size", size)]), where)


def _skipped(path: Path) -> list[str]:
    file = path / "skipped.jsonl"
    if not file.is_file() or file.stat().st_size > _SAYS_MOST:
        return []
    names = {str(entry.get("name")) for entry in objects_of_lines(file.read_text("utf-8", errors="replace"))}
    return [said_of_skipped(len(names))] if names else []
