"""A studio of measured images: any number of channels, void, windows of rasters and pages of stacks."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import selfseg
from selfseg.collection.opening import collect_for
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.windows import as_measured
from selfseg.errors import ConfigError
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.studio.regions import VOID, RegionStore, regions_of
from selfseg.studio.studio import Studio


def write(folder: Path, channels: int, pages: int = 1, size: tuple[int, int] = (72, 96), count: int = 3) -> Path:
    """Float images of blobs, whose left fifth was not measured; the last one is nothing but that."""
    folder.mkdir()
    for i in range(count):
        rng = np.random.default_rng([i, channels])
        blobs = rng.random((pages, channels, 6, 8)).astype(np.float32)
        large = np.stack([[cv2.resize(each, size[::-1]) for each in page] for page in blobs])
        large[..., : size[1] // 5] = np.nan
        if i == count - 1 and count > 1:
            large[:] = np.nan
        values = large if pages > 1 else large[0]
        axes = "ZCYX" if pages > 1 else "CYX"
        tifffile.imwrite(folder / f"im{i}.ome.tif", values, metadata={"axes": axes}, tile=(32, 32))
    return folder


def make_run(out: Path, images: Path, window: int | None = None, pages: str = "auto") -> Path:
    channels = as_measured(list_images(images), pages=pages)[0].channels
    assert channels is not None
    torch.manual_seed(0)
    config = EmbedderConfig(
        backbone="test_resnet", output_stride=32, dim=8, resolution=64, smooth=2.0, channels=channels, window=window
    )
    Embedder(config).save(out / "embedder")
    (out / "log.jsonl").write_text("")
    selfseg.cluster(out, images, k=(3,), points=300, progress=False, propose=False)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_void_is_in_no_region_and_in_no_mask(tmp_path: Path, channels: int) -> None:
    images = write(tmp_path / "images", channels)
    run = make_run(tmp_path / "run", images)
    with Studio(run, images, device="cpu", progress=False) as studio:
        store = studio.store
        assert store.names == ("im0", "im1")  # of the third nothing was measured
        superpixels, _ = studio.regions(0)
        assert (superpixels[:, : superpixels.shape[1] // 6] == VOID).all()
        assert store.areas[: store.first[1]].sum() == pytest.approx(0.8, abs=0.03)
        with pytest.raises(ConfigError, match="nothing was measured"):
            studio.click(0, [(0.02, 0.5)], 5, "a")
        studio.name("3/0", "a")
        studio.click(0, [(0.02, 0.5), (0.6, 0.5)], 5, "b")
        assert len(studio.queue(3)) > 0
        studio.audit_start(20, 1)
        audit = studio.audit()
        assert audit is not None
        assert all(store.region_at(place.image, place.x, place.y) != VOID for place in audit.places)
        state = studio.state()
        assert len(state.channels) == channels
        for shown in (None, (channels - 1,)):
            data = studio.crop(0, (0.0, 0.2, 0.9, 0.9), "3/1", 80, shown)
            assert np.asarray(Image.open(BytesIO(data))).shape[2] == 3
        with pytest.raises(ConfigError, match="no channel 7"):
            studio.photograph(0, 50, (7,))
        studio.hand_over(["palette"], False)
        studio._job.wait()
        job = studio.job()
        assert job is not None
        assert job.error is None
        files = studio._photographs.file_names
        assert files == ["im0.ome.tif", "im1.ome.tif"]


@pytest.mark.slow
def test_windows_and_pages_are_images_of_their_own(tmp_path: Path) -> None:
    raster = write(tmp_path / "raster", 2, size=(150, 200), count=1)
    run = make_run(tmp_path / "run", raster, window=64)
    store = RegionStore.build(run, raster, device="cpu", progress=False)
    assert store.names[:2] == ("im0/y0-x0", "im0/y0-x45")
    assert len(set(store.hashes)) == len(store.names)
    studio = Studio(run, raster, device="cpu", progress=False)
    assert set(studio._photographs.files) == {None}
    labels = tmp_path / "labels"
    labels.mkdir()
    mask = np.zeros((150, 200), np.uint8)
    mask[:, 100:] = 1
    Image.fromarray(mask).save(labels / "im0.png")
    (labels / "classes.txt").write_text("left\nright\n")
    report = studio.take_labels(labels)
    assert report.images > 4
    assert report.clicks > 0
    studio.close()
    stack = write(tmp_path / "stack", 2, pages=3, count=1)
    names = collect_for(make_run(tmp_path / "other", stack), stack).names
    assert names == ("im0/z0", "im0/z1", "im0/z2")
    with Studio(tmp_path / "other", stack, device="cpu", progress=False) as studio, pytest.raises(ConfigError):
        studio.take_labels(labels)


def test_regions_of_levels_touch_across_void() -> None:
    seen = np.full((40, 60, 5), 90, np.uint8)
    seen[:, 30:] = 200
    seen[:, 25:35] = 0
    regions, vectors, facts, tree = regions_of(
        seen, np.random.default_rng(0).random((4, 10, 15), np.float32), rgb=False
    )
    inside = regions[regions != VOID]
    assert np.array_equal(regions == VOID, ~seen.any(2))
    assert np.array_equal(np.unique(inside), np.arange(len(facts)))
    assert len(vectors) == len(facts) == len(tree) + 1
    assert facts["area"].sum() == pytest.approx(50 / 60)
