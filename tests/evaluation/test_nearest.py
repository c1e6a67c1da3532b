from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from selfseg.cli import main
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.evaluation.nearest import nearest, neighbours
from selfseg.models.embedder import Embedder, EmbedderConfig
from tiny import masks_of

SMALL = EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    Embedder(SMALL).save(tmp_path / "run" / "embedder")
    return tmp_path / "run"


def test_neighbours_are_those_of_a_literal_search() -> None:
    torch.manual_seed(1)
    vectors, images = F.normalize(torch.randn(30, 4), dim=1), [i // 2 for i in range(30)]
    for query, apart in ((0, 0), (7, 0), (7, 3)):
        found = neighbours(vectors, images, query, 4, apart)
        taken, expected = [images[query]], []
        order = sorted(range(30), key=lambda place: -float(vectors[place] @ vectors[query]))
        for place in order:
            if len(expected) < 4 and min(abs(images[place] - other) for other in taken) >= max(1, apart):
                taken.append(images[place])
                expected.append(place)
        assert [one.place for one in found] == expected
        assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)


def test_every_query_has_its_row_and_the_draw_is_kept(run: Path, photos: Path) -> None:
    settings = {"masks": masks_of(photos), "count": 3, "top": 2, "device": "cpu", "progress": False}
    page = nearest(run, photos, **settings)
    text = page.read_text()
    assert page == run / "nearest.html"
    assert text.count("<figure class=marked>") == 3
    assert text.count("data:image/webp") == 9
    assert "drawn with seed 0" in text
    pictures = text[text.index("<main>") :].partition("<footer>")[0]
    assert nearest(run, photos, **settings).read_text().partition("<footer>")[0].endswith(pictures)
    named = nearest(run, photos, **{**settings, "queries": ["photo3"]}).read_text()
    assert "The queries are named" in named
    assert named.count("<figure class=marked>") == 1


def test_what_is_not_there_is_told(run: Path, photos: Path, tmp_path: Path) -> None:
    quiet = {"device": "cpu", "progress": False}
    with pytest.raises(ConfigError, match="no saliency head"):
        nearest(run, photos, **quiet)
    with pytest.raises(ConfigError, match="no image 'photo9'"):
        nearest(run, photos, masks=masks_of(photos), queries=["photo9"], **quiet)
    with pytest.raises(EmptyCollection, match="nothing to compare"):
        nearest(run, photos, masks=masks_of(photos), min_share=0.9, **quiet)
    with pytest.raises(ConfigError, match="count and top >= 1"):
        nearest(run, photos, masks=masks_of(photos), top=0, **quiet)
    assert not (run / "nearest.html").exists()


def test_the_saliency_head_may_say_where_objects_are(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64, saliency=True))
    embedder.saliency_head.bias.data.fill_(2.0)
    embedder.save(tmp_path / "run" / "embedder")
    assert main(["nearest", str(tmp_path / "run"), str(photos), "--count", "2", "--device", "cpu"]) == 0
    assert "nearest.html" in capsys.readouterr().out
    assert "the saliency head" in (tmp_path / "run" / "nearest.html").read_text()
