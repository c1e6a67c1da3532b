"""The words of docs/start.md's tables are ones that the command line takes, for networks that can be built."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfseg.cli import main
from selfseg.models.embedder import Embedder
from selfseg.training import loop

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "start.md").read_text("utf-8")
SECTION = PAGE.split("\n## Weights of other projects\n")[1].split("\n## ")[0]
WORDS = list(dict.fromkeys(re.findall(r"`(--method\.embedder\.backbone [^`]+)`", SECTION)))


class Called(Exception):
    pass


def test_there_are_rows() -> None:
    assert len(WORDS) >= 12
    assert {"SlotCon", "MaskContrast", "PiCIE", "ViCE", "DINO", "STEGO"} <= set(re.findall(r"\w+", SECTION))


@pytest.mark.slow
@pytest.mark.parametrize("words", WORDS, ids=lambda words: words.split()[-1])
def test_a_rows_words_make_a_pyramid(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(recipe: Any, *_: Any, **__: Any) -> None:
        raise Called(recipe)

    monkeypatch.setattr(loop, "train", stop)
    with pytest.raises(Called) as caught:
        main(["train", "pyramid", "photos", "--out", "runs/other", *shlex.split(words)])
    (recipe,) = caught.value.args
    assert recipe.init == shlex.split(words)[-1]
    with torch.device("meta"):
        # Where cells look is asked of a real network.
        embedder = Embedder(replace(recipe.method.embedder, aligned=False))
    assert embedder.dim == 96
