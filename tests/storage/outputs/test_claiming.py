"""A folder of results belongs to one verb, and to one process at a time."""

import json
from pathlib import Path

import pytest

from selfseg.errors import ConfigError, RunError
from selfseg.storage.files import OUTPUT_MARKER, mark_output
from selfseg.storage.outputs.claiming import check_output, check_picture, own_output, what_lies_in


def test_a_new_folder_is_the_verbs_from_then_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_output(out, "clusters")
    assert not out.exists()
    out.mkdir()
    (out / ".DS_Store").touch()  # what a desktop leaves in any folder
    with own_output(out, "clusters"), pytest.raises(RunError, match="another process is at work on"):
        own_output(out, "clusters").__enter__()
    (out / "index").mkdir()
    assert what_lies_in(out) == "clusters"
    with own_output(out, "clusters"):
        pass
    with pytest.raises(ConfigError, match=r"holds maps of clusters \(selfseg segment\), not embeddings"):
        check_output(out, "embedder")


def test_files_of_others_are_never_joined(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "legend.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"holds other files, such as a\.jpg"):
        own_output(tmp_path, "clusters").__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "legend.json"]
    with pytest.raises(ConfigError, match="is a file"):
        check_output(tmp_path / "a.jpg", "clusters")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("recipe.yaml", "", "run"),
        ("masks.json", '{"how": {}}', "made_by"),
        ("index.json", '{"embedder": "x"}', "embedder"),
        ("legend.json", json.dumps({"maker": "x", "embedder": "y", "clusters": []}), "clusters"),
        ("legend.json", json.dumps({"segmenter": "x"}), "segmenter"),
        ("progress.jsonl", '{"name": "a", "embedder": "x"}\n', "embedder"),
        ("progress.shards.jsonl", '{"list": {}, "made_by": "x"}\n', "made_by"),
    ],
)
def test_what_an_older_version_wrote_is_told_by_its_files(tmp_path: Path, name: str, text: str, kind: str) -> None:
    mark_output(tmp_path)
    (tmp_path / name).write_text(text)
    assert what_lies_in(tmp_path) == kind
    for other in ("clusters", "segmenter", "embedder"):
        if other == kind:
            check_output(tmp_path, other)
        else:
            with pytest.raises(ConfigError, match="give a new folder"):
                check_output(tmp_path, other)


def test_a_picture_is_not_put_among_the_images(tmp_path: Path) -> None:
    images, results = tmp_path / "photos", tmp_path / "photos" / "run" / "pictures"
    results.mkdir(parents=True)
    with pytest.raises(ConfigError, match="would lie among the images"):
        check_picture(images / "sheet.png", images, "--sheet")
    with pytest.raises(ConfigError, match="would lie among the images"):
        check_picture(results / "sheet.png", images, "--sheet")
    check_picture(tmp_path / "photos-check.png", images, "--sheet")
    (images / "run" / OUTPUT_MARKER).touch()
    check_picture(results / "sheet.png", images, "--sheet")
