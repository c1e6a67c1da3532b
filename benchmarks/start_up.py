"""How long the command line and the package take to start, as medians of whole processes.

python benchmarks/start_up.py [--repeats 9] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "python -c pass": ["-c", "pass"],
    "import selfseg": ["-c", "import selfseg"],
    "selfseg --help": ["-m", "selfseg", "--help"],
    "selfseg cluster --help": ["-m", "selfseg", "cluster", "--help"],
    "selfseg evaluate --help": ["-m", "selfseg", "evaluate", "--help"],
    "selfseg train vice --help": ["-m", "selfseg", "train", "vice", "--help"],
}


def seconds(words: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "start_up.json")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for words in CASES.values():  # the first start compiles .pyc files
        seconds(words)
    for _ in range(options.repeats):  # taken in turn, so that a busy moment falls on all
        for name, words in CASES.items():
            times[name].append(seconds(words))
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    text = json.dumps(result, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
