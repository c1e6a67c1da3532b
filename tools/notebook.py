"""Make the notebook of a script in percent format, with the outputs of a kernel that runs it.

    python tools/notebook.py examples/first_steps.py            # writes examples/first_steps.ipynb
    python tools/notebook.py examples/first_steps.py --no-run   # without outputs

A cell begins at a line `# %%`, a text at `# %% [markdown]`. Needs the extra `dev`. The same cells always get the same
ids, and nothing of this machine is written: paths in outputs are relative, and times are left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

BEGINS = re.compile(r"^# %%( \[markdown\])?$", re.MULTILINE)
LARGEST = 1_500_000  # bytes


def cells_of(script: str) -> list[Any]:
    """The cells of a script, without outputs."""
    marks = list(BEGINS.finditer(script))
    if not marks or script[: marks[0].start()].strip():
        sys.exit("the script has to begin with a line `# %%`")
    ends = [mark.start() for mark in marks[1:]] + [len(script)]
    cells = []
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        text = script[mark.end() : end].strip("\n")
        if mark[1]:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"cell-{number}"))
        else:
            cells.append(nbformat.v4.new_code_cell(text, id=f"cell-{number}"))
    return cells


def notebook_of(script: str) -> Any:
    """The notebook of a script, without outputs."""
    made = nbformat.v4.new_notebook(cells=cells_of(script))
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made.metadata["language_info"] = {"name": "python"}
    return made


def run(notebook: Any, folder: Path) -> None:
    """Run a notebook in a new kernel whose folder is `folder`; its outputs are put into it."""
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}, record_timing=False).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            # What bars and training say while they work is for whoever waits.
            output.get("metadata", {}).clear()
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def main() -> None:
    """What the command line does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("--no-run", action="store_true", help="leave the outputs out")
    options = parser.parse_args()
    made = notebook_of(options.script.read_text("utf-8"))
    if not options.no_run:
        run(made, options.script.parent)
    nbformat.validate(made)
    text = nbformat.writes(made) + "\n"
    if str(Path.cwd()) in text or str(Path.home()) + "/" in text:
        sys.exit("an output holds a path of this machine; change the script so that it doesn't")
    if len(text) > LARGEST:
        sys.exit(f"the notebook has {len(text):,} bytes, and {LARGEST:,} are the most; show fewer or smaller pictures")
    target = options.script.with_suffix(".ipynb")
    target.write_text(text, "utf-8")
    print(f"{target}: {len(made.cells)} cells, {len(text):,} bytes")


if __name__ == "__main__":
    main()
