from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.reading.listing import list_images
from selfseg.errors import BadImage, ConfigError, RunError
from selfseg.masks.cleaning import Cleaned, Cleaning, clean, clean_objects
from selfseg.masks.writing import MaskFolder, MaskWriter, survey
from selfseg.storage.files import mark_output

HOW = {"method": "test", "strength": 1}


def soft(level: float = 0.9) -> np.ndarray:
    values = np.full((90, 120), 0.2, np.float32)
    values[20:60, 30:80] = level
    return values


def write_all(out: Path, photos: Path, level: float = 0.9, how: dict[str, object] | None = None) -> list[int]:
    """Make what is missing; returns which images that were."""
    with MaskWriter(out, list_images(photos), how or HOW) as writer:
        missing = writer.missing()
        for i in missing:
            writer.write(i, soft(level), clean(soft(level)))
        writer.finish()
    return missing


def note(out: Path) -> dict[str, object]:
    return json.loads((out / "masks.json").read_text())


def test_what_is_written_is_what_was_found(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    assert write_all(out, photos) == [0, 1, 2, 3, 4, 5]
    index = np.asarray(Image.open(out / "index" / "photo3.png"))
    assert index.dtype == np.uint8
    np.testing.assert_array_equal(index, soft() > 0.5)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "soft" / "photo3.png")), np.rint(soft() * 255))
    values = note(out)
    assert values["how"] == HOW
    assert [values[key] for key in ("count", "kept", "rejected", "skipped", "objects")] == [6, 6, 0, 0, 6]
    assert values["mean_share"] == pytest.approx(2000 / 10800, abs=1e-6)
    result = survey(MaskFolder(out), list_images(photos))
    assert result.usable == (0, 1, 2, 3, 4, 5)
    assert result.folder.kind == "index"


