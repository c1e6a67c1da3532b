"""How quick the studio is: opening, a click, all images following, splits, questions, and memory.

    python benchmarks/studio.py RUN IMAGES [--times 10 100] [--clicks 500] [--out benchmarks/results/studio.json]

RUN is a trained run with clusters; it is copied. The regions of IMAGES are found once. Larger collections are made of
copies: their regions repeated so many times, their photographs links to the same files, so that only the time of
finding the regions is left out, which grows with the images as `embed` does and is told by image.

A simulated person names 20 clusters by 12 names and clicks at random places. A click is timed from the call until the
prediction of its image is there, the log synced to the disk in between. The process runs alone in a process of its own
for each size, so that the peak of its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "person", "bike", "wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--clicks", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/studio.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.run, options.images, options.clicks)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for times in options.times:
            run, images, found = enlarged(options.run, options.images, times, Path(scratch) / str(times))
            words = [sys.executable, __file__, str(run), str(images), "--clicks", str(options.clicks), "--one", "yes"]
            row = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            rows.append({"times": times, **found, **row})
            print(json.dumps(rows[-1], indent=1))
            shutil.rmtree(Path(scratch) / str(times))
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def enlarged(run: Path, images: Path, times: int, folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """A copy of a run with the regions of its images so many times over, and a folder of links to match."""
    from selfseg.collection.opening import collect
    from selfseg.models.embedder import Looks
    from selfseg.studio import regions

    copy, links = folder / "run", folder / "images"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("decisions.jsonl", "checkpoints", "handed_over"))
    links.mkdir()
    collection = collect(images)
    for time_ in range(times):
        for name, path in zip(collection.names, collection.paths, strict=True):
            (links / f"{time_:03d} {Path(name).name}{path.suffix}").symlink_to(path.resolve())
    first = regions.RegionStore.build(copy, images, device="cpu", progress=False)
    store = copy / "studio" / "regions"
    lines = [json.loads(line) for line in (store / "images.jsonl").read_text("utf-8").splitlines()]
    header, entries, last = lines[0], lines[1:-1], lines[-1]
    ends = entries[-1]["ends"]
    for part in ("vectors", "facts", "superpixels", "trees"):
        data = (store / f"{part}.bin").read_bytes()
        with (store / f"{part}.bin").open("wb") as file:
            for _ in range(times):
                file.write(data)
    many = [
        {
            **entry,
            "name": f"{number:03d} {Path(entry['name']).name}",
            "hash": f"{number:03d}{entry['hash']}",
            "ends": [end + number * length for end, length in zip(entry["ends"], ends, strict=True)],
        }
        for number in range(times)
        for entry in entries
    ]
    header["key"] = regions._key(copy, collect(links), Looks())
    text = "".join(json.dumps(line) + "\n" for line in (header, *many, last))
    (store / "images.jsonl").write_text(text, encoding="utf-8")
    return copy, links, {"images": len(many), "regions": len(first.areas) * times}


def measure(run: Path, images: Path, clicks: int) -> dict[str, Any]:
    """Everything of one size, in this process."""
    from selfseg.studio.studio import Studio

    found: dict[str, Any] = {}
    start = time.perf_counter()
    with Studio(run, images, device="cpu", progress=False) as studio:
        found["open_s"] = time.perf_counter() - start
        start = time.perf_counter()
        state = studio.state()
        found["first_state_s"] = time.perf_counter() - start
        for number, cluster in enumerate(state.clusters[:20]):
            studio.name(cluster.id, NAMES[number % len(NAMES)])
        generator = np.random.default_rng(0)
        seconds = []
        for _ in range(clicks):
            image, place = int(generator.integers(state.images)), tuple(generator.random(2))
            name = NAMES[int(generator.integers(len(NAMES)))]
            start = time.perf_counter()
            studio.click(image, [place], 10_000, name)
            seconds.append(time.perf_counter() - start)
        last = seconds[len(seconds) // 2 :]
        found["click_median_ms"], found["click_95_ms"] = (1000 * np.percentile(last, [50, 95])).tolist()
        start = time.perf_counter()
        studio.click(0, [(0.5, 0.5)], 10_000, NAMES[0])
        while studio.pulse().busy is not None:
            time.sleep(0.005)
        found["all_follow_s"] = time.perf_counter() - start
        start = time.perf_counter()
        studio.split(studio.state().clusters[0].id, 4)
        found["split_s"] = time.perf_counter() - start
        start = time.perf_counter()
        studio.queue(20)
        found["queue_s"] = time.perf_counter() - start
        start = time.perf_counter()
        studio.state()
        found["state_s"] = time.perf_counter() - start
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    # What is mapped from files can be dropped by the system at any time; what is anonymous can't.
    found["anonymous_mib"] = int(status["RssAnon"].split()[0]) / 1024
    found["mapped_mib"] = int(status["RssFile"].split()[0]) / 1024
    return found


if __name__ == "__main__":
    main()
