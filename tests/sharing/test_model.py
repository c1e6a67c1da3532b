"""Embedders and segmenters through a folder, and through a hub that runs here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import load_file, save_file

from conftest import draw_scene
from fake_hub import TOKEN, FakeHub, running
from named_runs import make_run
from selfseg import Embedder, Segmenter, load, load_segmenter, name_clusters
from selfseg.errors import CheckpointError, ConfigError, RunError, Unreachable
from selfseg.sharing.files import check_folder, check_own
from selfseg.sharing.model import push_folder

IMAGE = draw_scene(3)[0]
EMBEDDER = {"embedder.json", "weights.safetensors", "README.md"}
SEGMENTER = {
    "segmenter.json", "weights.safetensors", "embedder/embedder.json", "embedder/weights.safetensors", "README.md"
}  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose clusters have names."""
    run = make_run(tmp_path_factory.mktemp("runs") / "annas_garden")
    name_clusters(run, {0: "road", 1: "sky", 2: "road", 3: "void"}, colours={"sky": (1, 2, 3)})
    return run


@pytest.fixture
def embedder(named: Path) -> Embedder:
    return load(named, "cpu")


@pytest.fixture
def segmenter(named: Path) -> Segmenter:
    return Segmenter.load(named / "segmenter")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running(tmp_path / "cache", monkeypatch) as found:
        yield found


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def front_matter(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_an_embedder_comes_back_from_a_folder_to_the_bit(embedder: Embedder, tmp_path: Path) -> None:
    folder = embedder.save_pretrained(tmp_path / "shared", license="Apache-2.0")
    assert files_in(folder) == EMBEDDER
    for given in (folder, str(folder)):
        found = Embedder.from_pretrained(given)
        assert torch.equal(found.embed(IMAGE), embedder.embed(IMAGE))
        assert not found.training
    card = (folder / "README.md").read_text("utf-8")
    assert front_matter(card) == {
        "library_name": "selfseg",
        "pipeline_tag": "image-feature-extraction",
        "license": "apache-2.0",
        "tags": ["selfseg", "self-supervised-learning", "semantic-segmentation"],
    }
    assert ModelCard(card).data.license == "apache-2.0"  # as the hub's own library reads it
    assert "Not known: it was written without its run." in card


def test_a_segmenter_comes_back_without_the_names_of_this_machine(segmenter: Segmenter, tmp_path: Path) -> None:
    folder = segmenter.save_pretrained(tmp_path / "shared")
    assert files_in(folder) == SEGMENTER
    found = Segmenter.from_pretrained(folder)
    assert np.array_equal(found(IMAGE), segmenter(IMAGE))
    assert found.digest() == segmenter.digest()
    assert found.about == {"made_of": "clusters", "k": 5}
    assert segmenter.about["run"] == "annas_garden"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"annas_garden" in path.read_bytes()]
    card = (folder / "README.md").read_text("utf-8")
    assert "| 1 | sky | `#010203` |" in card
    assert "license" not in front_matter(card)
    assert "None is given yet" in card


def test_the_code_of_the_card_runs(
    embedder: Embedder, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGE).save("photo.jpg")
    for model in (embedder, segmenter):
        card = (model.save_pretrained("shared") / "README.md").read_text("utf-8")
        names: dict[str, object] = {}
        exec(card.split("```python\n")[1].split("```")[0], names)
        assert names.keys() & {"vectors", "mask"}
        shutil.rmtree("shared")


