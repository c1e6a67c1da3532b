"""What the faults are tried with: an interpreter that has some version of selfseg, and drawn images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CALLER = Path(__file__).with_name("caller.py")
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
TINY = (
    "--precision 32-true --method.embedder.resolution 64 --method.embedder.dim 16 --method.views.size 32 "
    "--method.views.short-side 48 --steps 3 --batch-size 4 --accelerator cpu"
).split()
"""Settings of `selfseg train vice_scratch` that both versions know."""


@dataclass(frozen=True)
class Done:
    """How a call ended.

    Attributes:
        code: the exit code; less than 0: a signal; None: it was ended because it took too long.
        said: what it wrote on both streams.
        seconds: how long it took.
        memory: MiB that it took at most, beyond what a call that does nothing takes.
    """

    code: int | None
    said: str
    seconds: float
    memory: int

    @property
    def words(self) -> str:
        """What it said in one line."""
        return " ".join(self.said.split())

    @property
    def last(self) -> str:
        """The error: of a traceback the last line."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or [""])[-1]

    @property
    def crashed(self) -> str:
        """What was no proper end: a traceback, a signal, no end at all; "" if it was one."""
        if self.code is None:
            return f"no end after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        return f"traceback: {self.last}" if "Traceback (most recent call last)" in self.said else ""


@dataclass(frozen=True)
class Seen:
    """Whether a fault is there, and by what one saw it. None: something else happened, which says nothing."""

    fault: bool | None
    text: str


@dataclass(frozen=True)
class Fault:
    """One fault of the first version.

    Attributes:
        what: what went wrong, in a few words.
        test: the test that holds it today, file::name.
        show: provokes it.
        gone: whether it was gone at commit 103c0d0 already.
    """

    what: str
    test: str
    show: Callable[[Bench], Seen]
    gone: bool = False


FAULTS: list[Fault] = []


def fault(what: str, test: str, gone: bool = False) -> Callable[[Callable[[Bench], Seen]], Callable[[Bench], Seen]]:
    """Enter a function as what shows a fault."""

    def enter(show: Callable[[Bench], Seen]) -> Callable[[Bench], Seen]:
        FAULTS.append(Fault(what, test, show, gone))
        return show

    return enter


@dataclass
class Bench:
    """An interpreter, and a folder to work in.

    Attributes:
        python: the interpreter, which finds a selfseg by itself.
        work: the folder of the fault that is shown now, empty at its begin.
        root: the folder of the whole.
    """

    python: Path
    root: Path
    work: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root = self.root.resolve()
        self.work = self.root
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.environment |= THREADS | {"COLUMNS": "200", "NO_COLOR": "1"}
        self._caller: subprocess.Popen[str] | None = None
        self._count = 0

    def close(self) -> None:
        """End the process that calls."""
        if self._caller is not None and self._caller.stdin is not None:
            self._caller.stdin.close()
            self._caller.wait()
            self._caller = None

    def call(
        self, *words: object, limit: float = 60, data: int = 0, code: str = "", env: dict[str, str] | None = None
    ) -> Done:
        """`selfseg WORDS`, or a snippet of Python with these arguments, in the folder `work`.

        Args:
            words: the words after `selfseg`.
            limit: seconds.
            data: MiB of memory that may be taken (RLIMIT_DATA); 0 = no limit.
            code: a snippet that is run instead.
            env: further variables of the environment.
        """
        if self._caller is None:
            self._caller = subprocess.Popen(
                [str(self.python), str(CALLER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
                cwd=self.root,
            )
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        self._count += 1
        out = self.root / f"said-{self._count}.txt"
        texts = [os.fspath(word) if isinstance(word, Path) else str(word) for word in words]
        request = {"words": texts, "cwd": str(self.work), "env": env or {}, "out": str(out), "limit": limit}
        self._caller.stdin.write(json.dumps(request | {"data": data, "code": code}) + "\n")
        self._caller.stdin.flush()
        answer: dict[str, Any] = json.loads(self._caller.stdout.readline())
        return Done(said=out.read_text("utf-8", "replace"), **answer)

    def process(self, *words: object, limit: float = 120, shell: str = "") -> Done:
        """A process of its own: `selfseg WORDS`, or a line for sh, in which $PYTHON is the interpreter."""
        command = ["sh", "-c", shell] if shell else [str(self.python), "-m", "selfseg", *map(str, words)]
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=self.environment | {"PYTHON": str(self.python)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return Done(None, (late.stdout or b"").decode("utf-8", "replace"), limit, 0)
        code = done.returncode - 256 if done.returncode > 192 else done.returncode
        return Done(128 - code if 128 < code < 160 else code, done.stdout.decode("utf-8", "replace"), 0, 0)

    def photos(self, name: str = "photos", count: int = 6) -> Path:
        """Drawn images of 96x64 px: sky above grass, and a red thing."""
        folder = self.work / name
        folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(count):
            Image.fromarray(scene(number, random)).save(folder / f"{number}.png")
        return folder

    def labelled(self, classes: str = "background\nroad\n", factor: int = 1, **changed: Any) -> Path:
        """A folder of {train,val}/{images,labels}: the thing is 1 (times `factor`); `changed[split]` maps labels."""
        folder = self.work / "labelled"
        random = np.random.default_rng(1)
        for split, count in (("train", 4), ("val", 4)):
            for part in ("images", "labels"):
                (folder / split / part).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(scene(number, random)).save(folder / split / "images" / f"{split}{number}.png")
                label = np.zeros((64, 96), np.uint8)
                label[24:52, 10 + 10 * number : 36 + 10 * number] = factor
                label = changed.get(split, lambda label: label)(label)
                Image.fromarray(label).save(folder / split / "labels" / f"{split}{number}.png")
        if classes:
            (folder / "classes.txt").write_text(classes)
        return folder

    def run(self) -> Path:
        """A copy of a run of three steps, clustered with k 3 and 5, whose images are in `photos`."""
        made = self.root / "made"
        if not made.exists():
            work, self.work = self.work, made
            photos = self.photos()
            for words in (
                ("train", "vice_scratch", photos, "--out", made / "run", "--workers", "0", *TINY),
                ("cluster", made / "run", photos, "-k", "3", "5"),
            ):
                done = self.call(*words, limit=200)
                if done.code != 0:
                    raise RuntimeError(f"the tiny run: {done.code} {done.said[-2000:]}")
            self.work = work
        shutil.copytree(made / "run", self.work / "run")
        shutil.copytree(made / "photos", self.work / "photos")
        return self.work / "run"


def scene(number: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One drawn image."""
    image = np.full((64, 96, 3), (90, 150, 220), np.uint8)
    image[40:] = (60, 140, 50)
    image[24:52, 10 + 10 * (number % 6) : 36 + 10 * (number % 6)] = (200, 40, 30)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def refused(done: Done, words: str = "") -> Seen:
    """What should be an error: a fault if it crashed or went through."""
    if done.crashed:
        return Seen(True, done.crashed)
    if done.code == 0:
        return Seen(True, "exit 0, without a word")
    return Seen(False if words.lower() in done.words.lower() else None, f"exit {done.code}: {done.last}")


def passed(done: Done, text: str = "exit 0") -> Seen:
    """What should go well: a fault if it crashed or ended with an error."""
    if done.crashed:
        return Seen(True, done.crashed)
    return Seen(done.code != 0, f"exit {done.code}: {done.last}" if done.code else text)
