"""Promise 10: where memory runs out, blocks are recomputed and the same is learned; or an error says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torture.parts._runs import ROOT, photographs, state_hash
from torture.rows import Row

PROMISE = "where memory runs out, blocks are recomputed and the same is learned, or an error says what to do"

_SCRIPT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from selfseg.errors import OutOfMemory
from selfseg.training import loop
from tiny import vice
images, out, headroom = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
recipe = vice(images, out, steps=4, batch_size=16, accelerator="cpu", devices=1)
recipe = replace(recipe, method=replace(recipe.method, views=replace(recipe.method.views, size=160, short_side=160)))
original, done = loop.take_step, []
def limited(*words):
    if headroom and not done:  # what Python, torch and the network take by themselves is not counted
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + headroom * 2**20, resource.RLIM_INFINITY))
    done.append(1)
    return original(*words)
loop.take_step = limited
try:
    loop.train(recipe, progress=False)
except OutOfMemory as error:
    sys.exit(f"OutOfMemory: {error}")
"""


def run(work: Path, quick: bool) -> list[Row]:
    """The same run with all memory, and with less and less of it (RLIMIT_AS); quick = with one limit."""
    images = photographs(work)
    (work / "memory").mkdir(exist_ok=True)
    script = work / "memory" / "script.py"
    script.write_text(_SCRIPT)

    def attempt(headroom: int) -> tuple[int, str, Path]:
        out = work / "memory" / f"run{headroom}"
        words = [sys.executable, str(script), str(ROOT / "tests"), str(images), str(out), str(headroom)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
        return done.returncode, " ".join(done.stderr.split()), out

    code, said, straight = attempt(0)
    assert code == 0, said
    wanted, rows = state_hash(straight), []
    for headroom in (48,) if quick else (512, 256, 128, 96, 64, 32, 8):
        code, said, out = attempt(headroom)
        again = "beginning again, with --recompute" in said
        same = code == 0 and state_hash(out) == wanted
        clear = code != 0 and "OutOfMemory: there was not enough memory" in said
        how = ("recomputed, same hash" if again else "enough, same hash") if same else said[-160:]
        rows.append(Row(f"{headroom} MiB beyond what is there before step 1", 1, same or clear, how))
    return rows