def test_a_folder_of_something_else_is_not_replaced(embedder: Embedder, named: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for folder in (tmp_path, named / "embedder", tmp_path / "thesis.tex"):
        with pytest.raises(ConfigError, match=r"something else than a shared model|is a file"):
            embedder.save_pretrained(folder)
    folder = embedder.save_pretrained(tmp_path / "shared")
    assert embedder.save_pretrained(folder) == folder


def test_what_is_no_model_says_what_it_is(embedder: Embedder, segmenter: Segmenter, tmp_path: Path) -> None:
    one = embedder.save_pretrained(tmp_path / "one")
    other = segmenter.save_pretrained(tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"embedder\.json is missing\. It holds a named segmenter: .*Segmenter\.f"
    ):
        Embedder.from_pretrained(other)
    with pytest.raises(CheckpointError, match=r"segmenter\.json is missing\. It holds an embedder: .*Embedder\.from_"):
        Segmenter.from_pretrained(one)
    with pytest.raises(ConfigError, match=r"is a folder, which has no revision 'v1'"):
        Embedder.from_pretrained(one, revision="v1")
    for place in (tmp_path / "none", f"{tmp_path}/none", "./none/such", Path("user/name")):
        with pytest.raises(CheckpointError, match=r"there is no folder"):
            Embedder.from_pretrained(place)
    with pytest.raises(CheckpointError, match=r"and this is no name of a repository"):
        Embedder.from_pretrained("a/b/c")


def forged(folder: Path, what: str) -> None:
    """Change a shared embedder as a stranger might."""
    settings = json.loads((folder / "embedder.json").read_text())
    weights = {name: value.clone() for name, value in load_file(folder / "weights.safetensors").items()}
    if what == "hub backbone":
        (folder / "embedder.json").write_text(json.dumps({**settings, "backbone": "hf-hub:stranger/net"}))
    elif what == "local backbone":
        (folder / "embedder.json").write_text(json.dumps({**settings, "backbone": "local-dir:/tmp/net"}))
    elif what == "not a number":
        weights["mean"].view(-1)[0] = float("nan")
        save_file(weights, folder / "weights.safetensors")
    elif what == "pickle by that name":
        torch.save(weights, folder / "weights.safetensors")
    elif what == "only a pickle":
        (folder / "embedder.json").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    elif what == "unknown setting":
        (folder / "embedder.json").write_text(json.dumps({**settings, "trust_remote_code": True}))
    elif what == "link":
        (folder / "weights.safetensors").rename(folder.parent / "elsewhere.safetensors")
        (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hub backbone", "hf-hub:stranger/net"),
        ("local backbone", "local-dir:"),
        ("not a number", "no finite numbers"),
        ("pickle by that name", "no whole safetensors file"),
        ("only a pickle", r"pytorch_model\.bin is not opened, because such a file can run a program"),
        ("unknown setting", "is not in format"),
        ("link", "is a link that leads out of its folder"),
    ],
)
def test_a_hostile_folder_is_refused(what: str, said: str, embedder: Embedder, tmp_path: Path, hub: FakeHub) -> None:
    folder = embedder.save_pretrained(tmp_path / "shared")
    forged(folder, what)
    with pytest.raises(CheckpointError, match=said):
        Embedder.from_pretrained(folder)
    assert hub.requests == []  # not even a look at what was named
    if what != "link":  # the hub has none
        hub.put("stranger/shared", folder)
        with pytest.raises(CheckpointError, match=said):
            Embedder.from_pretrained("stranger/shared")
        assert hub.fetched() <= {"embedder.json", "weights.safetensors"}
        assert not [request for request in hub.requests if "stranger/net" in request]


def test_pipes_and_huge_files_are_refused_before_they_are_read(embedder: Embedder, tmp_path: Path) -> None:
    import os

    folder = embedder.save_pretrained(tmp_path / "shared")
    (folder / "embedder.json").write_bytes(b" " * ((1 << 24) + 1))
    with pytest.raises(
        CheckpointError, match=r"embedder\.json in .* has 16,777,217 bytes, and such a file has at most"
    ):
        check_folder(folder, Embedder._FILES, "embedder")
    (folder / "embedder.json").unlink()
    os.mkfifo(folder / "embedder.json")
    with pytest.raises(CheckpointError, match=r"is no file"):
        Embedder.from_pretrained(folder)


def test_only_the_models_files_are_fetched(embedder: Embedder, tmp_path: Path, hub: FakeHub) -> None:
    folder = embedder.save_pretrained(tmp_path / "shared")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "setup.py").write_text("raise SystemExit")
    hub.put("user/shared", folder)
    found = Embedder.from_pretrained("user/shared")
    assert torch.equal(found.embed(IMAGE), embedder.embed(IMAGE))
    assert hub.fetched() == {"embedder.json", "weights.safetensors"}


def test_a_segmenter_comes_back_from_the_hub_and_then_without_it(
    segmenter: Segmenter, tmp_path: Path, hub: FakeHub
) -> None:
    assert segmenter.push_to_hub("user/streets", token=TOKEN).endswith("/user/streets")
    repository = hub.repositories["user/streets"]
    assert repository.private
    sent = repository.branches["main"][-1]
    assert set(sent) == SEGMENTER | {".gitattributes"}
    found = Segmenter.from_pretrained("user/streets", token=TOKEN)
    assert found.digest() == segmenter.digest()
    before = len(hub.requests)
    again = Segmenter.from_pretrained("user/streets", local_files_only=True)
    assert len(hub.requests) == before
    assert np.array_equal(again(IMAGE), segmenter(IMAGE))
    hub.broken = 503
    assert Segmenter.from_pretrained("user/streets", token=TOKEN).digest() == segmenter.digest()


