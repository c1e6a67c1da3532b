from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from named_runs import add_clusters
from selfseg.collection.clusters import load_clusters
from selfseg.data.reading.images import read_image
from selfseg.errors import CheckpointError, ConfigError, RunError
from selfseg.models.embedder import Embedder
from selfseg.segmenter.naming import cluster_name, concentration, from_clusters, named
from selfseg.segmenter.segmenter import Segmenter
from selfseg.studio.carrying.naming import name_clusters


@pytest.mark.parametrize("kind", ["plain", "merged", "position", "merged above 256"])
def test_masks_are_the_clusters_with_names_for_numbers(run: Path, photos: Path, kind: str) -> None:
    k = 7
    rows = {"merged": 40, "merged above 256": 300}.get(kind)
    clusters = add_clusters(run, k, rows, position=0.7 if kind == "position" else 0.0)
    segmenter = from_clusters(run, k, {0: "road", 3: "sky", 5: "road", 6: "void"})
    assert segmenter.legend.names == ("road", "sky")
    assert segmenter.weight.shape[0] == (rows or k)
    seen = set()
    for path in sorted(photos.iterdir())[:3]:
        image = read_image(path)
        ids = clusters.assign(Embedder.load(run / "embedder").embed(image), image.shape[:2])
        expected = np.array([0, 255, 255, 1, 255, 0, 255], np.uint8)[ids]
        assert np.array_equal(segmenter(path), expected)
        seen |= set(np.unique(ids).tolist())
    assert len(seen) > 3


def test_classes_come_in_the_order_of_their_names_with_their_colours(run: Path) -> None:
    segmenter = from_clusters(run, 5, {4: "sky", 1: " road ", 0: "sky", 2: ""}, {"road": (9, 8, 7)})
    assert segmenter.legend.names == ("sky", "road")
    assert segmenter.legend.classes[1].colour == (9, 8, 7)
    assert segmenter.table.tolist() == [0, 1, -1, -1, 0]
    assert segmenter.about["names"] == {"4": "sky", "1": "road", "0": "sky"}


def test_names_are_one_form_of_what_was_typed() -> None:
    assert cluster_name("  cafe\u0301 ") == "caf\u00e9"
    assert [cluster_name(word) for word in ("void", "VOID ", "devoid", "")] == ["void", "void", "devoid", ""]
    for bad in ("two\nlines", "a\tb", "\x00", "a\u2028b"):
        with pytest.raises(ConfigError, match="control character"):
            cluster_name(bad)


@pytest.mark.parametrize(
    ("names", "colours", "words"),
    [
        ({5: "road"}, None, "no cluster 5; with k = 5 they are 0 to 4"),
        ({-1: "road"}, None, "no cluster -1"),
        ({}, None, "no cluster of .* has a name"),
        ({1: "Void", 2: " "}, None, "no cluster of .* has a name"),
        ({1: "road"}, {"sky": (1, 2, 3)}, "no class 'sky' to colour; there are road"),
    ],
)
def test_what_can_not_be_named_is_told(run: Path, names: dict[int, str], colours: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_clusters(run, 5, names, colours)  # type: ignore[arg-type]


def test_names_are_kept_changed_and_taken_away(run: Path) -> None:
    assert named(run) is None
    assert name_clusters(run, {0: "road", 1: "sky", 2: "tree"}, colours={"sky": (1, 1, 1)}) == run / "segmenter"
    name_clusters(run, {3: "road", 2: "void", 0: "street"})
    kept = named(run)
    assert kept is not None
    assert (kept.k, dict(kept.names)) == (5, {0: "street", 1: "sky", 2: "void", 3: "road"})
    assert kept.colours["sky"] == (1, 1, 1)
    name_clusters(run, {1: "", 2: ""})
    assert Segmenter.load(run / "segmenter").legend.names == ("road", "street")
    with pytest.raises(ConfigError, match=r"would take away the last class \(road, street\)"):
        name_clusters(run, {0: "", 3: ""})
    assert Segmenter.load(run / "segmenter").legend.names == ("road", "street")


def test_another_name_for_the_first_cluster_leaves_the_values_of_other_classes(run: Path) -> None:
    name_clusters(run, {0: "road", 1: "sky", 2: "road"})
    name_clusters(run, {0: "car", 3: "tree"})
    assert Segmenter.load(run / "segmenter").legend.names == ("road", "sky", "car", "tree")
    name_clusters(run, {1: "road", 0: "sky", 4: "moon"})
    assert Segmenter.load(run / "segmenter").legend.names == ("road", "sky", "tree", "moon")


def test_names_of_one_k_say_nothing_of_another(run: Path) -> None:
    add_clusters(run, 7)
    name_clusters(run, {4: "road"}, k=5)
    with pytest.raises(ConfigError, match=r"k = 5, which do not fit k = 7; go on with -k 5"):
        name_clusters(run, {6: "sky"}, k=7)
    with pytest.raises(ConfigError, match="no cluster 6"):  # without -k it is that of the names
        name_clusters(run, {6: "sky"})
    with pytest.raises(RunError, match="no clusters with k = 6"):
        from_clusters(run, 6, {0: "road"})


def test_names_of_an_earlier_embedder_are_not_kept(run: Path) -> None:
    name_clusters(run, {0: "road"})
    torch.manual_seed(9)
    Embedder(Embedder.load(run / "embedder").config).save(run / "embedder")
    assert named(run) is None
    with pytest.raises(RunError, match="earlier embedder"):
        name_clusters(run, {1: "sky"})
    add_clusters(run, 5)
    name_clusters(run, {1: "sky"})
    kept = named(run)
    assert kept is not None
    assert dict(kept.names) == {1: "sky"}


def test_damaged_names_are_told_before_they_are_lost(run: Path) -> None:
    name_clusters(run, {0: "road"})
    path = run / "segmenter" / "segmenter.json"
    content = path.read_text()
    path.write_text(content[:-30])
    with pytest.raises(CheckpointError, match="can't be read"):
        name_clusters(run, {1: "sky"})
    assert path.read_text() == content[:-30]


def test_the_concentration_is_found_again(run: Path) -> None:
    """Drawn around one direction of a sphere, where kappa is known: 3 numbers a vector."""
    kappa, random = 12.0, np.random.default_rng(0)
    cosine = 1 + np.log(random.uniform(size=40_000) * (1 - np.exp(-2 * kappa)) + np.exp(-2 * kappa)) / kappa
    clusters = load_clusters(run, 5)
    inertia = float((2 - 2 * cosine).sum())
    found = type(clusters)(
        F.normalize(torch.ones(1, 3), dim=1), (1.0,), ((),), {"inertia": inertia, "points": len(cosine)}
    )
    assert concentration(found) == pytest.approx(kappa, rel=0.05)


def test_a_cluster_left_out_is_no_class_yet(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"a segmenter needs a class, .* name one with it, e\.g\. 3=road"):
        name_clusters(run, {3: "void"})
    name_clusters(run, {3: "void", 1: "road"})


@pytest.mark.parametrize("name", ["unsure", "x" * 201, "a\u202eb", "\u00a0\u200b"])
def test_names_that_the_log_refuses_are_refused_before_anything_is_written(name: str, run: Path) -> None:
    with pytest.raises(ConfigError):
        from_clusters(run, 5, {0: "road", 1: name})
    with pytest.raises(ConfigError):
        name_clusters(run, {0: "road", 1: name})
    assert not (run / "segmenter").exists()
