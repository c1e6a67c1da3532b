"""The layouts that labelled data is drawn in, on made scenes: all are the same data to the pixel."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from selfseg.data.labelled.legend import Legend

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(name="drawings")
def _drawings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("label_layouts")


def test_every_layout_gives_the_same_confusion_matrix(drawings: ModuleType, labelled: Path, tmp_path: Path) -> None:
    pairs, names = drawings.pairs_of(labelled, 2)
    rows = list(drawings.compare(drawings.Drawing(pairs, Legend.of(names)), tmp_path / "drawn"))
    assert len(rows) == len(drawings.LAYOUTS) >= 10
    assert rows[0]["pixels"] > 0
    assert rows[0]["void"] > 0
    assert [row["layout"] for row in rows if not row["same"]] == []
    splits = {row["layout"]: row["splits"] for row in rows}
    assert splits["undivided"] == ["train", "val"]  # drawn
    assert (splits["together"], splits["test-alone"], splits["zipped"]) == (["all"], ["test"], ["train", "valid"])
