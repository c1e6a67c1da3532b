"""One process = two processes on the same global batch; collectives alone and together."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

import pytest
import torch
from PIL import Image

import layouts
from conftest import draw_scene
from selfseg import train
from selfseg.data.reading.packed.shards import WINDOW
from selfseg.models.distributed import SyncedBatchNorm2d, gather_rows, rank, sum_over_processes, world_size
from selfseg.storage.checkpoint import load_newest
from selfseg.training.log import read_log
from selfseg.training.recipe import read_recipe
from tiny import RUNS, TWO_PROCESSES, free_port, train_tiny, vice

pytestmark = pytest.mark.distributed

# Scripts come as lines, and what came of each goes back as one: a start takes longer than most of them.
_LOOP = """
import json, os, sys, traceback
import torch
import torch.distributed as dist

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
torch.set_num_threads(1)
for line in sys.stdin:
    script, words, os.environ["MASTER_PORT"] = json.loads(line)
    error = ""
    try:
        exec(compile(script, "script", "exec"), {"__name__": "__main__", "WORDS": words, "RANK": int(sys.argv[1])})
    except BaseException:
        error = traceback.format_exc()
    if dist.is_initialized():
        dist.destroy_process_group()  # its threads may abort a process that ends with them
    answers.write(json.dumps(error) + "\\n")
    answers.flush()
"""


class Pair:
    """Two processes, ranks 0 and 1, that run the same scripts; one that failed is begun anew with the next script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.said = [0, 0]

    def begin(self, script: str, *words: str) -> None:
        """Let both run a script, which finds WORDS and its RANK."""
        if not self.processes or any(process.poll() is not None for process in self.processes):
            self.stop()
            self._start()
        line = json.dumps([script, words, free_port()]) + "\n"
        self.said = [len(messages) for messages in self._messages()]
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

    def end(self, seconds: float = 300.0) -> str:
        """What both have written to stderr, when they are done."""
        waiting: dict[IO[str], str] = {process.stdout: "" for process in self.processes if process.stdout is not None}
        until, errors = time.monotonic() + seconds, list[str]()
        while waiting and not errors:
            ready = wait(list(waiting), max(0.0, until - time.monotonic()))
            errors += [] if ready else [f"no answer after {seconds:g} s"]
            for stream in ready:
                assert not isinstance(stream, int)
                answer = stream.readline()  # type: ignore[union-attr]
                del waiting[stream]  # type: ignore[arg-type]
                if not answer or (error := json.loads(answer)):
                    errors.append(error if answer else "a process has ended")
        said = "".join(messages[before:] for messages, before in zip(self._messages(), self.said, strict=True))
        if errors:  # the other one may wait for it for ever
            self.stop()
        assert not errors, "\n".join([*errors, said[-3000:]])
        return said

    def run(self, script: str, *words: str) -> str:
        """`begin` and `end`."""
        self.begin(script, *words)
        return self.end()

    def stop(self) -> None:
        """Whatever they do."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes = []

    def _start(self) -> None:
        tests = str(Path(__file__).parents[1])
        paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0", "PYTHONPATH": paths}
        for number in range(2):
            with (self.folder / f"stderr{number}").open("a") as stderr:
                started = subprocess.Popen(
                    [sys.executable, "-c", _LOOP, str(number)],
                    env={**environment, "LOCAL_RANK": str(number)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            self.processes.append(started)

    def _messages(self) -> list[str]:
        return [(self.folder / f"stderr{number}").read_text() for number in range(2)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.stop()


# The same fits and collectives as in others: once is enough.
_METHODS = [name for name in RUNS if name not in ("slotcon_on_pyramid", "stego_on_pyramid")]
_STEPS = 4

_TRAIN = """
from pathlib import Path
from tiny import TWO_PROCESSES, train_tiny

images, out, steps, *methods = WORDS
for method in methods:
    train_tiny(method, Path(images), Path(out) / method, {**TWO_PROCESSES, "devices": 2, "steps": int(steps)})
"""

_COLLECTIVES = """
import torch
import torch.distributed as dist
from torch import nn
from selfseg.errors import RunError
from selfseg.models.distributed import gather_rows, sum_over_processes, synchronise_batch_norm
from selfseg.training.processes import anywhere, together

