"""Calls of one interpreter's selfseg, each in a fork of a process that has loaded it: so a call begins at once.

It runs as a script of the interpreter that is asked, with any version of selfseg. Each line of its input is a request
in JSON, each line of its output the answer: the exit code (less than 0: a signal; null: ended after `limit` seconds),
the seconds, and the most memory in MiB beyond what was there before.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

HEAVY = ("cv2", "PIL.Image", "scipy.ndimage", "safetensors.torch", "torch", "timm", "lightning.fabric", "tyro")


def work(request: dict[str, Any]) -> int:
    """In the fork: a call of the command, or a snippet of Python."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    if request["data"]:
        resource.setrlimit(resource.RLIMIT_DATA, (request["data"] << 20, request["data"] << 20))
    sys.argv = ["selfseg", *request["words"]]
    try:
        if request["code"]:
            exec(compile(request["code"], "snippet", "exec"), {"__name__": "__main__"})
            return 0
        return int(importlib.import_module("selfseg.cli").main(request["words"]) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        with suppress(Exception):
            sys.stderr.flush()


def call(request: dict[str, Any]) -> dict[str, Any]:
    """One fork, waited for."""
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(work(request))
    late = False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - begin > request["limit"]:
            late = True
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    with suppress(ProcessLookupError, PermissionError):  # loaders that outlived it
        os.killpg(child, signal.SIGKILL)
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = None if late else os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": time.monotonic() - begin, "memory": max(0, used.ru_maxrss - here) >> 10}


def main() -> None:
    """Load what takes long, then answer."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    importlib.import_module("selfseg.cli")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(call(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
