"""Faults of training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from torture.first_version.bench import TINY, Bench, Seen, fault, passed, refused

NUMBERS = "tests/cli/test_numbers.py::test_numbers_that_nothing_can_work_with"
WITHOUT_STEPS = [word for number, word in enumerate(TINY) if "--steps" not in TINY[max(0, number - 1) : number + 1]]


def _number(bench: Bench, *words: str) -> Seen:
    bench.photos()
    rest = WITHOUT_STEPS if "--epochs" in words else TINY
    return refused(bench.call("train", "vice_scratch", "photos", "--out", "run", "--workers", "0", *rest, *words))


@fault("`--optimizer.base-lr nan`: traceback", NUMBERS)
def _rate(bench: Bench) -> Seen:
    return _number(bench, "--optimizer.base-lr", "nan")


@fault("`--epochs nan`: traceback", NUMBERS)
def _epochs_nan(bench: Bench) -> Seen:
    return _number(bench, "--epochs", "nan")


@fault("`--epochs inf`: traceback", NUMBERS)
def _epochs_inf(bench: Bench) -> Seen:
    return _number(bench, "--epochs", "inf")


@fault("`--seed` of 23 digits: traceback", NUMBERS)
def _seed(bench: Bench) -> Seen:
    return _number(bench, "--seed", "9" * 23)


@fault(
    "a folder with a name that is not UTF-8: `train` ends at its start",
    "tests/training/test_image_list.py::test_names_that_are_no_utf_8_have_a_digest",
)
def _name(bench: Bench) -> Seen:
    folder = bench.photos(os.fsdecode(b"photos\xe9"))
    (folder / "0.png").rename(folder / os.fsdecode(b"photo\xe9.png"))
    return passed(bench.call("train", "vice_scratch", folder, "--out", "run", "--workers", "0", *TINY))


@fault(
    '`step: 99` in state.json: "already trained: 99 of 3 steps"',
    "tests/training/guards/test_guards.py::test_a_checkpoint_beyond_the_end_or_with_another_step_is_refused",
)
def _step(bench: Bench) -> Seen:
    bench.photos()
    words = ("train", "vice_scratch", "photos", "--out", "run", "--workers", "0", *TINY)
    bench.call(*words)
    folder = next((bench.work / "run" / "checkpoints").glob("step_*"))
    state = folder / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"step": 99}))
    sizes = {name: (folder / name).stat().st_size for name in ("state.safetensors", "state.json")}
    (folder / "COMPLETE").write_text(json.dumps(sizes))
    done = bench.call(*words)
    return Seen(True, done.last) if done.code == 0 else refused(done, "99")


def _script(bench: Bench) -> str:
    """A script without a guard that trains as the tiny run's recipe says, with two loader processes."""
    bench.run()
    return (
        "from pathlib import Path\nfrom dataclasses import replace\nfrom selfseg import train\n"
        "from selfseg.training.recipe import read_recipe\n"
        "recipe = read_recipe(Path('run/recipe.yaml'))\n"
        "train(replace(recipe, out=Path('other'), images=Path('photos'), workers=2), progress=False)\n"
    )


@fault(
    'a script without the `__main__` guard: "if memory was short"',
    "tests/data/test_carrying.py::test_a_script_without_a_guard_in_a_container_without_shared_memory",
)
def _guard(bench: Bench) -> Seen:
    (bench.work / "script.py").write_text(_script(bench))
    done = bench.process(shell="exec $PYTHON script.py")
    trained = (bench.work / "other" / "embedder").exists()
    if done.code == 0 and trained:
        return Seen(False, "trained")
    return Seen("memory" in done.words and "__main__" not in done.last, done.last)


@fault(
    "2 MB of shared memory: training dies or never ends",
    "tests/data/test_carrying.py::test_a_script_without_a_guard_in_a_container_without_shared_memory",
)
def _shared(bench: Bench) -> Seen:
    bench.photos()
    large = [word if word != "32" else "192" for word in TINY]
    large[large.index("48")] = "224"
    words = " ".join(["-m selfseg train vice_scratch photos --out run --workers 2", *large])
    line = f"mount -t tmpfs -o size=2m none /dev/shm && exec $PYTHON {words}"
    done = bench.process(shell=f"exec unshare -m sh -c '{line}'", limit=150)
    if "mount" in done.said and "denied" in done.said:
        return Seen(None, "mounting is not allowed here")
    trained = (bench.work / "run" / "embedder").exists()
    how = done.crashed or f"exit {done.code}: {done.last}"
    return Seen(not trained, "trained, through pipes" if trained else how)


@fault(
    "killed: a loader process of `train` outlives it by seconds",
    "tests/data/test_preloading.py::test_a_server_that_is_still_importing_looks_for_its_training",
)
def _loader(bench: Bench) -> Seen:
    bench.photos()
    # At work, and while loaders begin: which of them outlives its training longest depends on the moment.
    outlived = [_outlived(bench, f"run{number}", number == 0) for number in range(3)]
    if not any(outlived):
        return Seen(None, "there was no loader process")
    return Seen(max(outlived) > 1.5, f"{max(outlived):.1f} s, the longest of three kills")


def _outlived(bench: Bench, run: str, at_work: bool) -> float:
    """Kill a training and count the seconds until its loaders are gone; 0 if it had none."""
    longer = ["1000000" if word == "3" else word for word in TINY]
    words = [str(bench.python), "-m", "selfseg", "train", "vice_scratch", "photos", "--out", run, "--workers", "2"]
    with subprocess.Popen(
        [*words, *longer], cwd=bench.work, env=bench.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as training:  # fmt: skip
        log = bench.work / run / "log.jsonl"
        end = time.monotonic() + 120
        while time.monotonic() < end and training.poll() is None:
            begun = (log.exists() and log.stat().st_size > 0) if at_work else len(_session(training.pid)) > 1
            if begun:
                break
            time.sleep(0.2)
        time.sleep(1 if at_work else 0.2)
        left = _session(training.pid) - {training.pid}
        training.send_signal(signal.SIGKILL)
        training.wait()
    killed = time.monotonic()
    while _session(training.pid) & left and time.monotonic() < killed + 15:
        time.sleep(0.05)
    seconds = time.monotonic() - killed
    for pid in _session(training.pid):
        os.kill(pid, signal.SIGKILL)
    return seconds if left else 0.0


def _session(leader: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


_SCALED = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from selfseg.storage.checkpoint import load_newest
from selfseg.training import loop
from selfseg.training.recipe import read_recipe
def make_fabric(recipe):
    # Fabric refuses 16-mixed on a CPU
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    fabric.launch()
    return fabric
loop.make_fabric = make_fabric
recipe = replace(read_recipe(Path("run/recipe.yaml")), out=Path("other"), images=Path("photos"), precision="16-mixed")
loop.train(recipe, progress=False)
print("SCALER", (load_newest(Path("other/checkpoints")).meta or {}).get("scaler"))
"""


@fault(
    "the scaler of `16-mixed` is not in the checkpoint",
    "tests/training/test_loop.py::test_the_loss_scale_of_half_precision_goes_on_where_it_was",
    gone=True,
)
def _scaler(bench: Bench) -> Seen:
    bench.run()
    done = bench.call(code=_SCALED)
    if done.code or "SCALER" not in done.said:
        return Seen(None, done.last)
    kept = done.said.partition("SCALER")[2].strip()
    return Seen("scale" not in kept, f"it holds {kept}" if "scale" in kept else "it holds none")
