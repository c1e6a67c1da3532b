"""Show the faults of the first version (commit 103c0d0), and that they are gone.

    python torture/faults.py                                  # with this interpreter's selfseg: all must be gone
    python torture/faults.py --before OLD/.venv/bin/python    # and with an old one's: all must be there

Each fault is provoked by calls of the command (some by a few lines of Python) on images that are drawn and on a run of
three steps. The table goes to torture/results/faults.md; the exit code is 1 if anything is not as it must be. Mounting
needs root on Linux; where it is not allowed, those faults say nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from torture.first_version import images, labels, machines, runs, stored, training  # noqa: E402, F401
from torture.first_version.bench import FAULTS, Bench, Fault, Seen  # noqa: E402


def look(bench: Bench, shown: Fault) -> Seen:
    """Provoke one fault in a folder of its own."""
    bench.work = bench.root / "work"
    shutil.rmtree(bench.work, ignore_errors=True)
    bench.work.mkdir()
    try:
        return shown.show(bench)
    except Exception:
        return Seen(None, traceback.format_exc(limit=-2))


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:230]


def main(arguments: Sequence[str] | None = None) -> int:
    """Show them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter that has selfseg")
    parser.add_argument("--before", type=Path, help="another one, with the version that has the faults")
    parser.add_argument("--only", nargs="+", default=[""], help="those whose description or module has such a text")
    parser.add_argument("--out", type=Path, default=ROOT / "torture" / "results" / "faults.md")
    options = parser.parse_args(arguments)
    texts = [(shown, f"{shown.what} {shown.show.__module__}".lower()) for shown in FAULTS]
    chosen = [shown for shown, text in texts if any(word.lower() in text for word in options.only)]
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    benches = [Bench(python.absolute(), work / name) for name, python in
               (("before", options.before), ("now", options.python)) if python]  # fmt: skip
    wrong, lines = 0, list[str]()
    for shown in chosen:
        cells = [cell(shown.what), f"`{shown.test}`"]
        for bench in benches:
            begin = time.monotonic()
            seen = look(bench, shown)
            wanted = seen.fault is (bench.root.name == "before" and not shown.gone)
            wrong += not wanted
            word = {True: "fault", False: "held", None: "unclear"}[seen.fault]
            print(f"{'' if wanted else '!! '}{bench.root.name}: {word}: {shown.what}: {seen.text} "
                  f"({time.monotonic() - begin:.1f} s)", flush=True)  # fmt: skip
            cells.append(cell(f"{word}: {seen.text}".replace(str(bench.root), "")))
        lines.append("| " + " | ".join(cells) + " |")
    for bench in benches:
        bench.close()
    head = ["fault", "test that holds it", *(["commit 103c0d0"] if options.before else []), "now"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]
    options.out.write_text("\n".join(table) + "\n", encoding="utf-8")
    print(f"{len(chosen)} faults, {wrong} not as they must be; the table: {options.out}")
    shutil.rmtree(work, ignore_errors=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