@pytest.mark.parametrize("count", [3, 300])
def test_several_objects_come_back_as_they_were(count: int, photos: Path, tmp_path: Path) -> None:
    ids = np.zeros((90, 120), np.int32)
    ids[:75, :100] = (np.arange(7500) * count // 7500 + 1).reshape(75, 100)
    cleaned = clean_objects(ids, Cleaning(min_piece=0))
    with MaskWriter(tmp_path / "masks", list_images(photos), HOW) as writer:
        for i in range(6):
            writer.write(i, cleaned.mask.astype(np.float32), cleaned)
        writer.finish()
    np.testing.assert_array_equal(MaskFolder(tmp_path / "masks").get("photo2", 90, 120), ids - 1)
    assert note(tmp_path / "masks")["objects"] == 6 * count


def test_a_mask_of_an_image_that_has_gone_is_not_kept(photos: Path, tmp_path: Path) -> None:
    with MaskWriter(tmp_path / "masks", list_images(photos), HOW) as writer:
        (photos / "photo2.jpg").unlink()
        with pytest.raises(BadImage, match=r"photo2.jpg: missing \(removed while its mask was made\)"):
            writer.write(2, soft(), clean(soft()))
        assert writer.entries == {}
    assert not list((tmp_path / "masks").rglob("photo2.png"))


def test_rejected_images_have_a_map_and_a_reason_but_no_mask(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    with MaskWriter(out, list_images(photos), HOW) as writer:
        for i in range(6):
            values = soft() if i % 2 else soft() * 0
            writer.write(i, values, clean(values))
        writer.finish({"gone": "truncated"}, {"iou": 0.5})
    assert sorted(path.name for path in (out / "index").iterdir()) == ["photo1.png", "photo3.png", "photo5.png"]
    assert len(list((out / "soft").iterdir())) == 6
    values = note(out)
    assert values["reasons"] == {"empty": 3}
    assert values["rejected_images"][0] == {"name": "photo0", "reason": "empty", "share": 0.0}
    assert values["skipped_images"] == [{"name": "gone", "reason": "truncated"}]
    assert values["quality"] == {"iou": 0.5}
    assert write_all(out, photos) == []  # a rejection is a result, too
    problems = survey(MaskFolder(out), list_images(photos)).problems
    assert {name: reason for name, (reason, _) in problems.items()} == dict.fromkeys(
        ("photo0", "photo2", "photo4"), "missing"
    )


def test_only_what_is_missing_or_changed_is_made_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    write_all(out, photos)
    assert write_all(out, photos) == []
    (out / "index" / "photo0.png").unlink()
    (out / "soft" / "photo1.png").unlink()
    os.utime(photos / "photo2.jpg", ns=(1, 1))
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(photos / "photo9.jpg")
    assert write_all(out, photos) == [0, 1, 2, 6]
    assert write_all(out, photos) == []
    assert write_all(out, photos, how={"method": "test", "strength": 2}) == [0, 1, 2, 3, 4, 5, 6]
    assert write_all(out, photos) == [0, 1, 2, 3, 4, 5, 6]  # the first making's masks are gone


def test_a_call_that_died_goes_on(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    with MaskWriter(out, list_images(photos), HOW) as writer:
        for i in range(3):
            writer.write(i, soft(), clean(soft()))  # and never finishes
    with (out / "progress.jsonl").open("a") as file:
        file.write('{"name": "photo3", "made_')  # cut off within a line
    assert write_all(out, photos) == [3, 4, 5]
    assert note(out)["kept"] == 6


def test_a_mask_that_is_rejected_now_is_removed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    write_all(out, photos)
    assert write_all(out, photos, level=0.3, how={"method": "weak"}) == [0, 1, 2, 3, 4, 5]
    assert not list((out / "index").iterdir())
    assert note(out)["reasons"] == {"empty": 6}


def test_an_image_that_went_bad_loses_its_mask(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    write_all(out, photos)
    with MaskWriter(out, list_images(photos), HOW) as writer:
        writer.discard("photo4")
        writer.discard("never seen")
        writer.finish()
    assert not (out / "index" / "photo4.png").exists()
    assert note(out)["kept"] == 5


def test_a_folder_of_something_else_is_left_alone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "papers"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"papers holds other files, such as thesis\.txt"):
        MaskWriter(out, list_images(photos), HOW)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_two_at_once_are_refused(photos: Path, tmp_path: Path) -> None:
    images = list_images(photos)
    with MaskWriter(tmp_path / "masks", images, HOW), pytest.raises(RunError):
        MaskWriter(tmp_path / "masks", images, HOW).__enter__()
    assert write_all(tmp_path / "masks", photos)  # free again


def test_masks_are_no_images(photos: Path) -> None:
    """OUT below IMAGES: the masks aren't taken for photographs the next time."""
    write_all(photos / "masks", photos)
    assert names(photos) == [f"photo{i}" for i in range(6)]


def names(folder: Path) -> Sequence[str]:
    return list(list_images(folder).names)


def test_cleaned_says_what_it_is() -> None:
    cleaned = Cleaned(np.array([[0, 2]], np.int32), "", 0.5, 0.5)
    assert cleaned.objects == 2
    assert cleaned.mask.tolist() == [[False, True]]


def test_masks_of_images_that_are_gone_go(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    write_all(out, photos)
    (photos / "photo1.jpg").rename(photos / "renamed.jpg")
    write_all(out, photos)
    for kind in ("index", "soft"):
        assert sorted(path.stem for path in (out / kind).glob("*.png")) == [
            "photo0",
            "photo2",
            "photo3",
            "photo4",
            "photo5",
            "renamed",
        ]
    (photos / "renamed.jpg").unlink()
    write_all(out, photos, how={"method": "another"})
    assert not list(out.rglob("renamed.png"))


def test_masks_are_not_written_into_a_run(photos: Path, tmp_path: Path) -> None:
    mark_output(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(ConfigError, match="holds a run"):
        MaskWriter(tmp_path / "run", list_images(photos), HOW)
