"""What notebooks show of objects: nothing runs, nobody is asked, and names are only names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from named_runs import make_run
from selfseg import PixelClusterer
from selfseg.collection.clusters import load_clusters
from selfseg.collection.opening import load
from selfseg.data.labelled.legend import Legend
from selfseg.evaluation.measure.results import Results
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.pages.shown_path import ShownPath, ShownPaths
from selfseg.segmenter.segmenter import Segmenter
from selfseg.showing import bar, card, swatch, table
from selfseg.studio.carrying.naming import name_clusters
from selfseg.types import EvalResult

EVIL = "<script>alert('x')</script>\" onload='y"
"""A name that would run, if it were not escaped."""


class Reader(HTMLParser):
    """The tags and attributes of some HTML, and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def read(html: str | None) -> str:
    """The words of what a notebook shows, which has to stand alone."""
    assert html is not None
    reader = Reader(html)
    assert not reader.open, "every tag is closed"
    for tag, attributes in reader.tags:
        assert tag not in ("script", "style", "link", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on")]
        assert "url(" not in (attributes.get("style") or "")
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/")
            assert "max-width:100%" in (attributes["style"] or "")  # narrow windows
        if tag == "a":
            assert not re.match("[a-z]+:", attributes["href"] or ""), "nothing but what lies beside the notebook"
        # The notebook's own colours, which fit a dark and a light one.
        assert not re.search(r"(^|;)\s*color:(?!#)", attributes.get("style") or "")
    assert html.count("<table") == html.count('<div style="overflow-x:auto;max-width:100%"><table')
    return reader.words


def result(**others: object) -> EvalResult:
    made = EvalResult(
        "clusters", 1, "embedder", EVIL, "val", "train", {"miou": 0.3124, "miou_std": 0.0101, "accuracy": 0.75},
        (EVIL, "sky"), (0.5, None), ((5, 1), (0, 0)), "majority", 5, 64, "none", False, (0, 1, 2),
        {"images": 4, "pixels": 6, "void": 1},
    )  # fmt: skip
    return replace(made, **others)


def test_warnings_come_first_and_what_is_a_colour_is_nothing_else() -> None:
    words = read(card("title", warnings=["look out"], headline="much"))
    assert words.index("look out") < words.index("title") < words.index("much")
    for evil in ("red;background:url(https://example.org)", EVIL, ""):
        assert "example" not in swatch(evil) + bar(0.5, evil)
        read(str(swatch(evil) + bar(0.5, evil)))
    assert "#ff8000" in swatch("#ff8000")
    assert "60 more classes are not shown" in read(str(table(["n"], [[n] for n in range(100)], what="classes")))


def test_a_result_is_a_number_with_its_interval_and_its_doubts() -> None:
    one = result()
    words = read(one._repr_html_())
    assert EVIL in words
    assert words.index("not one pixel of") < words.index("mIoU 0.312 ± 0.010")
    assert "standard deviation over 3 seeds" in words
    assert "The labels of" in words  # who named the clusters
    assert "\n" not in repr(one)
    assert len(repr(one)) < 250
    assert "mIoU 0.312 ± 0.010" in repr(one)
    alone = read(result(seeds=(0,))._repr_html_())
    assert "±" not in alone
    assert "It was measured once" in alone


def test_results_are_a_table_and_still_a_list() -> None:
    both = Results([result(), result(what="colour", metrics={"miou": 0.1, "miou_std": 0.0, "accuracy": 0.2})])
    words = read(both._repr_html_())
    assert words.index("not one pixel of") < words.index("0.312 ± 0.010")
    assert "0.100" in words
    assert both == list(both)
    assert len(repr(both).splitlines()) == 3
    read(Results()._repr_html_())


def test_what_a_run_gives_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "recipe.yaml").write_text("name: vice_small\nsteps: 600\nbatch_size: 8\nseed: 3\n")
    embedder = load(run, "cpu")
    assert "learned with vice_small, 600 steps of 8 images, seed 3" in " ".join(read(embedder._repr_html_()).split())
    assert "\n" not in repr(embedder)
    assert len(repr(embedder)) < 300
    assert "backbone=test_resnet" in repr(embedder)
    assert "perhaps random weights" in read(Embedder(replace(embedder.config, dim=4))._repr_html_())

    folder = name_clusters(run, {3: "road", 1: EVIL})
    clusters = load_clusters(run, 5)
    assert clusters.names == {3: "road", 1: EVIL}
    words = read(clusters._repr_html_())
    assert "3 of 5 clusters have no name yet, 60.0% of the pixels." in words
    assert words.count("20.0 %") == 5
    assert EVIL in words
    assert repr(clusters) == "Clusters(k=5, of 6 images, 2 of them named)"
    segmenter = Segmenter.load(folder)
    for shown in (segmenter._repr_html_(), folder._repr_html_()):  # type: ignore[attr-defined]
        assert EVIL in read(shown)
    assert "3 of its 5 clusters have no name: their pixels become void" in read(segmenter._repr_html_())
    assert repr(segmenter).startswith("Segmenter(classes=road, ")
    for path in (run, run / "clusters/k5.json"):
        read(ShownPath(path)._repr_html_())
    assert "k = 5" in read(ShownPath(run)._repr_html_())
    assert read(ShownPaths([run / "clusters/k5.json"])._repr_html_()).count("photo0") == 5


