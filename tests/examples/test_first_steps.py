"""The notebook of first steps is its script, shows what it says, and runs in a kernel."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "first_steps.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    pytest.importorskip("nbformat")
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "tools" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept() -> Any:
    return json.loads(NOTEBOOK.read_text("utf-8"))


def source(cell: Any) -> str:
    return "".join(cell["source"])


def test_the_notebook_is_its_script(maker: ModuleType) -> None:
    made = maker.cells_of(SCRIPT.read_text("utf-8"))
    assert [(cell["cell_type"], source(cell)) for cell in kept()["cells"]] == [
        (cell.cell_type, cell.source) for cell in made
    ], "run: python tools/notebook.py examples/first_steps.py"


def test_the_script_is_taken_apart(maker: ModuleType) -> None:
    cells = maker.cells_of(
        "# %% [markdown]\n# # A title\n#\n# Words.\n\n# %%\na = 1\n\n# no cell: %%\nb = 2\n# %%\nc\n"
    )
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "# A title\n\nWords."),
        ("code", "a = 1\n\n# no cell: %%\nb = 2"),
        ("code", "c"),
    ]
    with pytest.raises(SystemExit, match="begin"):
        maker.cells_of("a = 1\n# %%\n")


def test_what_is_kept_can_be_shown_anywhere() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    for place in (*(f"/{folder}/" for folder in ("home", "root", "tmp", "work", "Users")), "site-packages", "<script"):
        assert place not in text
    outputs = [output for cell in kept()["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    outputs = [output for output in outputs if output["output_type"] != "stream"]
    pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output["data"]]
    assert len(pictures) >= 4
    for picture in pictures:
        width, height = Image.open(io.BytesIO(base64.b64decode("".join(picture)))).size
        assert 300 <= width <= 1200
        assert height <= 1200
    cards = ["".join(output["data"]["text/html"]) for output in outputs if "text/html" in output["data"]]
    assert len(cards) >= 6  # run, embedder, clusters, masks, segmenter, results


@pytest.mark.slow
def test_its_cells_run_and_show_something(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One photograph each and small; here and not in a kernel, which takes 7 seconds to import torch."""
    pytest.importorskip("IPython")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import studio_photographs
    from selfseg.recipe_book import pyramid

    whole = pyramid.pyramid_embedder
    monkeypatch.setattr(pyramid, "pyramid_embedder", lambda *given: replace(whole(*given), resolution=64))
    monkeypatch.setattr(studio_photographs.draw, "__defaults__", (1,))
    monkeypatch.setattr(studio_photographs, "SIZE", (120, 90))
    shown: Counter[str] = Counter()
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in maker.cells_of(SCRIPT.read_text("utf-8")):
        if cell.cell_type == "code":
            tree = ast.parse(cell.source.replace("seeds=3", "seeds=1"))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "a cell", "exec"), space)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "the end of a cell", "eval"), space)
                html = getattr(value, "_repr_html_", lambda: None)()
                shown["html" if html else type(value).__name__] += 1
    assert shown["html"] >= 6
    assert shown["Image"] >= 4
    assert (tmp_path / "examples/runs/first_steps/from_arrays/masks/pagoda_upside_down.png").is_file()