dist.init_process_group("gloo", rank=RANK, world_size=2)
me = dist.get_rank()
rows, start = gather_rows(torch.full((me + 1, 2), float(me)))
assert rows[:, 0].tolist() == [0.0, 1.0, 1.0], rows
assert start == me
empty, _ = gather_rows(torch.zeros(0, 2))
assert empty.shape == (0, 2)
assert sum_over_processes(torch.tensor(me + 1.0)) == 3

torch.manual_seed(0)
images = torch.randn(4, 3, 5, 6)
target = torch.randn(4, 8, 5, 6)
def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
whole = build()
(whole(images) * target).mean().backward()
half = synchronise_batch_norm(build(), torch.device("cpu"))
part = slice(2 * me, 2 * me + 2)
(half(images[part]) * target[part]).mean().backward()
for a, b in zip(whole.parameters(), half.parameters()):
    torch.testing.assert_close(a.grad, sum_over_processes(b.grad) / 2, atol=1e-6, rtol=1e-4)
for a, b in zip(whole.buffers(), half.buffers()):
    torch.testing.assert_close(a, b)

class OneOfTwo:  # what `together` needs of Fabric
    world_size, global_rank, device = 2, me, torch.device("cpu")
assert anywhere(OneOfTwo, me == 1, False) == (True, False)
with together(OneOfTwo):
    pass
try:
    with together(OneOfTwo):
        if me == 1:
            raise ValueError("here alone")
except (RunError, ValueError) as error:
    assert isinstance(error, RunError if me == 0 else ValueError), error
else:
    raise AssertionError("nobody raised")
"""

# Matched slots in the second process only; heads on any share of the rows, even none or a single one.
_SLOTS = """
from dataclasses import replace
from pathlib import Path
import torch
import torch.distributed as dist
from tiny import slotcon
from selfseg.methods.slotcon import SlotCon
from selfseg.models.distributed import sum_over_processes
from selfseg.models.heads import VectorMLP

config = slotcon(Path("images"), Path("run")).method
changes = ({}, {"slots": "regression"}, {"align": "projections"}, {"image_weight": 1.0})
splits = ((5, 0), (0, 1), (1, 1), (2, 3), (0, 0))
same = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64).expand(4, 2, 3)

def half(me):
    return slice(2 * me, 2 * me + 2)

def step(changes, images):
    torch.manual_seed(1)
    method = SlotCon(replace(config, **changes)).double().train()
    views = torch.randn(2, 2, 4, 4, 4, 8, generator=torch.Generator().manual_seed(2)).double()  # network, view, image
    views[0, :, :2], views[1, :, :2] = method.student.prototypes[0].detach(), method.student.prototypes[1].detach()
    student, teacher = (list(network[:, images].unbind()) for network in views)
    output = method.compare(student, teacher, (same[images], same[images]))
    output.loss.backward()
    wanted = {name: p.grad for name, p in method.named_parameters() if "embedder" not in name and p.requires_grad}
    return output, wanted, method

def heads(rows, total):
    torch.manual_seed(3)
    mlp = VectorMLP(4, 6, 3).double().train()
    values = torch.randn(sum(total), 4, generator=torch.Generator().manual_seed(4)).double()[rows]
    mlp(values).pow(3).sum().backward()
    return mlp

alone = [step(change, slice(None)) for change in changes]
whole = [heads(slice(None), split) for split in splits]
dist.init_process_group("gloo", rank=RANK, world_size=2)
me = dist.get_rank()
for change, (expected, gradients, method) in zip(changes, alone):
    output, mine, copy = step(change, half(me))
    assert (output.logs["matched_slots"] == 0) == (me == 0), change
    torch.testing.assert_close(sum_over_processes(output.loss) / 2, expected.loss.detach())
    for name, gradient in gradients.items():
        assert mine[name] is not None, name
        torch.testing.assert_close(sum_over_processes(mine[name]) / 2, gradient, msg=lambda m: f"{change} {name}: {m}")
    for name, value in method.named_buffers():
        if "embedder" not in name:
            torch.testing.assert_close(dict(copy.named_buffers())[name], value, msg=lambda m: f"{change} {name}: {m}")
for split, expected in zip(splits, whole):
    mine = heads(slice(0, split[0]) if me == 0 else slice(split[0], None), split)
    for (name, a), b in zip(mine.named_parameters(), expected.parameters()):
        torch.testing.assert_close(sum_over_processes(a.grad), b.grad, msg=lambda m: f"{split} {name}: {m}")
    for (name, a), b in zip(mine.named_buffers(), expected.buffers()):
        torch.testing.assert_close(a, b, msg=lambda m: f"{split} {name}: {m}")
