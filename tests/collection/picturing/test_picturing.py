from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny
from selfseg.cli import main
from selfseg.collection.picturing.film import embedder_prefix, film
from selfseg.collection.picturing.probabilities import probabilities, probability_maps
from selfseg.errors import ConfigError, RunError
from selfseg.training.loop import train

QUIET = {"device": "cpu", "progress": False}


@pytest.mark.parametrize("top", [3, 99])
def test_probabilities_are_a_softmax_of_resized_cosines(top: int) -> None:
    torch.manual_seed(0)
    embedding, vectors, size = torch.randn(5, 4, 6), F.normalize(torch.randn(7, 5), dim=1), (23, 17)
    found = probability_maps(embedding, vectors, 0.2, size, top)
    cells = F.normalize(embedding, dim=0)
    cosines = torch.einsum("kd,dhw->khw", vectors, cells)
    expected = F.interpolate(cosines[None], size=size, mode="bilinear", align_corners=False)[0].div(0.2).softmax(0)
    assert torch.allclose(found.mean, expected.mean((1, 2)), atol=1e-5)
    assert torch.equal(found.best, expected.argmax(0))
    assert torch.allclose(found.sure, expected.amax(0), atol=1e-5)
    assert found.entropy == pytest.approx(float(-(expected * expected.log()).sum(0).mean()), rel=1e-4)
    order = expected.mean((1, 2)).argsort(descending=True)[:top].tolist()
    assert list(found.chosen) == order
    assert torch.allclose(found.probability, expected[order], atol=1e-5)


def test_the_teacher_is_found_where_it_is_what_is_kept() -> None:
    method = {"twin.student.w": torch.zeros(2), "twin.teacher.w": torch.ones(2), "head.w": torch.ones(3)}
    assert embedder_prefix(method, {"w": torch.ones(2)}) == "twin.teacher."
    assert embedder_prefix(method, {"w": torch.full((2,), 3.0)}) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vice", "slotcon", "vice_on_pyramid"])
def test_pages_of_a_run(method: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(tiny.RUNS[method](photos, run, steps=4, checkpoint_every=1, keep=3), progress=False)
    page = probabilities(run, photos, count=2, top=2, **QUIET)
    text = page.read_text()
    assert text.count("data:image/webp") == 2 * 5 + (0 if method == "slotcon" else 2 * 3)
    assert ("Where the centres of views are drawn" in text) == (method != "slotcon")
    assert "that of the training" in text

    assert film(run, photos, count=2, **QUIET) == run / "film.html"
    names = (["before the first step"] if method == "vice_on_pyramid" else []) + ["step 2", "step 3", "step 4"]
    with Image.open(run / "film.webp") as moving:
        assert moving.n_frames == len(names)
    text = (run / "film.html").read_text()
    assert all(f"<figcaption>{name}</figcaption>" in text for name in names)
    assert "step 4 1.00" in text  # the last frame is the embedder itself
    for verb in ("probabilities", "film"):
        assert main([verb, str(run), str(photos), "--count", "1", "--device", "cpu"]) == 0
    assert "film.html" in capsys.readouterr().out


@pytest.mark.slow
def test_what_a_film_and_probabilities_need_is_told(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny.moco(photos, run, steps=1, keep=1), progress=False)
    with pytest.raises(RunError, match="keeps 1 checkpoints"):
        film(run, photos, **QUIET)
    with pytest.raises(RunError, match="no prototypes"):
        probabilities(run, photos, **QUIET)
    with pytest.raises(ConfigError, match="temperature must be at least 1e-06, not -1"):
        probabilities(run, photos, temperature=-1.0, **QUIET)
    with pytest.raises(ConfigError, match="count must be at least 1"):
        film(run, photos, count=0, **QUIET)
