"""Promise 16: with the network switched off everything works; no address is ever asked for.

Without the right to switch it off (`unshare -n`), a socket that leaves the machine is refused inside of Python instead.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torture.parts._runs import ROOT
from torture.rows import Row

PROMISE = "with the network switched off everything works, and no address is ever asked for"

_GUARD = """
import runpy, socket, sys
asked = []
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        asked.append(address); raise OSError(f"refused: {address}")
    return connect(self, address, *rest)
connect = socket.socket.connect
socket.socket.connect = refuse
def lookup(host, *rest, **named):
    asked.append(host); raise OSError(f"refused: {host}")
socket.getaddrinfo = lookup
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    sys.stderr.write(f"asked for: {asked}\\n")
"""


def run(work: Path, quick: bool) -> list[Row]:
    """The demo of the first page: train, cluster, segment, report; quick = with a start and two clusters alone."""
    (work / "offline").mkdir(parents=True, exist_ok=True)
    guard = work / "offline" / "guard.py"
    guard.write_text(_GUARD)
    off = ["unshare", "-n"]
    if subprocess.run([*off, "true"], capture_output=True, check=False).returncode:
        off = []
    words = [
        *off,
        sys.executable,
        str(guard),
        str(ROOT / "examples" / "demo.py"),
        "--out",
        str(work / "offline" / "run"),
    ]
    words += ["-k", "2"] if quick else []
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    page = work / "offline" / "run" / "report.html"
    ok = done.returncode == 0 and page.is_file() and "asked for: []" in done.stderr
    how = "unshare -n, and no address asked for" if off else "no address asked for"
    return [Row("the quick start without a network", 1, ok, how if ok else done.stderr[-300:])]
