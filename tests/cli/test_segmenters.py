from dataclasses import replace
from pathlib import Path

import pytest

from named_runs import make_run
from selfseg.cli import main
from selfseg.collection.clusters import load_clusters, save_clusters
from selfseg.errors import StorageError
from selfseg.segmenter.naming import named
from selfseg.segmenter.segmenter import load_segmenter
from selfseg.storage.files import read_json
from selfseg.studio.decisions import DecisionLog


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_clusters_are_named_listed_and_applied(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["name", str(run)]) == 0
    listed = capsys.readouterr().out
    assert "5 of 5 clusters have no name yet, 100.0% of the pixels" in listed
    assert "photo0, photo1" in listed
    assert main(["name", str(run), "0,3=traffic light", "1=[bold]sky[/]", "-k", "5"]) == 0
    assert "traffic light, [bold]sky[/]" in capsys.readouterr().out
    assert main(["name", str(run), "4=void", "2=a=b", "--colours", "traffic light=#010203"]) == 0
    kept = named(run)
    assert kept is not None
    assert dict(kept.names) == {0: "traffic light", 3: "traffic light", 1: "[bold]sky[/]", 4: "void", 2: "a=b"}
    capsys.readouterr()
    assert main(["name", str(run), "2="]) == 0
    assert main(["name", str(run)]) == 0
    listed = capsys.readouterr().out
    assert "(left out)" in listed
    assert "[bold]sky[/]" in listed
    assert "1 of 5 clusters have no name yet, 20.0% of the pixels" in listed
    assert load_segmenter(run, "cpu").legend.classes[0].colour == (1, 2, 3)
    words = ["--no-overlays", "--formats", "coco", "yolo"]
    assert main(["apply", str(run), str(photos), "--out", str(tmp_path / "out"), *words]) == 0
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 6
    said = " ".join(capsys.readouterr().out.split())
    assert f"written: {tmp_path}/out/formats/coco, COCO JSON" in said
    assert len(read_json(tmp_path / "out" / "formats" / "coco" / "annotations.json")["images"]) == 6
    assert not (tmp_path / "out" / "overlay").exists()


def test_masks_of_names_that_were_given_to_earlier_clusters_are_told(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["name", str(run), "0=road", "1=sky"]) == 0
    words = ["apply", str(run), str(photos / "photo0.jpg"), "--out", str(tmp_path / "out"), "--no-overlays"]
    assert main(words) == 0
    assert "clustered again" not in capsys.readouterr().err
    clusters = load_clusters(run, 5)
    save_clusters(run, replace(clusters, centroids=clusters.centroids.flip(0).contiguous()))
    assert main(words) == 0
    assert "was trained or clustered again since its clusters were named" in capsys.readouterr().err


def test_names_may_be_parted_by_commas(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["name", str(run), "1=two,2=a=b, 0,3=sky"]) == 0
    assert "(two, a=b, sky)" in capsys.readouterr().out


def test_clicks_that_names_leave_out_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"hash": "1", "name": "photo0"}
    DecisionLog.open(run / "studio").append("click", image=image, level=9, point=[0.5, 0.5], name="bird")
    assert main(["name", str(run), "0=sky"]) == 0
    assert "does not use the 1 click made in the studio; “Hand over” there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["road"], 2, "'road' does not name a cluster"),
        (["a=road"], 2, "does not name a cluster"),
        (["3,=road"], 2, "does not name a cluster"),
        (["3=road,3=sky"], 2, "cluster 3 has two names, 'road' and 'sky'"),
        (["3=road", "3=sky"], 2, "cluster 3 has two names, 'road' and 'sky'"),
        (["9=road"], 2, "no cluster 9; with k = 5 they are 0 to 4"),
        (["3=road", "-k", "4"], 4, "no clusters with k = 4"),
        (["3=road", "--colours", "road"], 2, "does not give a class a colour"),
        (["3=road", "--colours", "road=red"], 2, "#rrggbb"),
        (["3=road", "--colours", "sky=#000000"], 2, "no class 'sky' to colour"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(
    words: list[str], code: int, sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["name", str(run), *words]) == code
    assert sentence in capsys.readouterr().err
    assert not (run / "segmenter").exists()


@pytest.mark.parametrize("name", ["unsure", "x" * 250, "a\u202eb"])
def test_a_name_that_is_none_is_written_nowhere(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["name", str(run), f"3={name}", "1=sky"]) == 2
    assert "name" in capsys.readouterr().err
    assert not (run / "segmenter").exists()
    assert not (run / "studio" / "decisions.jsonl").exists()


def test_the_log_is_written_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    assert main(["name", str(run), "1=sky"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(DecisionLog, "append_all", full)
        assert main(["name", str(run), "1=road"]) != 0
    kept = named(run)
    assert kept is not None
    assert dict(kept.names) == {1: "sky"}


def test_an_empty_name_takes_a_cluster_in_again(run: Path) -> None:
    assert main(["name", str(run), "1=sky", "2=void"]) == 0
    log = DecisionLog.open(run / "studio")
    assert log.state().left_out == {"5/2"}
    assert main(["name", str(run), "2="]) == 0
    log.refresh()
    assert log.state().left_out == frozenset()
    log.undo()
    assert log.state().left_out == {"5/2"}, "one step"
