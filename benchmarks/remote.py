"""Data at URLs: requests and seconds, from a real S3 server on loopback (moto), and with answers that fail.

python benchmarks/remote.py [--images 200] [--out FILE]

Requests are counted by a proxy (`tests/faulty_proxy.py`), and each answer waits for `--delay` s, as over a
distance. With faults every tenth answer is a 500, a cut or a closed connection.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from PIL import Image

from conftest import draw_scene
from faulty_proxy import FaultyProxy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "remote.json")
    options = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url, found = f"http://{host}:{port}", []
    system = s3fs.S3FileSystem(endpoint_url=url)
    system.mkdir("bucket")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.images):
            Image.fromarray(draw_scene(i, 480, 360)[0]).save(Path(folder) / f"{i:04d}.jpg", quality=90)
        system.put(folder + "/", "bucket/photos/", recursive=True)
        for faults in (["slow"], ["slow"] * 9 + ["500"] + ["slow"] * 9 + ["cut"] + ["slow"] * 9 + ["drop"]):
            found.append(measure(url, faults, options.delay, Path(folder)))
            print(json.dumps(found[-1]))
    server.stop()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


def measure(url: str, faults: list[str], delay: float, local: Path) -> dict[str, object]:
    from selfseg.data.reading.listing import list_images
    from selfseg.data.reading.skipping import SkipLog, scan
    from selfseg.storage.files import write_text
    from selfseg.storage.remote import connecting
    from selfseg.storage.remote.places import written

    result: dict[str, object] = {"faults": sorted(set(faults) - {"slow"}), "delay": delay}
    with tempfile.TemporaryDirectory() as cache, FaultyProxy(url, faults, delay) as proxy:
        os.environ |= {"SELFSEG_CACHE": cache, "AWS_ENDPOINT_URL": proxy.url, "SELFSEG_SESSION": cache}
        connecting._systems.clear()

        def step(name: str, work: object) -> None:
            before, begin = proxy.done.total(), time.perf_counter()
            work()  # type: ignore[operator]
            seconds = round(time.perf_counter() - begin, 2)
            result[name] = {"requests": proxy.done.total() - before, "seconds": seconds}

        images = []
        step("list", lambda: images.append(list_images("s3://bucket/photos")))
        collection = images[0]
        log = SkipLog(None, len(collection))
        step("first pass: check, which fetches", lambda: scan(collection, log))
        step("second pass: read", lambda: [collection.read(i) for i in range(len(collection))])
        same = list_images(local)
        assert all(np.array_equal(collection.read(i), same.read(i)) for i in range(len(same)))

        def write() -> None:
            with written(f"s3://bucket/out{len(faults)}") as out:
                for i in range(100):
                    write_text(out / f"{i}.txt", str(i))

        step("write 100 files", write)
        result["repeated"] = connecting.repeated()
        result["images"] = len(collection)
    return result


if __name__ == "__main__":
    main()
