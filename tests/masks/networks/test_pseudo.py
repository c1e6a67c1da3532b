"""Trainings of seconds on drawn scenes: a red ball and a house before sky and ground."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import draw_scene
from masks import balls
from masks.balls import ball, draw_balls
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading import ahead
from selfseg.data.reading.listing import list_images
from selfseg.errors import CheckpointError, ConfigError, EmptyCollection, TooManyBadImages
from selfseg.fitting import supervised as finetuning
from selfseg.masks.edges import sharpen, to_image
from selfseg.masks.networks import learning, pseudo
from selfseg.masks.networks.learning import Crops, NetworkConfig, Squares, to_square
from selfseg.masks.networks.network import SaliencyNet, predict
from selfseg.masks.networks.pseudo import (
    Job,
    bootstrap,
    confident_rows,
    cut,
    learn_from_masks,
    learn_from_priors,
    prepare,
    tidy,
)
from selfseg.masks.quality import MaskQuality

TINY = replace(balls.TINY, priors=("mbd", "contrast"), rounds=2, boundary_steps=30)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Several parts and checkpoints in trainings of a few images and steps."""
    monkeypatch.setattr(pseudo, "PART", 4)
    monkeypatch.setattr(learning, "_CHECKPOINT_EVERY", 10)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images of balls; their masks are in "photos-masks", beside."""
    return draw_balls(tmp_path / "photos", range(10))


def job(images: Path, work: Path, config: NetworkConfig = TINY) -> Job:
    return Job(list_images(images), work, config, torch.device("cpu"), progress=False)


def iou(network: torch.nn.Module, size: int) -> float:
    """On balls that were never seen."""
    quality = MaskQuality()
    for seed in range(100, 106):
        image, inside = ball(seed)
        values = predict(network, torch.from_numpy(to_square(image, size)[None]))[0].numpy()
        quality.add(to_image(values, image), inside)
    return quality.scores().iou


def same(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_balls_are_found_without_labels_and_the_second_network_follows(photos: Path, tmp_path: Path) -> None:
    work = job(photos, tmp_path / "work")
    first = learn_from_priors(work)
    assert iou(first, 48) > 0.7
    second = bootstrap(work)
    assert iou(second, 48) > 0.7
    tidy(work)
    assert sorted(path.name for path in work.work.iterdir() if path.is_dir()) == [
        "boundary",
        "contrast_1",
        "contrast_2",
        "fused",
        "mbd_1",
        "mbd_2",
    ]
    assert not list(work.work.rglob("step_*"))
    assert len((work.work / "mbd_2" / "log.jsonl").read_text().splitlines()) == 3
    # Nothing but the weights is needed to have them again.
    again = bootstrap(job(photos, tmp_path / "work"))
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_stopped_anywhere_and_resumed_is_straight(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, round_steps=20, steps=20, boundary_steps=20)
    straight, broken = job(photos, tmp_path / "straight", config), job(photos, tmp_path / "broken", config)
    bootstrap(straight)
    save, write = finetuning.save_checkpoint, Squares.write

    class Killed(Exception):
        pass

    calls = 0

    def dies(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise Killed

    monkeypatch.setattr(finetuning, "save_checkpoint", lambda *given: (save(*given), dies())[0])
    monkeypatch.setattr(Squares, "write", lambda *given: (write(*given), dies())[0])
    deaths = 0
    while True:
        try:
            bootstrap(job(photos, tmp_path / "broken", config))
            break
        except Killed:
            deaths += 1
    assert deaths > 5
    for name in ("mbd_2", "contrast_2", "fused", "boundary"):
        assert same(straight.work / name / "weights.safetensors", broken.work / name / "weights.safetensors"), name


def test_the_moving_average_is_exact(photos: Path, tmp_path: Path) -> None:
    work = job(photos, tmp_path / "work")
    prepare(work, (), lambda _, image: {})
    images = work.squares("images")
    torch.manual_seed(0)
    networks = [SaliencyNet("test_resnet", 8).eval() for _ in range(2)]
    first, second = work.squares("one"), work.squares("two")
    pseudo._average(networks[0], images, None, first, 0.7)
    pseudo._average(networks[1], images, first, second, 0.7)
    assert len(images.parts) == 3
    for row in range(10):
        refined = []
        for network in networks:
            found = predict(network, torch.from_numpy(np.array(images[row])[None]))[0].numpy()
            refined.append(255 * sharpen(found, np.array(images[row])))
        np.testing.assert_allclose(first[row], refined[0], atol=0.51)
        np.testing.assert_allclose(second[row], 0.7 * first[row].astype(float) + 0.3 * refined[1], atol=0.51)


@pytest.mark.slow
def test_a_boundary_network_overfits_given_masks(photos: Path, tmp_path: Path) -> None:
    config = replace(TINY, boundary_steps=80)
    network = learn_from_masks(job(photos, tmp_path / "work", config), MaskFolder(tmp_path / "photos-masks"))
    quality = MaskQuality()
    for seed in range(10):
        image, inside = ball(seed)
        values = predict(network, torch.from_numpy(to_square(image, 48)[None]))[0].numpy()
        quality.add(to_image(values, image, sharp=False), inside)
    assert quality.scores().iou > 0.85
    lines = (tmp_path / "work" / "boundary" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < 0.7 * losses[0]  # the coarse outputs can't do much better on 48 px


def test_images_without_object_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for seed in range(5):
        Image.new("RGB", (60, 50), (seed * 10, 90, 120)).save(folder / f"{seed}.png")
    with pytest.raises(EmptyCollection, match="none of the 5 images has a usable pseudo-label from mbd, contrast"):
        learn_from_priors(job(folder, tmp_path / "work"))


@pytest.mark.slow
def test_a_prior_without_labels_is_left_out(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pseudo.all_priors

    def priors(image: np.ndarray, which: tuple[str, ...]) -> dict[str, np.ndarray]:
        maps = real(image, which)  # type: ignore[arg-type]
        return {**maps, "contrast": maps["contrast"] * 0}

    monkeypatch.setattr(pseudo, "all_priors", priors)
    work = job(photos, tmp_path / "work")
    assert iou(learn_from_priors(work), 48) > 0.7
    assert not (work.work / "contrast_1").exists()


def test_a_network_that_finds_nothing_teaches_nobody(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo, "sharpen", lambda values, image: values * 0)
    work = job(photos, tmp_path / "work")
    monkeypatch.setattr(pseudo, "learn_from_priors", lambda _: SaliencyNet("test_resnet", 8))
    with pytest.raises(EmptyCollection, match="finds an object in none of its 10 images"):
        bootstrap(work)


def test_preparing_goes_on_and_keeps_its_images(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, images=9)
    work, seen, most = job(photos, tmp_path / "work", config), [], 5
    monkeypatch.setattr(ahead, "usable_cores", lambda: 1)  # in order

    def make(name: str, image: np.ndarray) -> dict[str, np.ndarray]:
        if len(seen) == most:
            raise KeyboardInterrupt
        seen.append(name)
        return {"values": image[..., 0] / np.float32(255)}

    with pytest.raises(KeyboardInterrupt):
        prepare(work, ("values",), make)
    assert work.squares("values").has(0)
    assert not work.squares("values").has(1)
    Image.fromarray(ball(50)[0]).save(photos / "00.png")  # one that came since
    work, most = job(photos, tmp_path / "work", config), 100
    prepare(work, ("values",), make)
    chosen = list(json.loads((tmp_path / "work" / "images.json").read_text()))
    assert len(chosen) == 9
    assert "00" not in chosen
    assert seen == [*chosen[:5], *chosen[4:]]  # the first part of four is not made again
    images, values = work.squares("images"), work.squares("values")
    assert len(images) == len(values) == 9
    for row, name in enumerate(chosen):
        expected = to_square(np.array(Image.open(photos / f"{name}.png")), 48)
        np.testing.assert_array_equal(images[row], expected)
        np.testing.assert_allclose(values[row], expected[..., 0].astype(float), atol=1)


def test_unreadable_images_are_left_out_or_too_many(photos: Path, tmp_path: Path) -> None:
    for name in ("0.png", "1.png", "2.png", "3.png"):  # a whole part
        (photos / name).write_bytes(b"")
    with pytest.raises(TooManyBadImages):
        prepare(job(photos, tmp_path / "strict"), (), lambda _, image: {})
    work = replace(job(photos, tmp_path / "work"), max_bad=0.5)
    prepare(work, (), lambda _, image: {})
    assert len(work.squares("images")) == 6
    assert len(work.squares("images").parts[0]) == 0
    np.testing.assert_array_equal(work.squares("images")[0], to_square(ball(4)[0], 48))


def test_crops_are_keyed_and_cut_image_and_targets_alike(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    image = np.stack([rows * 8, columns * 8, rows * 0], 2)
    images, target = Squares(tmp_path / "images"), Squares(tmp_path / "target")
    images.write(0, np.stack([image * 0, image]))
    target.write(0, np.stack([rows, columns]))
    crops = Crops(images, [target, target], [1], crop=0.7, seed=3)
    first, again, other = crops[0, 0], crops[0, 0], crops[1, 0]
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    pixels, cut_target = first
    assert pixels.shape == (32, 32, 3)
    assert cut_target.shape == (2, 32, 32)
    # Colours change, but what grows with the column still does so, in the same direction.
    green, place = pixels[..., 1].astype(float).mean(0), cut_target[0].astype(float).mean(0)
    assert np.corrcoef(green, place)[0, 1] > 0.95
    spans = [int(target.max()) - int(target.min()) + 1 for target in (crops[epoch, 0][1][0] for epoch in range(40))]
    assert 22 <= min(spans) < 25  # 0.7 of 32
    assert 30 <= max(spans) <= 32
    mirrored = {bool(crops[epoch, 0][1][0, 0, 0] > crops[epoch, 0][1][0, 0, -1]) for epoch in range(12)}
    assert mirrored == {True, False}


def test_cut_is_the_mask_or_nothing() -> None:
    values = np.zeros((40, 40), np.uint8)
    assert not cut(values).any()
    assert not cut(values + np.uint8(255)).any()  # full
    values[10:30, 10:30], values[0, 0] = 200, 250
    found = cut(values)
    assert set(np.unique(found)) == {0, 255}
    assert found.astype(bool).sum() == 400  # without the speck


def test_confident_rows_are_the_most_certain_usable_ones(tmp_path: Path) -> None:
    maps = np.zeros((5, 40, 40), np.uint8)
    for row, value in enumerate((255, 150, 0, 200, 230)):
        maps[row, 10:30, 10:30] = value
    squares = Squares(tmp_path / "maps")
    squares.write(0, maps)
    assert confident_rows(squares, 0.5) == [0, 4]
    assert confident_rows(squares, 1.0) == [0, 1, 3, 4]
    assert confident_rows(squares, 0.01) == [0]


def test_damaged_work_is_refused(photos: Path, tmp_path: Path) -> None:
    work = job(photos, tmp_path / "work")
    prepare(work, (), lambda _, image: {})
    work.squares("images").path(1).write_bytes(b"no array")
    with pytest.raises(CheckpointError, match=r"part_0001.npy is damaged"):
        _ = work.squares("images").parts
    (work.work / "fused").mkdir()
    (work.work / "fused" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="does not hold this network"):
        learn_from_priors(work)


def test_initial_weights_reach_the_encoder(photos: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(7)
    state = SaliencyNet("test_resnet", 8).encoder.backbone.state_dict()
    save_file(state, tmp_path / "init.safetensors")
    started = pseudo._start(
        job(photos, tmp_path / "work", replace(TINY, init=tmp_path / "init.safetensors")), SaliencyNet, "fused"
    )
    assert all(torch.equal(state[key], value) for key, value in started.encoder.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 1.5}, "160 and 1.5"),
        ({"size": 8}, "size >= 22"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"momentum": 1.0}, "momentum in"),
        ({"confident": 0.0}, "confident in"),
        ({"lr": 0.0}, "lr > 0"),
        ({"priors": ()}, "at least one"),
        ({"priors": ("mbd", "mbd")}, "each once"),
        ({"priors": ("dsr",)}, "dsr"),
    ],
)
def test_settings_that_can_not_work(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(NetworkConfig(), **change)  # type: ignore[arg-type]


@pytest.mark.slow
def test_scenes_with_several_things_still_train(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(5):
        Image.fromarray(draw_scene(seed)[0]).save(tmp_path / "photos" / f"{seed}.png")
    config = replace(TINY, priors=("mbd",), rounds=1, round_steps=6, steps=6, precision="bf16-mixed")
    network = learn_from_priors(job(tmp_path / "photos", tmp_path / "work", config))
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
