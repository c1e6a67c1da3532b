"""What only a GPU can tell, in one command: is it right, and how fast is it?

    python benchmarks/gpu.py                        # everything, at most 8 minutes on one NVIDIA card
    python benchmarks/gpu.py --part slic training   # pieces
    python benchmarks/gpu.py --tiny                 # a CPU and seconds: does everything run?

Each part runs in a process of its own, since an error of the card ends everything in its process, and is stopped when
its time is up. What it measured until then is kept: rows are written one at a time, and the JSON is written again after
every few of them. At the end the same as tables in Markdown, for docs/numbers/speed.md.

The images are those of the bundle (`make gpu-bundle`): --images is a folder with camvid/ and photographs/. Without one,
images are drawn: enough for the parts about speed, and the evaluation then means nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(HERE))

# Each is a module of gpu_parts, with its seconds of a run of eight minutes; later ones get what it leaves.
PARTS = {
    "equality": 60,
    "superpixels": 30,
    "operations": 45,
    "resuming": 80,
    "training": 75,
    "verbs": 40,
    "batches": 75,
    "compiling": 35,
    "camvid": 480,  # whatever is left
}
PACKAGES = ("selfseg", "torch", "triton", "torchvision", "timm", "lightning", "numpy", "numba")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; 0 if none failed or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (8)")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes on the CPU, in this process")
    parser.add_argument("--images", type=Path, help="folder with camvid/ and photographs/ (the bundle's)")
    parser.add_argument("--out", type=Path, help="the JSON; benchmarks/results/gpu_CARD/DATE.json if left out")
    parser.add_argument("--apart", action="store_true", help="a tiny run's parts, too, in processes of their own")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # part, images, rows, seconds
    options = parser.parse_args(argv)
    if options.worker:
        part, images, rows, seconds = options.worker
        return _work(part, Path(images), Path(rows), float(seconds), options.tiny)
    return _orchestrate(options)


def _orchestrate(options: argparse.Namespace) -> int:
    import torch

    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write(
            "no NVIDIA GPU is here (torch.cuda.is_available() is False); --tiny tries the parts on a CPU\n"
        )
        return 2
    end = time.monotonic() + 60 * options.minutes
    begin = time.monotonic()
    card = "CPU, tiny" if options.tiny else torch.cuda.get_device_name()
    record: dict[str, Any] = {
        "command": "python benchmarks/gpu.py" + (" --tiny" if options.tiny else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"card": card, "cores": os.cpu_count(), "versions": _versions(), "system": platform.platform()},
        "seconds": 0.0,
        "parts": {},
    }
    if not options.tiny:
        properties = torch.cuda.get_device_properties(0)
        record["machine"] |= {"memory_gib": round(properties.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    word = "".join(c if c.isalnum() else "_" for c in card.lower()).strip("_")
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M")
    out = options.out or HERE / "results" / f"gpu_{word}" / f"{stamp}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="selfseg_gpu_") as folder:
        images = _images(options.images, Path(folder))
        record["images"] = "drawn" if images.is_relative_to(folder) else "the bundle's"
        for number, part in enumerate(options.part):
            later = sum(PARTS[name] for name in options.part[number + 1 :] if name != "camvid")
            left = end - time.monotonic()
            # A part may take what those before it left; those after it keep theirs, if there is enough for all.
            seconds = max(min(PARTS[part], left), min(left, left - later)) if left > 0 else 0.0
            sys.stdout.write(f"== {part} (at most {seconds:.0f} s; {left:.0f} s left)\n")
            sys.stdout.flush()
            rows = Path(folder) / f"{part}.jsonl"
            rows.touch()
            started = time.monotonic()
            entry: dict[str, Any] = {"title": _title(part), "status": "running", "seconds": 0.0, "rows": []}
            record["parts"][part] = entry

            def keep(
                entry: dict[str, Any] = entry, rows: Path = rows, started: float = started, status: str = "running"
            ) -> None:
                entry["rows"] = _read_rows(rows)
                entry["status"], entry["seconds"] = status, round(time.monotonic() - started, 1)
                record["seconds"] = round(time.monotonic() - begin, 1)
                _write(out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

            keep()
            if left < 5 and not options.tiny:
                keep(status="left out: no time was left")
                continue
            if options.tiny and not options.apart:
                status, error = _work_here(part, images, rows, seconds)
            else:
                status, error = _work_apart(part, images, rows, seconds, keep, options.tiny)
            if error:
                entry["error"] = error
            keep(status=status)
            sys.stdout.write(f"== {part}: {status}, {entry['seconds']:.0f} s\n\n")
            sys.stdout.flush()
    from gpu_parts.harness import markdown

    text = markdown(record)
    _write(out.with_suffix(".md"), text)
    sys.stdout.write(f"{text}\nwrote {out} and {out.with_suffix('.md').name}\n")
    return int(_wrong(record))


def _work_apart(
    part: str, images: Path, rows: Path, seconds: float, keep: Callable[[], None], tiny: bool, grace: float = 10.0
) -> tuple[str, str]:
    """The part in a process of its own; the JSON follows its rows. Its status, and its error if it had one."""
    words = [sys.executable, str(Path(__file__).resolve()), "--worker", part, str(images), str(rows), str(seconds)]
    words += ["--tiny"] if tiny else []
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    errors = rows.with_suffix(".stderr")
    size, deadline = 0, time.monotonic() + seconds
    with errors.open("w") as stream:
        # A session of its own, so that loader processes end with it.
        process = subprocess.Popen(words, env=environment, stderr=stream, start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if rows.stat().st_size != size:
                    size = rows.stat().st_size
                    keep()
                if time.monotonic() > deadline + grace:  # it was told the deadline and should have stopped by itself
                    _end(process)
                    return f"stopped after {seconds + grace:.0f} s", _tail(errors)
        finally:
            if process.poll() is None:
                _end(process)
    if process.returncode == 0:
        return "done", ""
    return f"FAILED with status {process.returncode}", _tail(errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(3)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _work_here(part: str, images: Path, rows: Path, seconds: float) -> tuple[str, str]:
    """A tiny run's part, in this process."""
    try:
        _run_part(part, images, rows, seconds, tiny=True)
    except Exception:
        return "FAILED", traceback.format_exc()
    return "done", ""