"""


_OBJECTS = """
from dataclasses import replace
from pathlib import Path
import torch
import torch.distributed as dist
from tiny import maskcontrast
from selfseg.methods.maskcontrast import MaskContrast
from selfseg.models.distributed import sum_over_processes

config = maskcontrast(Path("images"), Path("run")).method
# Objects in each of the four images: one process may have none, or fewer; images 2 and 3 are the second's.
numbers = (1, 2, 3, 1), (0, 0, 2, 1), (1, 2, 0, 0), (0, 0, 0, 0)
cases = [(weighting, counts) for weighting in ("pixel", "object") for counts in numbers]

def step(weighting, counts, images):
    torch.manual_seed(1)
    method = MaskContrast(replace(config, weighting=weighting, queue=12)).double().train()
    random = torch.Generator().manual_seed(2)
    queries, keys = torch.randn(2, 4, 8, 6, 7, generator=random, dtype=torch.float64)
    saliency = torch.randn(4, 6, 7, generator=random, dtype=torch.float64)
    objects = [torch.stack([torch.randint(-1, n, (6, 7), generator=random) for n in counts]) for _ in range(2)]
    inputs = [x[images].clone().requires_grad_() for x in (queries, saliency)]
    losses = []
    for _ in range(3):  # the later ones see the queue
        output = method.compare(inputs[0], inputs[1], keys[images], objects[0][images], objects[1][images])
        output.loss.backward()
        losses.append(output.loss.detach())
    return losses, [x.grad for x in inputs], method.queue

alone = [step(*case, slice(None)) for case in cases]
dist.init_process_group("gloo", rank=RANK, world_size=2)
me = dist.get_rank()
mine = slice(2 * me, 2 * me + 2)
for case, (losses, gradients, queue) in zip(cases, alone):
    here, found, copy = step(*case, mine)
    for a, b in zip(here, losses):
        torch.testing.assert_close(sum_over_processes(a) / 2, b, msg=lambda m: f"{case}: {m}")
    for a, b in zip(found, gradients):
        torch.testing.assert_close(a / 2, b[mine], msg=lambda m: f"{case}: {m}")
    assert int(copy.filled) == int(queue.filled) == min(3 * sum(case[1]), 12)
    torch.testing.assert_close(copy.vectors, queue.vectors, msg=lambda m: f"{case}: {m}")  # in the same order
"""


def test_alone_everything_is_the_identity() -> None:
    assert (world_size(), rank()) == (1, 0)
    rows, start = gather_rows(torch.ones(3, 2, requires_grad=True))
    assert rows.shape == (3, 2)
    assert start == 0
    assert not rows.requires_grad
    assert sum_over_processes(torch.tensor(4.0)) == 4
    norm, plain = SyncedBatchNorm2d(2), torch.nn.BatchNorm2d(2)
    image = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(norm(image), plain(image))


@pytest.mark.slow
@pytest.mark.parametrize("script", [_COLLECTIVES, _SLOTS, _OBJECTS], ids=["collectives", "slots", "objects"])
def test_two_processes_agree_with_one(script: str, pair: Pair) -> None:
    pair.run(script)


@pytest.mark.slow
def test_one_process_equals_two_on_the_same_global_batch(photos: Path, tmp_path: Path, pair: Pair) -> None:
    pair.begin(_TRAIN, str(photos), str(tmp_path / "2"), str(_STEPS), *_METHODS)
    for method in _METHODS:
        train_tiny(method, photos, tmp_path / "1" / method, {**TWO_PROCESSES, "steps": _STEPS})
    pair.end()
    for method in _METHODS:
        one, two = (load_newest(tmp_path / devices / method / "checkpoints") for devices in ("1", "2"))
        assert one is not None, method
        assert two is not None, method
        assert one.model.keys() == two.model.keys(), method
        for key, value in one.model.items():
            told = f"{method}, {key}: "
            torch.testing.assert_close(value, two.model[key], atol=2e-3, rtol=2e-3, msg=lambda m, t=told: t + m)
        losses = [[line["loss"] for line in read_log(tmp_path / devices / method)] for devices in ("1", "2")]
        assert len(losses[0]) == _STEPS
        # Sums in another order move the weights. DetCon's loss is ten times the others', so is what that does.
        assert losses[0] == pytest.approx(losses[1], abs=1e-2 if method == "detcon" else 1e-3), method


_SHARDS = """
from pathlib import Path
from unittest.mock import patch
from fsspec.implementations.local import LocalFileSystem
from selfseg import train
from selfseg.data.reading.packed import shards
from tiny import vice

