"""Run every benchmark, one after the other, each in a process of its own with one thread.

    python benchmarks/run.py            # all
    python benchmarks/run.py views slic # some

Every module beside this one that defines `main` is a benchmark and writes its own JSON to benchmarks/results/, but
`gpu` and `gpu_bundle`, which are called by themselves. A benchmark that must be given a run or data is left out
and named, with what it wants. All others run on what the packages ship (`shipped`), so that a clean clone is enough. A
benchmark that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_HERE = ("run", "gpu", "gpu_bundle")  # a card is needed for one, and the other measures nothing
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def find_benchmarks() -> dict[str, Path]:
    """Name and file of every module here with a function `main`."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.stem not in NOT_HERE and any(
            isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body
        ):
            found[path.stem] = path
    return found


def words_of(path: Path) -> list[str]:
    """What a benchmark must be given: names of arguments without a dash, a default or a number of their own."""
    wanted = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            first = ast.literal_eval(node.args[0])
            if not first.startswith("-") and not {"nargs", "default"} & {word.arg for word in node.keywords}:
                wanted.append(first)
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    benchmarks = find_benchmarks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(benchmarks)}; all if left out")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    unknown = set(arguments.names) - set(benchmarks)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(benchmarks)}")
    environment = os.environ | {name: str(arguments.threads) for name in THREADS}
    (HERE / "results").mkdir(exist_ok=True)
    failed = []
    for name in arguments.names or benchmarks:
        if not arguments.names and (wanted := words_of(benchmarks[name])):
            sys.stdout.write(f"== {name}: left out; python benchmarks/{name}.py {' '.join(wanted).upper()}\n\n")
            continue
        start = time.perf_counter()
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, str(benchmarks[name])], env=environment, check=False)
        verdict = "ok" if done.returncode == 0 else f"FAILED with status {done.returncode}"
        sys.stdout.write(f"== {name}: {verdict}, {time.perf_counter() - start:.0f} s\n\n")
        if done.returncode:
            failed.append(name)
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
