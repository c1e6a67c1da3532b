import subprocess
import sys

_SCRIPT = """
import resource, sys
import torch
from selfseg.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = min(faults() for _ in range(3))
effect = keep_freed_memory()
faults()
after = min(faults() for _ in range(3))
sys.stdout.write(f"{effect} {before} {after}")
"""


def test_a_freed_tensor_is_used_again_without_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    effect, before, after = done.stdout.split()
    if effect == "True":
        assert int(after) < int(before) / 10
    else:
        assert sys.platform != "linux" or int(before) >= 0
