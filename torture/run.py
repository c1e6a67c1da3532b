"""Run the attempts to break selfseg, and write what came of them as a table.

    python torture/run.py                        # all parts, in full: hours
    python torture/run.py --part bombs --quick   # one of them, in seconds

Each part works in a folder of its own, which is removed afterwards if nothing went wrong. The exit code is 1 if
anything did.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torture.parts  # noqa: E402
from torture.rows import Row  # noqa: E402


def names() -> list[str]:
    """The parts there are."""
    return sorted(m.name for m in pkgutil.iter_modules(torture.parts.__path__) if not m.name.startswith("_"))


def run_part(name: str, work: Path, quick: bool) -> tuple[str, list[Row], float]:
    """(the promise, the rows, seconds) of one part; an error that it lets through is a row, too."""
    begin = time.perf_counter()
    module = importlib.import_module(f"torture.parts.{name}")
    work.mkdir(parents=True, exist_ok=True)
    try:
        rows = module.run(work, quick)
        if not rows:
            rows = [Row("nothing was tried", 0, False)]
    except Exception:
        rows = [Row("the part itself", 1, False, traceback.format_exc(limit=-4))]
    return str(module.PROMISE), rows, time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=names(), default=names(), help="the parts to run; all by default")
    parser.add_argument("--quick", action="store_true", help="the half that the test suite runs")
    parser.add_argument("--out", type=Path, default=ROOT / "torture" / "results", help="folder of the table")
    parser.add_argument("--work", type=Path, default=None, help="where to work; a temporary folder by default")
    args = parser.parse_args(arguments)
    work = args.work or Path(tempfile.mkdtemp(prefix="torture-"))
    wrong, lines = 0, list[str]()
    for name in args.part:
        print(f"== {name}", flush=True)
        promise, rows, seconds = run_part(name, work / name, args.quick)
        lines += ["", f"## {name}: {promise}", "", "| what was tried | tries | result | detail |", "|---|--:|---|---|"]
        for row in rows:
            wrong += not row.ok
            print(f"{'held  ' if row.ok else 'BROKEN'} {row.tries:6d}  {row.what}  {row.detail}", flush=True)
            cells = (row.what, str(row.tries), "held" if row.ok else "**broken**", row.detail)
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
        lines += ["", f"{sum(row.tries for row in rows)} tries in {seconds:.1f} s"]
        if all(row.ok for row in rows):
            shutil.rmtree(work / name, ignore_errors=True)
    head = (
        f"# What was tried to break selfseg{', the quick half' if args.quick else ''}\n\n"
        f"`python torture/run.py --part {' '.join(args.part)}{' --quick' if args.quick else ''}`, "
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    table = args.out / ("-".join(args.part) + ".md" if len(args.part) < len(names()) else "all.md")
    table.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    print(f"{'all held' if not wrong else f'{wrong} broken'}; the table: {table}")
    if not wrong and args.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
