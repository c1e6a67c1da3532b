"""What a run shares: a folder with a card of its facts, and nothing that names a person's folders or images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import selfseg
from conftest import draw_scene
from fake_hub import TOKEN, FakeHub, running
from named_runs import add_clusters, make_run
from selfseg import cli
from selfseg.errors import ConfigError, RunError, Unreachable
from selfseg.exporting import hub as exporting
from selfseg.exporting.export import export
from selfseg.types import EvalResult

PRIVATE = ("annas", "IMG_0815", "ward7", "zurich")
"""What stands in the names of this run's folders and images, and nowhere in what is shared."""

RESULT = EvalResult(
    protocol="clusters",
    protocol_version=3,
    what="embedder",
    dataset="camvid",
    split="val",
    fit_split="train",
    metrics={"miou": 0.3712, "miou_std": 0.01, "accuracy": 0.75},
    class_names=("road", "sky"),
    class_iou=(0.5, 0.2),
    confusion=((3, 1), (1, 1)),
    matching="hungarian",
    k=2,
    resolution=320,
    crop="none",
    crf=False,
    seeds=(0, 1, 2),
    counts={"images": 101, "pixels": 6},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As training, clustering, naming and evaluating leave it, with private names everywhere."""
    run = make_run(tmp_path_factory.mktemp("home") / "annas_ward7")
    recipe = {
        "kind": "Recipe",
        "name": "vice_small",
        "images": "disk/annas_photos",
        "out": str(run),
        "init": "disk/ward7/weights.pth",
        "method": {"kind": "ViCEConfig"},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = [
        {"step": step, "progress": step / 100, "loss": 4.8 - step / 50, "loss_uniform": 4.85, "data_wait": 0.9}
        for step in range(0, 101, 5)
    ]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (run / "images.json").write_text(json.dumps({f"IMG_0815_{i}": {"file": f"zurich/{i}.jpg"} for i in range(1234)}))
    own = replace(RESULT, dataset="annas_labels", fit_split="zurich_2/train", protocol="linear", k=None)
    baseline = replace(RESULT, what="colour + position", metrics={"miou": 0.2345, "miou_std": 0.0, "accuracy": 0.5})
    (run / "results").mkdir()
    for name, result in (("a", RESULT), ("b", own), ("c", baseline), ("d", replace(RESULT, recipe_hash="another"))):
        (run / "results" / f"{name}.json").write_text(json.dumps(result.to_dict()))
    (run / "results" / "notes.json").write_text("[1]")
    (run / "embedder" / "from.json").write_text(json.dumps({"file": "disk/ward7/weights.pth"}))
    rows = torch.nn.functional.normalize(torch.rand(4, 8), dim=1)
    save_file({"prototypes": rows}, run / "embedder" / "prototypes.safetensors")
    selfseg.name_clusters(run, {0: "road", 1: "sky", 2: "void"})
    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running(tmp_path / "cache", monkeypatch) as found:
        yield found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_card_tells_the_runs_facts_and_what_is_not_known(run: Path, tmp_path: Path) -> None:
    folder = export(run, "hub", tmp_path / "shared", license="cc-by-4.0")
    card = (folder / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["tags"][-1] == "vice"
    for row in ("| recipe | vice\\_small |", "| images | 1,234 |", "| steps | 100 |", "| method | ViCE |"):
        assert row in card, row
    assert "- The loss has fallen by" in card
    assert "- Of 5 clusters the largest holds 20% of the pixels." in card
    assert "waits for images" not in card  # is of this machine
    how = "clusters k=2, hungarian | camvid val: 101 images, 2 classes, short side 320 px"
    assert f"| {how} | this model | 0.371 | 0.750 |\n| {how} | colour + position | 0.234 | 0.500 |" in card
    assert "| linear, fitted on labelled images of one's own/train | labelled images of one's own val:" in card
    assert card.count("this model") == 2, "a result of another recipe is none of this model"
    assert "What its weights began from." in card
    assert "The one who shares this chose cc-by-4.0." in card
    assert "4, in prototypes" in card
    assert torch.equal(
        load_file(folder / "prototypes.safetensors")["prototypes"],
        load_file(run / "embedder" / "prototypes.safetensors")["prototypes"],
    )


def test_a_run_that_was_never_measured_says_so(tmp_path: Path) -> None:
    bare = make_run(tmp_path / "run")
    for path in (bare / "clusters").iterdir():
        path.unlink()
    card = (export(bare, "hub") / "README.md").read_text("utf-8")
    for sentence in (
        "Not known: it was written without its run.",
        "This was not checked.",
        "Nothing. So it is not known how well its vectors tell things apart.",
        "None is given yet",
    ):
        assert sentence in card
    with pytest.raises(RunError, match=r"selfseg name"):
        export(bare, "segmenter-hub")


@pytest.mark.parametrize("format", ["hub", "segmenter-hub"])
def test_no_name_of_a_person_is_sent(format: str, run: Path, tmp_path: Path, hub: FakeHub) -> None:
    path = export(run, format, tmp_path / "shared", push="user/streets", token=TOKEN)
    sent = hub.repositories["user/streets"].branches["main"][-1]
    assert {name: sent[name] for name in contents(path)} == contents(path)
    assert set(sent) - set(contents(path)) == {".gitattributes"}
    for name, content in sent.items():
        found = [word for word in (*PRIVATE, str(tmp_path), str(Path.home())) if word.encode() in content]
        assert not found, name
    kind = selfseg.Embedder if format == "hub" else selfseg.Segmenter
    loaded = kind.from_pretrained("user/streets", token=TOKEN)
    image = draw_scene(1)[0]
    if isinstance(loaded, selfseg.Embedder):
        assert torch.equal(loaded.embed(image), selfseg.load(run, "cpu").embed(image))
    else:
        assert (loaded(image) == selfseg.load_segmenter(run, "cpu")(image)).all()
    assert "from_pretrained('user/streets')" in sent["README.md"].decode()


def test_a_start_that_names_a_folder_is_not_sent(run: Path, tmp_path: Path, hub: FakeHub) -> None:
    embedder = selfseg.load(run, "cpu")
    embedder.start = "the file disk/ward7/weights.pth"
    embedder.save(tmp_path / "run" / "embedder")
    (tmp_path / "run" / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    with pytest.raises(
        ConfigError, match=r"names disk/ward7/weights.pth, a place of this machine, so nothing is shared"
    ):
        export(tmp_path / "run", "hub", push="user/streets", token=TOKEN)
    assert hub.requests == []


def test_what_is_fetched_is_a_run_for_the_verbs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the card says: `hf download USER/NAME --local-dir runs/shared/embedder`, and `--local-dir segmenter`."""
    monkeypatch.chdir(tmp_path)
    export(run, "hub", Path("runs/shared/embedder"))
    add_clusters(Path("runs/shared"), 3)
    assert selfseg.name_clusters("runs/shared", {0: "road"}).is_dir()
    export(run, "segmenter-hub", Path("segmenter"))
    assert selfseg.load_segmenter("segmenter", "cpu").legend.names == ("road", "sky")


def test_only_the_formats_of_the_hub_are_pushed(run: Path, tmp_path: Path) -> None:
    for options in ({"push": "user/a"}, {"license": "mit"}, {"public": True}):
        with pytest.raises(ConfigError, match=r"the format timm is not for the hub; to share a model take hub or seg"):
            export(run, "timm", tmp_path / "a.safetensors", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'photos' is no name of a repository"):
        export(run, "hub", tmp_path / "a", push="photos")
    with pytest.raises(ConfigError, match=r"'my own' is no name of a licence"):
        export(run, "hub", tmp_path / "a", license="my own")
    assert list(tmp_path.iterdir()) == []


def test_an_embedder_that_is_read_back_as_another_is_not_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = selfseg.Embedder.save

    def spoil(self: selfseg.Embedder, folder: Path) -> None:
        weight = next(self.decoder.parameters())
        weight.data += 0.1
        save(self, folder)
        weight.data -= 0.1

    monkeypatch.setattr(exporting.Embedder, "save", spoil)
    with pytest.raises(RunError, match=r"was not written: loaded again, it gives other features"):
        export(run, "hub", tmp_path / "shared")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command(
    run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shared"
    words = ["export", str(run), "--format", "segmenter-hub", "--out", str(out)]
    assert cli.main(words) == 0
    assert f"written: {out}; {out / 'README.md'} says how to load it" in capsys.readouterr().out
    assert hub.requests == []
    assert cli.main([*words, "--push", "user/streets"]) == Unreachable.exit_code
    assert "log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main([*words, "--push", "user/streets", "--license", "mit"]) == 0
    assert "user/streets; nobody can see it whom you don't let in" in capsys.readouterr().out
    assert hub.repositories["user/streets"].private
    assert cli.main([*words, "--push", "user/streets", "--license", "mit", "--public"]) == 0
    assert "user/streets is private and stays so; its settings" in capsys.readouterr().err
    assert b"license: mit" in hub.repositories["user/streets"].branches["main"][-1]["README.md"]


def test_the_segmenter_that_is_exported_is_not_replaced(run: Path) -> None:
    with pytest.raises(ConfigError, match="is what is exported"):
        export(run, "segmenter-hub", run / "segmenter")