images, out = WORDS

class Far(LocalFileSystem):
    def get_file(self, path, target, **options):
        with open(out + ".fetched", "a") as log:
            log.write(path + "\\n")
        super().get_file(path, target, **options)

# As if the shards were far away: each is copied once, whoever of the two needs it first.
with (
    patch.object(shards, "_is_remote", lambda shard: True),
    patch.object(shards, "connect", lambda shard: (Far(), shard)),
):
    settings = {"devices": 2, "accelerator": "cpu", "batch_size": 4, "steps": 5}
    train(vice(Path("shards:" + images), Path(out), **settings), progress=False)
"""


@pytest.mark.slow
def test_one_process_equals_two_on_shards(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(WINDOW + 2):
        Image.fromarray(draw_scene(seed)[0]).save(tmp_path / "photos" / f"scene{seed:02d}.jpg")
    folder = layouts.shards(tmp_path / "photos", tmp_path / "shards", each=1)
    source = f"{folder}/part-{{000..{WINDOW + 1:03d}}}.tar"
    pair.begin(_SHARDS, source, str(tmp_path / "2"))
    settings = {"accelerator": "cpu", "batch_size": 4, "steps": 5}
    train(vice(Path(f"shards:{source}"), tmp_path / "1", **settings), progress=False)
    pair.end()
    losses = [[line["loss"] for line in read_log(tmp_path / devices)] for devices in ("1", "2")]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    fetched = (tmp_path / "2.fetched").read_text().splitlines()
    assert sorted(fetched) == sorted(str(path) for path in folder.iterdir())


_AUTO = """
from pathlib import Path
from unittest.mock import patch
from selfseg import train
from selfseg.training import precision
from tiny import vice

images, out, second = WORDS
original = precision._Trial.__init__

def named(self, fabric, recipe, method, choice):
    original(self, fabric, recipe, method, choice)
    self.choice = choice

def seconds(self, batch):
    return {"32-true": 1.0, "bf16-mixed": (0.5, float(second))[RANK]}[self.choice]

with patch.object(precision._Trial, "__init__", named), patch.object(precision._Trial, "step", seconds):
    settings = {"devices": 2, "accelerator": "cpu", "batch_size": 4, "steps": 2, "precision": "auto"}
    train(vice(Path(images), Path(out), **settings), progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("second", "choice"), [("0.7", "bf16-mixed"), ("0.9", "32-true"), ("inf", "32-true")])
def test_all_processes_take_the_precision_that_the_slowest_of_them_is_faster_in(
    photos: Path, tmp_path: Path, second: str, choice: str, pair: Pair
) -> None:
    said = pair.run(_AUTO, str(photos), str(tmp_path / "run"), second)
    assert read_recipe(tmp_path / "run" / "recipe.yaml").precision == choice
    assert said.count(f"precision: {choice}") == 1


# A script that starts its second process itself, as people's do.
_SKIP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from tiny import vice
from selfseg import train
from selfseg.training import loop

original, photos = loop.make_loader, Path(sys.argv[2])

def remove_then_load(*args):
    for number in (1, 4):
        (photos / f"photo{number}.jpg").unlink(missing_ok=True)
    return original(*args)

loop.make_loader = remove_then_load
if __name__ == "__main__":
    recipe = vice(photos, Path(sys.argv[3]), devices=2, accelerator="cpu", batch_size=6, steps=2, max_bad=0.5)
    train(recipe, progress=False)
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them
"""


@pytest.mark.slow
def test_what_any_process_could_not_read_is_listed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_SKIP)
    words = [str(tmp_path / "script.py"), str(Path(__file__).parents[1]), str(photos), str(tmp_path / "r")]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "r" / "skipped.jsonl").read_text().splitlines()]
    assert sorted((line["name"], line["reason"]) for line in lines) == [("photo1", "missing"), ("photo4", "missing")]