def _work(part: str, images: Path, rows: Path, seconds: float, tiny: bool) -> int:
    _run_part(part, images, rows, seconds, tiny)
    return 0


def _run_part(part: str, images: Path, rows: Path, seconds: float, tiny: bool) -> None:
    import torch

    from gpu_parts.harness import Job

    with tempfile.TemporaryDirectory(prefix=f"selfseg_{part}_") as work:
        job = Job(
            device=torch.device("cpu" if tiny else "cuda"),
            tiny=tiny,
            images=images,
            work=Path(work),
            deadline=time.monotonic() + seconds,
            rows=rows,
            repository=REPOSITORY,
        )
        importlib.import_module(f"gpu_parts.{part}").run(job)


def _images(given: Path | None, folder: Path) -> Path:
    """The images that were given, or the bundle's, or drawn ones."""
    from gpu_parts.material import draw

    for candidate in [given] if given else [REPOSITORY / "images", REPOSITORY / "build" / "gpu-bundle" / "images"]:
        if (candidate / "photographs").is_dir() and (candidate / "camvid" / "train" / "images").is_dir():
            return candidate.resolve()
    if given:
        raise SystemExit(f"{given} has no photographs/ and camvid/train/images/; `make gpu-bundle` makes such a folder")
    return draw(folder / "images")


def _title(part: str) -> str:
    return str(importlib.import_module(f"gpu_parts.{part}").TITLE)


def _read_rows(rows: Path) -> list[dict[str, Any]]:
    found = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off while it was written
            continue
    return found


def _wrong(record: dict[str, Any]) -> bool:
    """Whether a part failed or a row says that something does, or differs."""
    rows = [row for part in record["parts"].values() for row in part["rows"]]
    words = [str(row.get("verdict", "")) for row in rows] + [part["status"] for part in record["parts"].values()]
    return any(word.startswith(("FAILED", "DIFFERS", "stopped")) for word in words)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-6000:]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit of this folder, or the one that the bundle was made of."""
    for note in (REPOSITORY / "COMMIT", REPOSITORY / "build" / "gpu-bundle" / "COMMIT"):
        if note.is_file():
            return note.read_text(encoding="utf-8").strip()
    git = shutil.which("git")
    if git is None:
        return ""
    words = [git, "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
