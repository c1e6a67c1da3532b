import base64
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from selfseg.collection.clustering import cluster
from selfseg.collection.reporting.health import Verdict
from selfseg.collection.reporting.report import _headline, report
from selfseg.data.regions import Superpixels
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.errors import DataError, RunError
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.types import EvalResult


class Page(HTMLParser):
    """What a page loads, links to and shows."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.images, self.ids, self.links, self.words = [], [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "img" and attributes.get("src"):
            self.images.append(attributes["src"])
        if tag == "a":
            self.links.append(attributes["href"])
        else:
            self.loads += [attributes[name] for name in ("src", "href", "srcset", "data") if attributes.get(name)]

    def handle_data(self, data):
        self.words.append(data)


def read(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(load.startswith("data:") for load in page.loads)
    assert not re.search(r"url\(|@import|https?://", text)
    assert all(link.lstrip("#") in page.ids for link in page.links if link.startswith("#"))
    for uri in page.images:
        data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR) is not None
    return page


def write_photographs(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        image = cv2.resize(rng.integers(0, 255, (4, 6, 3), np.uint8), (97, 61), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"photo <{i}>.png"), image)
    return folder


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my run"
    torch.manual_seed(0)
    Embedder(EmbedderConfig(output_stride=32, decoder="fpn", dim=8, resolution=64)).save(folder / "embedder")
    images = write_photographs(tmp_path / "images", 4)
    plan = ContentCentredViews(views=2, size=32, short_side=64, regions=Superpixels(16), region_stride=4)
    views = {"kind": "ContentCentredViews", **asdict(plan), "regions": {"kind": "Superpixels", **asdict(plan.regions)}}
    recipe = {"kind": "Recipe", "name": "small", "images": str(images), "method": {"views": views}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return folder


def write_log(run, steps):
    lines = (
        {"step": s, "epoch": s / 4, "progress": s / steps, "loss": 4.8 - s / steps, "lr": 0.1, "loss_uniform": 4.852}
        for s in range(1, steps + 1)
    )
    (run / "log.jsonl").write_text("".join(json.dumps({**line, "time": 1e9 + line["step"]}) + "\n" for line in lines))


def result(what, protocol, miou, k=None):
    return EvalResult(
        protocol, 1, what, "street", "val", "train", {"miou": miou, "miou_std": 0.01, "accuracy": 0.5}, ("sky", "road"),
        (miou, None), ((1, 0), (0, 1)), "hungarian" if k else "none", k, 64, "none", False, (0, 1), {"images": 3},
    )  # fmt: skip


@pytest.mark.slow
def test_a_whole_run(run):
    write_log(run, 50)
    cluster(run, run.parent / "images", k=(3, 5), points=400, device="cpu", progress=False)
    (run / "results").mkdir()
    for i, one in enumerate(
        [
            result("colours", "clusters", 0.25, 3),
            result("embedder", "clusters", 0.75, 3),
            result("flat", "constant", 0.1),
        ]
    ):
        (run / "results" / f"{i}.json").write_text(json.dumps(one.to_dict()))
    (run / "skipped.jsonl").write_text('{"name": "dark", "reason": "truncated", "detail": ""}\n{"name": "cut')
    (run / "pictures").mkdir()
    assert cv2.imwrite(str(run / "pictures" / "views0.png"), np.zeros((20, 30, 3), np.uint8))
    path = report(run, device="cpu", progress=False)
    page = read(path)
    assert {"learning", "pictures", "clusters", "curves", "results", "training", "skipped", "next"} <= page.ids
    assert {"panel-3", "panel-5", "tab-3", "tab-5"} <= page.ids
    words = " ".join(page.words)
    assert "sky taken for sky: 100.0 %" in page.words
    assert "Which class is taken for which" in page.words
    assert words.count("taken for road") == 1  # of the embedder's one protocol alone
    for piece in ("my run", "small", "The loss has fallen", "0.750", "0.250", "0.100", "truncated", "selfseg segment"):
        assert piece in words
    assert words.index("0.750") < words.index("0.250")  # the embedder first
    # 4 photographs with embedding and two clusterings, the stored views, three pictures of regions, and thumbnails.
    assert len(page.images) >= 4 * 4 + 1 + 3 + 8
    assert path.stat().st_size < 2e6
    assert "photo <0>" not in path.read_text()  # names are escaped


@pytest.mark.slow
def test_what_it_holds_for_foreground_is_a_column_where_there_is_such_a_head(run):
    torch.manual_seed(0)
    config = EmbedderConfig(output_stride=32, decoder="fpn", dim=8, resolution=64, saliency=True)
    without = len(read(report(run, count=2, progress=False)).images)
    Embedder(config).save(run / "embedder")
    (run / "log.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": 1.0, "found": s / 4, "saliency_iou": 0.5}) + "\n" for s in (1, 2, 3))
    )
    page = read(report(run, count=2, progress=False))
    assert len(page.images) == without + 2
    assert page.words.count("foreground") == 3  # the column's head, and under both pictures
    assert "pixels nearest to their own object" in page.words
    assert "foreground: overlap with the masks" in page.words


def test_the_images_shown_are_those_learned_from(run):
    (run.parent / "images" / "a broken one.png").write_bytes(b"")
    (run / "images.json").write_text(json.dumps({"photo <1>": "photo <1>.png", "photo <3>": "photo <3>.png"}))
    page = read(report(run, count=3, device="cpu", progress=False))
    words = " ".join(" ".join(page.words).split())
    assert page.words.count("embedding") == 1 + 2  # the column's head, and under both pictures
    assert "images 2" in words
    assert "could not be read" not in words


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["loss", "rank"],
            "No fault was found in what can be counted. No number can say whether what it found means",
        ),
        (["speed", "rank"], "Too little was logged to say. No fault was found in what could be checked: "),
        ([], "Nothing to judge yet."),
    ],
)
def test_what_was_not_judged_is_not_praised(names, sentence):
    assert _headline(True, [Verdict(name, "ok", "", 0.0) for name in names])[1].startswith(sentence)


def test_a_run_without_any_step_says_so():
    level, sentence = _headline(False, [Verdict("rank", "ok", "", 0.0)])
    assert level == "none"
    assert sentence.startswith("Nothing was trained")


def test_without_clusters_results_or_log(run):
    page = read(report(run, device="cpu", progress=False))
    assert {"learning", "pictures", "next"} <= page.ids
    assert not {"clusters", "curves", "results", "skipped"} & page.ids
    assert any("selfseg cluster" in word for word in page.words)


def test_of_one_image(run, tmp_path):
    write_log(run, 1)
    page = read(report(run, images=write_photographs(tmp_path / "one", 1), device="cpu", progress=False))
    assert len(page.images) == 2 + 2  # photograph, embedding, regions, views


def test_before_there_is_an_embedder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: small\nimages: nowhere\n")
    write_log(tmp_path, 20)
    page = read(report(tmp_path, progress=False))
    assert "curves" in page.ids
    assert any("no embedder yet" in word for word in page.words)
    assert any("nowhere does not exist" in word for word in page.words)


def test_a_failing_run_is_told_loudly(run):
    lines = [{"step": s, "progress": s / 400, "loss": 4.852, "loss_uniform": math.log(128)} for s in range(1, 401)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report(run, device="cpu", progress=False).read_text()
    assert 'class="answer bad"' in text


@pytest.mark.slow
def test_the_same_colours_again(run):
    first = read(report(run, device="cpu", progress=False)).images
    assert read(report(run, device="cpu", progress=False)).images == first


def test_count_and_bad_requests(run, tmp_path):
    assert len(read(report(run, count=2, device="cpu", progress=False)).images) == 2 * 2 + 2 * 2
    with pytest.raises(RunError, match="no run at"):
        report(tmp_path / "nothing")
    with pytest.raises(DataError, match="does not exist"):
        report(run, images=tmp_path / "nothing", device="cpu", progress=False)
