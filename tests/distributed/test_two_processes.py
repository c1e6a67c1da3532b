"""One process = two processes on the same global batch; collectives alone and together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import layouts
from conftest import draw_scene
from selfseg.data.reading.packed.shards import WINDOW
from selfseg.models.distributed import SyncedBatchNorm2d, gather_rows, rank, sum_over_processes, world_size
from selfseg.storage.checkpoint import load_newest
from selfseg.training.log import read_log
from selfseg.training.recipe import read_recipe
from tiny import RUNS, TWO_PROCESSES, free_port, train_tiny

pytestmark = pytest.mark.distributed

# Both processes are started here and train one method after the other: a start takes longer than a tiny run.
_TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from tiny import RUNS, TWO_PROCESSES, train_tiny

if __name__ == "__main__":
    for method in RUNS:
        train_tiny(method, Path(sys.argv[2]), Path(sys.argv[3]) / method, {**TWO_PROCESSES, "devices": 2})
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them
"""

_COLLECTIVES = """
import os, sys, warnings
import torch
import torch.distributed as dist
from torch import nn
from selfseg.errors import RunError
from selfseg.models.distributed import gather_rows, sum_over_processes, synchronise_batch_norm
from selfseg.training.processes import anywhere, together

dist.init_process_group("gloo", rank=int(sys.argv[1]), world_size=2)
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
dist.destroy_process_group()
"""

# Matched slots in the second process only; heads on any share of the rows, even none or a single one.
_SLOTS = """
import sys
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
dist.init_process_group("gloo", rank=int(sys.argv[1]), world_size=2)
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
dist.destroy_process_group()
"""


_OBJECTS = """
import sys
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
dist.init_process_group("gloo", rank=int(sys.argv[1]), world_size=2)
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
dist.destroy_process_group()
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
def test_two_processes_agree_with_one(script: str) -> None:
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "PYTHONPATH": paths}
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(i)], env=environment, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    messages = [worker.communicate()[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], messages


@pytest.mark.slow
def test_one_process_equals_two_on_the_same_global_batch(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_TRAIN)
    words = [
        sys.executable,
        str(tmp_path / "script.py"),
        str(Path(__file__).parents[1]),
        str(photos),
        str(tmp_path / "2"),
    ]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "NODE_RANK": "0"}
    pair = [
        subprocess.Popen(words, env={**environment, "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    for method in RUNS:
        train_tiny(method, photos, tmp_path / "1" / method, TWO_PROCESSES)
    messages = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], messages
    for method in RUNS:
        one, two = (load_newest(tmp_path / devices / method / "checkpoints") for devices in ("1", "2"))
        assert one is not None, method
        assert two is not None, method
        assert one.model.keys() == two.model.keys(), method
        for key, value in one.model.items():
            told = f"{method}, {key}: "
            torch.testing.assert_close(value, two.model[key], atol=2e-3, rtol=2e-3, msg=lambda m, t=told: t + m)
        losses = [[line["loss"] for line in read_log(tmp_path / devices / method)] for devices in ("1", "2")]
        # Sums in another order move the weights. DetCon's loss is ten times the others', so is what that does.
        assert losses[0] == pytest.approx(losses[1], abs=1e-2 if method == "detcon" else 1e-3), method


_SHARDS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from fsspec.implementations.local import LocalFileSystem
from selfseg import train
from selfseg.data.reading.packed import shards
from tiny import vice

devices = int(sys.argv[4])
if devices == 2:  # as if the shards were far away: each is copied once, whoever of the two needs it first
    class Far(LocalFileSystem):
        def get_file(self, path, target, **options):
            with open(sys.argv[3] + ".fetched", "a") as log:
                log.write(path + "\\n")
            super().get_file(path, target, **options)
    shards._is_remote = lambda shard: True
    shards.connect = lambda shard: (Far(), shard)
if __name__ == "__main__":
    settings = {"devices": devices, "accelerator": "cpu", "batch_size": 4, "steps": 5}
    train(vice(Path("shards:" + sys.argv[2]), Path(sys.argv[3]), **settings), progress=False)
    if devices == 2:
        torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them
"""


@pytest.mark.slow
def test_one_process_equals_two_on_shards(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(WINDOW + 2):
        Image.fromarray(draw_scene(seed)[0]).save(tmp_path / "photos" / f"scene{seed:02d}.jpg")
    folder = layouts.shards(tmp_path / "photos", tmp_path / "shards", each=1)
    (tmp_path / "script.py").write_text(_SHARDS)
    tests, source = str(Path(__file__).parents[1]), f"{folder}/part-{{000..{WINDOW + 1:03d}}}.tar"
    for devices in ("1", "2"):
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        words = [sys.executable, str(tmp_path / "script.py"), tests, source, str(tmp_path / devices), devices]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    losses = [[line["loss"] for line in read_log(tmp_path / devices)] for devices in ("1", "2")]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    fetched = (tmp_path / "2.fetched").read_text().splitlines()
    assert sorted(fetched) == sorted(str(path) for path in folder.iterdir())


_AUTO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from selfseg import train
from selfseg.models.distributed import rank
from selfseg.training import precision
from tiny import vice

original = precision._Trial.__init__

def named(self, fabric, recipe, method, choice):
    original(self, fabric, recipe, method, choice)
    self.choice = choice

def seconds(self, batch):
    return {"32-true": 1.0, "bf16-mixed": (0.5, float(sys.argv[4]))[rank()]}[self.choice]

precision._Trial.__init__, precision._Trial.step = named, seconds
if __name__ == "__main__":
    settings = {"devices": 2, "accelerator": "cpu", "batch_size": 4, "steps": 2, "precision": "auto"}
    train(vice(Path(sys.argv[2]), Path(sys.argv[3]), **settings), progress=False)
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them
"""


@pytest.mark.slow
@pytest.mark.parametrize(("second", "choice"), [("0.7", "bf16-mixed"), ("0.9", "32-true"), ("inf", "32-true")])
def test_all_processes_take_the_precision_that_the_slowest_of_them_is_faster_in(
    photos: Path, tmp_path: Path, second: str, choice: str
) -> None:
    (tmp_path / "script.py").write_text(_AUTO)
    words = [str(tmp_path / "script.py"), str(Path(__file__).parents[1]), str(photos), str(tmp_path / "run"), second]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_recipe(tmp_path / "run" / "recipe.yaml").precision == choice
    assert done.stderr.count(f"precision: {choice}") == 1


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