def test_a_second_push_replaces_the_first(embedder: Embedder, segmenter: Segmenter, hub: FakeHub) -> None:
    embedder.push_to_hub("user/one", token=TOKEN)
    segmenter.push_to_hub("user/one", token=TOKEN)
    branch = hub.repositories["user/one"].branches["main"]
    assert set(branch[-1]) == SEGMENTER | {".gitattributes"}
    first = next(files for files in branch if "embedder.json" in files)
    from fake_hub import sha_of

    kept = Embedder.from_pretrained("user/one", revision=sha_of(first), token=TOKEN)
    assert torch.equal(kept.embed(IMAGE), embedder.embed(IMAGE))
    embedder.push_to_hub("user/one", token=TOKEN, revision="as-embedder")
    assert set(hub.repositories["user/one"].branches["as-embedder"][-1]) == EMBEDDER | {".gitattributes"}
    assert set(branch[-1]) == SEGMENTER | {".gitattributes"}


def test_a_public_repository_is_not_written_to_unless_that_is_said(
    embedder: Embedder, tmp_path: Path, hub: FakeHub
) -> None:
    hub.put("user/open", tmp_path)
    with pytest.raises(ConfigError, match=r"user/open is public, so everybody could take the model; .*--public"):
        embedder.push_to_hub("user/open", token=TOKEN)
    assert len(hub.repositories["user/open"].branches["main"]) == 1
    embedder.push_to_hub("user/open", token=TOKEN, private=False)
    assert EMBEDDER <= set(hub.repositories["user/open"].branches["main"][-1])


def test_the_hub_says_no_in_a_sentence(
    embedder: Embedder, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match=r"no folder user/none here, and no repository user/none .*hf auth login"):
        Embedder.from_pretrained("user/none")
    with pytest.raises(Unreachable, match=r"is not among the copies that were fetched .* no request was allowed"):
        Embedder.from_pretrained("user/none", local_files_only=True)
    hub.put("user/shared", embedder.save_pretrained(tmp_path / "shared"))
    with pytest.raises(Unreachable, match=r"has no branch, tag or commit 'v9'"):
        Embedder.from_pretrained("user/shared", revision="v9")
    with pytest.raises(Unreachable, match=r"does not let you write"):
        embedder.push_to_hub("user/shared", private=False)
    with pytest.raises(ConfigError, match=r"'shared' is no name of a repository"):
        embedder.push_to_hub("shared")
    hub.repositories["user/shared"].sizes["weights.safetensors"] = 1 << 40
    with pytest.raises(CheckpointError, match=r"has 1,099,511,627,776 bytes"):
        Embedder.from_pretrained("user/shared")
    hub.broken = 503
    with pytest.raises(
        Unreachable, match=r"the hub can't be reached \(it answers with 503\).*hf download user/shared --local-dir"
    ):
        Embedder.from_pretrained("user/shared")
    with pytest.raises(Unreachable, match=r"can't send it to .*: it answers with 503"):
        embedder.push_to_hub("user/shared", token=TOKEN)

    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("as it is set")

    monkeypatch.setattr(HfApi, "model_info", offline)
    with pytest.raises(Unreachable, match=r"the hub can't be reached \(HF_HUB_OFFLINE is set\)"):
        Embedder.from_pretrained("user/shared")


def test_a_name_is_only_looked_for_where_it_is_asked_for(embedder: Embedder, tmp_path: Path, hub: FakeHub) -> None:
    hub.put("runs/photos", embedder.save_pretrained(tmp_path / "shared"))
    for look in (load, Segmenter.load, Embedder.load, load_segmenter):
        with pytest.raises(RunError):
            look("runs/photos")  # a folder that isn't there, and by chance somebody's repository
    assert hub.requests == []


def test_without_a_network_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "cache", monkeypatch):
        pass
    # Its port is closed now.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"the hub can't be reached \(.+\)\. Connect and call again, or fetch"):
        Embedder.from_pretrained("user/shared")


@pytest.mark.parametrize("what", ["log", "link", "path in the card", "path in the header"])
def test_nothing_of_this_machine_is_sent(what: str, embedder: Embedder, tmp_path: Path, hub: FakeHub) -> None:
    folder = embedder.save_pretrained(tmp_path / "shared")
    if what == "log":
        (folder / "log.jsonl").write_text("{}")
    elif what == "link":
        (folder / "prototypes.safetensors").symlink_to(folder / "weights.safetensors")
    elif what == "path in the card":
        with (folder / "README.md").open("a") as file:
            file.write(f"from {Path.home()}/photos")
    else:
        weights = {name: value.clone() for name, value in load_file(folder / "weights.safetensors").items()}
        save_file(weights, folder / "weights.safetensors", {"images": "disk/annas_photos"})
    with pytest.raises(ConfigError, match=r"not part of the model|no plain file|a place of this machine"):
        push_folder(folder, "user/shared", secrets=("disk/annas_photos",), token=TOKEN)
    assert hub.requests == []


def test_what_only_begins_like_a_place_is_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{Path.home()}ing and {Path.home()}-like")
    check_own(tmp_path, ["README.md"])