def test_names_of_other_clusters_are_not_taken(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    name_clusters(run, {3: "road"})
    for change in ({"k": 6}, {"embedder": "another"}, {"names": 3}):
        file = run / "segmenter/segmenter.json"
        values = json.loads(file.read_text())
        values["about"] |= change
        file.write_text(json.dumps(values))
        assert load_clusters(run, 5).names == {}


@pytest.mark.parametrize("kind", ["masks", "index"])
def test_a_folder_of_masks_shows_some_of_them(tmp_path: Path, kind: str) -> None:
    (tmp_path / "overlay").mkdir()
    for number in range(6):
        picture = np.full((900, 1200, 3), number, np.uint8)
        Image.fromarray(picture).save(tmp_path / "overlay" / f"<b>{number}.jpg")
    (tmp_path / "overlay" / "broken.jpg").write_bytes(b"no picture")
    rows = [{"value": 0, "name": EVIL, "colour": "url(https://example.org)", "share": 0.25}]
    about = {"classes": rows, "images": 6, "void": {"value": 255, "share": 0.75}}
    (tmp_path / "legend.json").write_text(json.dumps(about if kind == "masks" else {"clusters": rows}))
    (tmp_path / "skipped.jsonl").write_text('{"name": "a", "reason": "empty"}\n' * 2)
    html = ShownPath(tmp_path)._repr_html_()
    words = read(html)
    assert words.index("1 image could not be used") < words.index("25.0 %")
    assert html is not None
    assert "example.org" not in html
    assert html.count("<img") in (3, 4)  # without the broken one, if it was among the four
    assert 'width="320" height="240"' in html
    (tmp_path / "legend.json").write_text("[]")
    assert ShownPath(tmp_path)._repr_html_() is None


def test_pages_are_linked_where_a_notebook_can_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path("a \"b'.html")
    page.write_text("<p>")
    assert 'href="a%20%22b%27.html"' in (ShownPath(page)._repr_html_() or "")
    assert "href" not in (ShownPath(page.resolve())._repr_html_() or "href")
    assert ShownPath("nothing.html")._repr_html_() is None
    assert ShownPath(tmp_path)._repr_html_() is None


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    shown = ShownPath(tmp_path / "a")
    assert isinstance(shown, Path)
    assert shown == tmp_path / "a"
    assert hash(shown) == hash(tmp_path / "a")
    assert shown / "b" == tmp_path / "a" / "b"
    assert f"{shown}" == str(tmp_path / "a")
    assert ShownPaths([shown]) == (tmp_path / "a",)


def test_an_estimator_says_whether_it_was_fitted() -> None:
    assert "call fit(images)" in read(PixelClusterer(k=3)._repr_html_())


def test_a_segmenter_of_weights_needs_no_clusters() -> None:
    embedder = Embedder(EmbedderConfig(backbone="test_resnet", dim=4, output_stride=32, resolution=64))
    read(Segmenter(embedder, Legend.of(["a", "b"]), torch.eye(4)[:2])._repr_html_())
