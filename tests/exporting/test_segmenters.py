import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_scene
from named_runs import add_clusters, make_run
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, MissingExtra, RunError
from selfseg.exporting import segmenters
from selfseg.exporting.export import card_of, export
from selfseg.exporting.segmenter_graph import mask_of_network, run_graph, write_segmenter_graph
from selfseg.models.embedder import Embedder, Looks
from selfseg.segmenter.naming import from_clusters
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.studio.carrying.naming import name_clusters

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

SIZES = ((9, 7), (1, 40), (64, 64), (61, 83), (200, 131), (97, 333))
NAMES = {0: "road", 1: "<b>`sky`</b>", 2: "שמיים", 4: "road"}


def scene(height: int, width: int) -> np.ndarray:
    """Of any size."""
    image = Image.fromarray(draw_scene(3, 400, 300)[0]).resize((width, height), Image.Resampling.BILINEAR)
    noise = np.random.default_rng(0).normal(0, 5, (height, width, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def equal(graph: Path, segmenter: Segmenter) -> tuple[float, int]:
    """The share of pixels at which the graph and the network agree, over all sizes; how many values there were."""
    same = total = 0
    seen: set[int] = set()
    for size in SIZES:
        image = scene(*size)
        found, expected = run_graph(graph, image), mask_of_network(segmenter, image)
        assert found.shape == expected.shape == size
        same, total, seen = same + int((found == expected).sum()), total + found.size, seen | set(found.flat)
    return same / total, len(seen)


@pytest.fixture(scope="module")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs") / "run")
    name_clusters(run, NAMES, colours={"road": (1, 2, 3)})
    return run


@pytest.fixture(scope="module")
def exported(named_run: Path) -> Path:
    return export(named_run, "segmenter-onnx")


@pytest.mark.slow
def test_the_graph_gives_the_networks_classes_at_any_size(named_run: Path, exported: Path) -> None:
    assert exported == named_run / "export" / "segmenter.onnx"
    share, values = equal(exported, load_segmenter(named_run, "cpu"))
    assert share >= 0.99
    assert values == 4
    assert run_graph(exported, scene(20, 30)).dtype == np.uint8
    (given,) = onnx.load(exported).graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert onnx.load(exported).opset_import[0].version >= 17


@pytest.mark.slow
def test_names_and_colours_are_inside(named_run: Path, exported: Path) -> None:
    told = {prop.key: prop.value for prop in onnx.load(exported).metadata_props}
    legend = json.loads(told["legend"])
    assert Legend.from_json(legend["classes"]) == load_segmenter(named_run, "cpu").legend
    assert legend["void"] == 255
    assert told["input"] == "uint8 RGB (H, W, 3), any size"
    assert told["made_by"] == "selfseg"


@pytest.mark.slow
def test_the_cards_python_runs_as_it_is_printed(
    named_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_of(exported).read_text("utf-8")
    code = re.findall(r"```(\w+)\n(.*?)```", card, re.DOTALL)
    assert [language for language, _ in code] == ["python", "javascript", "cpp"]
    assert all(len(lines.strip().splitlines()) <= 12 for _, lines in code)
    Image.fromarray(scene(75, 100)).save(tmp_path / "photo.jpg")
    (tmp_path / "segmenter.onnx").write_bytes(exported.read_bytes())
    monkeypatch.chdir(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "selfseg"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "selfseg", None)  # without selfseg
    names: dict[str, Any] = {}
    exec(code[0][1], names)
    monkeypatch.undo()
    segmenter = load_segmenter(named_run, "cpu")
    assert list(names["shares"]) == list(segmenter.legend.names)
    expected = mask_of_network(segmenter, names["image"])
    assert np.mean(names["mask"] == expected) >= 0.99
    # The names are JavaScript's too, and none of them ends the block.
    listed = re.search(r"names = (\[.*?\]);", code[1][1])
    assert listed
    assert json.loads(listed[1]) == list(segmenter.legend.names)
    assert "`" not in code[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["merged", "position", "as they are", "above 255"])
def test_every_kind_of_segmenter_is_a_graph(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", resolution=None if kind == "as they are" else 64)
    if kind == "above 255":
        weight = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        bias = torch.randn(300, generator=torch.Generator().manual_seed(1)) / 3
        legend = Legend.of([f"class {i}" for i in range(299)])
        table = torch.tensor([*range(299), -1]).roll(150)
        segmenter = Segmenter(Embedder.load(run / "embedder"), legend, weight, bias, table).eval()
    else:
        rows, position = (60, 0.0) if kind == "merged" else (None, 0.8 if kind == "position" else 0.0)
        add_clusters(run, 5, rows, position)
        segmenter = from_clusters(run, 5, {0: "a", 1: "b", 2: "c"})
    with torch.no_grad():
        write_segmenter_graph(segmenter, {}, tmp_path / "a.onnx")
    share, values = equal(tmp_path / "a.onnx", segmenter)
    assert share >= 0.99
    assert values > 2
    if kind == "above 255":
        assert run_graph(tmp_path / "a.onnx", scene(8, 8)).dtype == np.int32


@pytest.mark.slow
def test_the_card_tells_what_is_not_in_the_graph(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", smooth=6.0)
    segmenter = from_clusters(run, 5, {0: "road", 1: "sky"}, looks=Looks((1.0, 2.0)))
    segmenter.save(tmp_path / "alone")
    card = card_of(export(tmp_path / "alone", "segmenter-onnx", tmp_path / "out.onnx")).read_text("utf-8")
    assert "superpixels of an image agree, which is not in the graph" in card
    assert "the graph looks once" in card
    assert "short side of 64 px" in card


def test_a_folder_is_a_segmenter_again(named_run: Path, tmp_path: Path) -> None:
    folder = export(named_run, "segmenter", tmp_path / "road and sky")
    export(named_run, "segmenter", folder)  # in place of an older one
    assert load_segmenter(folder, "cpu").digest() == load_segmenter(named_run, "cpu").digest()
    assert card_of(folder).is_file()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files than an export"):
        export(named_run, "segmenter", folder)


def test_a_run_without_names_is_told_how(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for format in ("segmenter", "segmenter-onnx"):
        with pytest.raises(RunError, match="selfseg name"):
            export(run, format)
    assert not (run / "export").exists() or not any((run / "export").iterdir())


@pytest.mark.slow
def test_a_graph_that_gives_other_classes_is_not_left(
    named_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its rows were in another order."""

    def turned(segmenter: Segmenter, facts: Any, path: Path) -> None:
        other = Segmenter(segmenter.embedder, segmenter.legend, segmenter.weight, table=segmenter.table.roll(1))
        write_segmenter_graph(other.eval(), facts, path)

    monkeypatch.setattr(segmenters, "write_segmenter_graph", turned)
    with pytest.raises(RunError, match=r"gives the network's class at \d+\.\d% of the pixels, at least 99%"):
        export(named_run, "segmenter-onnx", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed_is_an_extra(named_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtra, match=rf"needs the package {package}: .*selfseg\[onnx\]"):
            export(named_run, "segmenter-onnx", tmp_path / "a.onnx")
