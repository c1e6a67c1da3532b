import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import selfseg
from selfseg.data.labelled.legend import Legend
from selfseg.errors import BadImage, CheckpointError, ConfigError, RunError
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.storage.files import read_json

LEGEND = Legend.of(["road", "<b>sky</b>", "שמיים"], {"road": (1, 2, 3)})


@pytest.fixture
def segmenter(run: Path) -> Segmenter:
    """Six rows of a logistic regression, two of them void."""
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(6, 8, generator=generator) * 3, torch.randn(6, generator=generator)
    table = torch.tensor([0, 1, 2, -1, 0, -1])
    return Segmenter(Embedder.load(run / "embedder"), LEGEND, weight, bias, table, about={"made_of": "a test"})


def dense(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """The mask by resizing everything."""
    embedding = segmenter.embedder.embed(image)
    scores = torch.einsum("rd,dhw->rhw", segmenter.weight, embedding) + segmenter.bias[:, None, None]
    wide = torch.nn.functional.interpolate(scores[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
    values = np.array([255 if c < 0 else c for c in segmenter.table.tolist()], np.uint8)
    return values[wide.argmax(0).numpy()]


@pytest.mark.parametrize("size", [(90, 120), (131, 67), (5, 3)])
def test_a_mask_is_the_best_row_of_resized_scores(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    mask = segmenter(image)
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert np.mean(mask == dense(segmenter, image)) > 0.999  # where two scores are equal to the last bit or so
    if size == (90, 120):
        assert len(np.unique(mask)) > 2


def test_the_bias_decides(segmenter: Segmenter) -> None:
    segmenter.bias[1] = 1000
    assert (segmenter(np.zeros((20, 30, 3), np.uint8)) == 1).all()


def test_a_file_an_array_and_a_picture_give_one_mask(segmenter: Segmenter, photos: Path) -> None:
    path = photos / "photo0.jpg"
    with Image.open(path) as picture:
        array = np.asarray(picture.convert("RGB"))
        masks = [segmenter(path), segmenter(str(path)), segmenter(array), segmenter(picture)]
    assert all(np.array_equal(masks[0], mask) for mask in masks[1:])
    with pytest.raises(BadImage):
        segmenter(photos / "none.jpg")
    with pytest.raises(ConfigError, match=r"\(H, W, 3\) uint8"):
        segmenter(np.zeros((4, 4), np.uint8))


def test_probabilities_are_the_classes_and_the_rest_is_void(segmenter: Segmenter, photos: Path) -> None:
    mask, found = segmenter(photos / "photo1.jpg"), segmenter.probabilities(photos / "photo1.jpg")
    assert (found.shape, found.dtype) == ((3, *mask.shape), np.float32)
    void = 1 - found.sum(0)
    assert found.min() >= 0
    assert void.min() > -1e-5
    best = np.concatenate([found, void[None]]).argmax(0)
    assert np.mean(np.where(best == 3, 255, best) == mask) > 0.999
    # Of the best row of each class and of void, not of all rows.
    vector = segmenter.embedder.embed(np.zeros((64, 64, 3), np.uint8))[:, 4, 4]
    scores = segmenter.weight @ vector + segmenter.bias
    best_rows = torch.stack([scores[[0, 4]].max(), scores[1], scores[2], scores[[3, 5]].max()])
    flat = segmenter.probabilities(np.zeros((64, 64, 3), np.uint8))[:, 18, 18]  # the middle of cell (4, 4) of 4 px
    np.testing.assert_allclose(flat, best_rows.softmax(0)[:3], atol=0.02)


def test_above_255_classes_masks_have_16_bits(run: Path) -> None:
    embedder = Embedder.load(run / "embedder")
    weight = torch.randn(301, 8, generator=torch.Generator().manual_seed(0))
    table = torch.tensor([*range(300), -1])
    many = Segmenter(embedder, Legend.of([f"class {i}" for i in range(300)]), weight, table=table)
    many.bias[299] = 100
    assert (many(np.zeros((9, 9, 3), np.uint8)) == 299).all()
    many.bias[300] = 1000
    mask = many(np.zeros((9, 9, 3), np.uint8))
    assert mask.dtype == np.uint16
    assert (mask == 65_535).all()


def test_a_segmenter_survives_its_folder_and_stands_alone(
    segmenter: Segmenter, run: Path, photos: Path, tmp_path: Path
) -> None:
    segmenter.embedder.looks = Looks((1.0, 1.5), flip=True)
    segmenter.sharpness = 2.5
    folder = segmenter.save(tmp_path / "deep" / "segmenter")
    (run / "embedder" / "weights.safetensors").unlink()
    moved = folder.rename(tmp_path / "elsewhere")
    loaded = selfseg.load_segmenter(moved, "cpu")
    assert loaded.digest() == segmenter.digest()
    assert not loaded.training
    assert (loaded.legend, loaded.sharpness, loaded.about) == (LEGEND, 2.5, {"made_of": "a test"})
    assert loaded.embedder.looks == Looks((1.0, 1.5), flip=True)
    assert np.array_equal(loaded(photos / "photo2.jpg"), segmenter(photos / "photo2.jpg"))
    card = (moved / "README.md").read_text("utf-8")
    assert "| 0 | road | `#010203` |" in card
    assert "\\<b\\>sky" in card
    assert "שמיים" in card


def test_a_save_takes_the_place_of_a_segmenter_and_of_nothing_else(segmenter: Segmenter, tmp_path: Path) -> None:
    folder = segmenter.save(tmp_path / "segmenter")
    segmenter.bias[0] = 4
    segmenter.save(folder)
    assert float(Segmenter.load(folder).bias[0]) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "segmenter"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="something else"):
        segmenter.save(tmp_path / "mine")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _swap_table(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    save_file({**tensors, "table": torch.full((6,), 7)}, folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: _cut(f / "weights.safetensors"), "damaged"),
        (lambda f: _cut(f / "embedder" / "weights.safetensors"), "damaged"),
        (lambda f: (f / "embedder" / "embedder.json").unlink(), "damaged"),
        (lambda f: _cut(f / "segmenter.json"), "damaged"),
        (lambda f: (f / "segmenter.json").write_text("[]"), "not of format 1"),
        (lambda f: _change(f / "segmenter.json", format=3), "not of format 1"),
        (lambda f: _change(f / "segmenter.json", classes=[{"value": 1}]), "no legend"),
        (lambda f: _change(f / "segmenter.json", classes=LEGEND.to_json()[:2]), "the legend has 2"),
        (lambda f: _change(f / "segmenter.json", position=1), r"\(P, 12\)"),
        (lambda f: _change(f / "segmenter.json", looks=None), "damaged"),
        (lambda f: _change(f / "segmenter.json", about="me"), "damaged"),
        (_swap_table, "classes from 7 to 7"),
        (lambda f: _change(f / "embedder" / "embedder.json", resolution=96), "embedder is another one"),
        (lambda f: (f / "segmenter.json").unlink(), "no segmenter in"),
    ],
)
def test_a_damaged_folder_is_told(segmenter: Segmenter, tmp_path: Path, damage: object, words: str) -> None:
    folder = segmenter.save(tmp_path / "segmenter")
    damage(folder)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=words):
        Segmenter.load(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": torch.ones(3, 7)}, r"\(P, 8\).*not \(3, 7\)"),
        ({"weight": torch.ones(0, 8)}, "not"),
        ({"weight": torch.ones(3, 8), "bias": torch.ones(2)}, "3 rows"),
        ({"weight": torch.ones(4, 8)}, "from 0 to 3; the legend has 3"),
        ({"weight": torch.ones(3, 8), "table": torch.tensor([0, 1, -2])}, "from -2"),
        ({"weight": torch.full((3, 8), torch.nan)}, "finite"),
        ({"weight": torch.ones(3, 8), "sharpness": 0.0}, "above 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(run: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Segmenter(Embedder.load(run / "embedder"), LEGEND, **settings)  # type: ignore[arg-type]


def test_a_run_and_a_folder_are_found_and_what_is_neither_is_told(
    segmenter: Segmenter, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"no segmenter yet.*selfseg name"):
        load_segmenter(run)
    segmenter.save(run / "segmenter")
    assert load_segmenter(run, "cpu").digest() == load_segmenter(run / "segmenter", "cpu").digest()
    with pytest.raises(RunError, match="no run and no segmenter at"):
        load_segmenter(tmp_path / "none")
    with pytest.raises(RunError, match="neither a run nor a segmenter"):
        load_segmenter(tmp_path)


def test_the_digest_knows_colours_and_weights(segmenter: Segmenter) -> None:
    first = segmenter.digest()
    segmenter.bias[2] += 1
    second = segmenter.digest()
    segmenter.legend = Legend.of(LEGEND.names)
    assert len({first, second, segmenter.digest()}) == 3


def test_a_pillow_image_is_seen_as_its_file_is(segmenter: Segmenter, photos: Path, tmp_path: Path) -> None:
    tmp_path = tmp_path / "kinds"
    tmp_path.mkdir()
    scene = Image.open(photos / "photo0.jpg").convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    scene.save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(np.asarray(scene.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    scene.convert("CMYK").save(tmp_path / "inks.jpg")
    clear = scene.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(scene.size))
    clear.save(tmp_path / "clear.png")
    for path in sorted(tmp_path.glob("*.*")):
        with Image.open(path) as picture:
            assert np.array_equal(segmenter(picture), segmenter(path)), path.name
        with Image.open(path) as picture:
            assert np.array_equal(segmenter.embedder.prepare(picture), segmenter.embedder.prepare(path)), path.name


def test_features_are_seen_as_they_are_and_older_readers_refuse_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(backbone="test_resnet", output_stride=32, dim=4, resolution=64))
    width = embedder.decoder.channels
    weight, bias = torch.randn(3, width), torch.randn(3)
    segmenter = Segmenter(embedder, Legend.of(["a", "b", "c"]), weight, bias, sees="features").eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    prepared = torch.from_numpy(embedder.prepare(image)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        logits = torch.nn.functional.conv2d(embedder.features(prepared), weight[:, :, None, None], bias)
    wide = torch.nn.functional.interpolate(logits, (50, 70), mode="bilinear", align_corners=False)[0]
    assert (segmenter(image) == wide.argmax(0).numpy()).mean() > 0.999  # equal but for ties of rounding
    assert np.allclose(segmenter.probabilities(image).argmax(0), segmenter(image))
    folder = segmenter.save(tmp_path / "segmenter")
    assert read_json(folder / "segmenter.json")["format"] == 2
    assert np.array_equal(Segmenter.load(folder)(image), segmenter(image))
    with pytest.raises(ConfigError, match="no position"):
        Segmenter(embedder, Legend.of(["a", "b", "c"]), weight, bias, position=1.0, sees="features")


@pytest.mark.parametrize(
    "change",
    [
        {"looks": {"scales": [1.0], "flip": "false"}},
        {"sharpness": float("inf")},
        {"classes": [{"value": 0, "name": None, "colour": "#000001"}, {"value": 1, "name": "b", "colour": "#000002"}]},
    ],
)
def test_values_of_another_kind_are_not_guessed_at(
    segmenter: Segmenter, tmp_path: Path, change: dict[str, object]
) -> None:
    folder = segmenter.save(tmp_path / "segmenter")
    values = json.loads((folder / "segmenter.json").read_text()) | change
    (folder / "segmenter.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="damaged"):
        Segmenter.load(folder)


def test_an_image_without_a_pixel_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(ConfigError, match="an image must be"):
        segmenter(np.zeros((0, 9, 3), np.uint8))


def test_a_number_that_float32_can_not_hold_is_refused(segmenter: Segmenter) -> None:
    weight = segmenter.weight.double() * 0 + 1e300
    with pytest.raises(ConfigError, match="finite"):
        Segmenter(segmenter.embedder, segmenter.legend, weight, table=segmenter.table, position=segmenter.position)
