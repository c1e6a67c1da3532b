"""Faults of the machine around: pipes, full disks, a clean clone, the first call of an installation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from torture.first_version.bench import Bench, Seen, fault, refused


@fault(
    "`evaluate --help | head -3`: BrokenPipeError",
    "tests/cli/test_pipes.py::test_a_reader_that_has_seen_enough_is_no_error",
)
def _head(bench: Bench) -> Seen:
    # With three lines it depends on the moment: a fast writer is done before `head` closes the pipe.
    done = [bench.process(shell=f"$PYTHON -m selfseg evaluate --help | head -n {lines}") for lines in (3, 0)]
    broken = any("BrokenPipe" in each.said for each in done)
    return Seen(broken, "BrokenPipeError" if broken else "three lines")


@fault(
    "`embed` on a full disk dies of SIGBUS and leaves a `.tmp`",
    "tests/collection/test_verbs.py::test_embeddings_are_not_written_through_a_map",
)
def _full(bench: Bench) -> Seen:
    run = bench.run()
    small = bench.work / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        return Seen(None, "mounting is not allowed here")
    try:
        done = bench.call("embed", run, "photos", "--out", small / "out")
        left = [path.name for path in small.rglob(".tmp*")]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    seen = refused(done)
    return Seen(seen.fault or bool(left), seen.text + (f", and {left[0]} is left" if left else ""))


@fault(
    "`make bench` in a clean clone: DataError",
    "tests/benchmarks/test_shipped.py::test_what_the_packages_ship_is_enough",
)
def _bench(bench: Bench) -> Seen:
    code = "import selfseg; print(selfseg.__file__)"
    source = Path(bench.call(code=code).last).parents[2]
    clone = bench.work / "a" / "clone"
    clone.mkdir(parents=True)
    for name in ("benchmarks", "examples", "src", "tests"):
        subprocess.run(["cp", "-r", str(source / name), str(clone / name)], check=True)
    try:
        done = bench.process(shell=f"cd {clone} && exec $PYTHON benchmarks/run.py views", limit=60)
    finally:
        subprocess.run(["rm", "-rf", str(clone)], check=True)
    if done.code is None:
        return Seen(False, "it measures (ended after 60 s)")
    return Seen(bool(done.crashed) or done.code != 0, done.crashed or f"exit {done.code}: {done.last}")


@fault(
    "the first `masks` of an installation compiles for a long time without a word",
    "tests/ops/regions/test_slic.py::test_the_first_compilation_is_told",
)
def _compiling(bench: Bench) -> Seen:
    bench.photos()
    cache = {"NUMBA_CACHE_DIR": str(bench.work / "cache"), "XDG_CACHE_HOME": str(bench.work / "home")}
    done = bench.call("masks", "photos", "--out", "out", limit=200, env=cache)
    if done.code:
        return Seen(None, done.last)
    told = "compil" in done.words.lower()
    return Seen(not told, f"{'told' if told else 'nothing was said'}; {done.seconds:.0f} s")
