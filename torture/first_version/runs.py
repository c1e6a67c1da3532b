"""Faults of what the verbs write: pairs of files, folders that mix, two at once, what kills leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from torture.first_version.bench import Bench, Seen, fault, refused

TRUST = "tests/collection/test_trust.py"
PAIR = "tests/storage/test_tensors.py::test_a_json_that_a_kill_left_behind_is_passed_over"


def _half_new(bench: Bench, *words: str) -> Path:
    """A run whose k5.safetensors is of a newer call than its k5.json, as a kill between two renames leaves them."""
    run = bench.run()
    kept = (run / "clusters" / "k5.json").read_bytes()
    done = bench.call("cluster", run, "photos", "-k", "5", *words)
    if done.code:
        raise RuntimeError(done.said)
    (run / "clusters" / "k5.json").write_bytes(kept)
    return run


@fault("`cluster` killed between its two renames: old shares beside new centroids, exit 0", PAIR)
def _shares(bench: Bench) -> Seen:
    run = _half_new(bench, "--seed", "1")
    code = (
        "from pathlib import Path\nfrom selfseg.collection.clusters import load_clusters\n"
        "print('SHARES', [round(float(share), 6) for share in load_clusters(Path('run'), 5).share])"
    )
    torn = bench.call(code=code)
    bench.call("cluster", run, "photos", "-k", "5", "--seed", "1")
    whole = bench.call(code=code)
    if "SHARES" not in whole.said:
        return Seen(None, whole.last)
    if torn.code:
        return refused(torn)
    return Seen(torn.last != whole.last, "shares of the newer call" if torn.last == whole.last else "old shares")


@fault("the same with `--position 1`: a traceback of oneDNN", PAIR)
def _place(bench: Bench) -> Seen:
    _half_new(bench, "--position", "1")
    done = bench.call("segment", "run", "photos", "--out", "out", "-k", "5")
    if done.crashed:
        return Seen(True, done.crashed)
    return Seen(False, f"exit {done.code}: {done.words[-150:]}")


_STOP = """
import os, signal, sys
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("0.png"):
        sys.stderr.write("LOOKING\\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
from selfseg.cli import main
sys.addaudithook(watch)
sys.exit(main(sys.argv[1:]))
"""


@fault("two `cluster -k 5` of one run at once: both write", f"{TRUST}::test_two_cannot_cluster_one_run_at_once")
def _two(bench: Bench) -> Seen:
    run = bench.run()
    words = [str(bench.python), "-c", _STOP, "cluster", "run", "photos", "-k", "5"]
    with subprocess.Popen(
        words, cwd=bench.work, env=bench.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        state, end = "", time.monotonic() + 90
        while state != "T" and time.monotonic() < end and first.poll() is None:
            state = Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0]
            time.sleep(0.05)
        done = bench.call("cluster", run, "photos", "-k", "5", "--seed", "1")
        first.send_signal(signal.SIGKILL)
    if state != "T":
        return Seen(None, "the first was never stopped")
    return Seen(True, "the second writes while the first is at work") if done.code == 0 else refused(done)


@fault(
    "`segment` with another k into one folder: old PNGs under a new legend",
    f"{TRUST}::test_maps_of_other_clusters_go_and_unknown_ones_are_refused",
)
def _mixed(bench: Bench) -> Seen:
    run = bench.run()
    bench.call("segment", run, "photos", "--out", "out", "-k", "5")
    before = {path.name: path.read_bytes() for path in (bench.work / "out" / "index").glob("*.png")}
    few = bench.work / "few"
    few.mkdir()
    shutil.copy(bench.work / "photos" / "0.png", few)
    done = bench.call("segment", run, few, "--out", "out", "-k", "3")
    if done.code or len(before) != 6:
        return refused(done) if done.code else Seen(None, f"{len(before)} maps")
    old = [name for name in before if (bench.work / "out" / "index" / name).exists() and name != "0.png"]
    return Seen(bool(old), f"{len(old)} maps of k 5 under the legend of k 3" if old else "they are gone")


_KILLED = """
import os, signal, sys
from selfseg.cli import main
def watch(event, arguments):
    if event == "os.rename" and ".tmp" in str(arguments[0]) and sys.argv[1] in str(arguments[1]):
        os.kill(os.getpid(), signal.SIGKILL)
name = sys.argv.pop(1)
sys.argv.insert(1, name)
sys.addaudithook(watch)
sys.exit(main(sys.argv[2:]))
"""


def _left(bench: Bench, at: str, *words: str) -> Seen:
    """A verb is killed as it gives a file its name, and called again: is the temporary file still there?"""
    bench.run()
    killed = bench.call(at, *words, code=_KILLED, limit=120)
    if killed.code != -signal.SIGKILL:
        return Seen(None, f"it was not killed: {killed.last}")
    first = _temporary(bench.work)
    again = bench.call(*words, limit=120)
    left = _temporary(bench.work)
    if again.code or not first:
        return Seen(None, f"{len(first)} left; {again.last}")
    return Seen(bool(left), f"{len(left)} left after the next call" if left else "removed by the next call")


def _temporary(folder: Path) -> list[str]:
    found = []
    for _, folders, files in os.walk(folder):
        found += [name for name in (*folders, *files) if name.startswith(".tmp")]
    return found


LEFT = "tests/storage/test_leftovers.py::test_what_a_killed_process_left_goes_with_the_next_writing_there"


@fault("a killed `segment` leaves `.tmp-*` for ever", LEFT)
def _segment(bench: Bench) -> Seen:
    return _left(bench, "index", "segment", "run", "photos", "--out", "out", "-k", "3")


@fault("a killed `embed` leaves `.tmp-*` for ever", LEFT)
def _embed(bench: Bench) -> Seen:
    return _left(bench, ".npy", "embed", "run", "photos", "--out", "out")


@fault("a killed `masks` leaves `.tmp-*` for ever", LEFT)
def _masks(bench: Bench) -> Seen:
    return _left(bench, ".png", "masks", "photos", "--out", "out", "--method", "contrast")


@fault("a killed `export` leaves `.tmp-*` for ever, a whole weights file", LEFT)
def _export(bench: Bench) -> Seen:
    return _left(bench, "timm", "export", "run", "--format", "timm")


@fault("a killed `report` leaves `.tmp-*` for ever", LEFT)
def _report(bench: Bench) -> Seen:
    return _left(bench, "report", "report", "run", "--images", "photos")
