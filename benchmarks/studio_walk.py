"""The whole way in a real browser: from clusters to files, with a kill -9 in the middle, and pictures of each part.

    python benchmarks/studio_walk.py RUN IMAGES LABELS --pictures docs/pictures
    python benchmarks/studio_walk.py RUN IMAGES LABELS --animation docs/pictures/studio.webp

RUN is a trained run with clusters (its decisions are put aside), IMAGES and LABELS folders with files of the same
names, LABELS index PNGs with a classes.txt beside their folder's parent (CamVid's layout: ROOT/SPLIT/labels and
ROOT/classes.txt). The person is simulated: she knows the labels and clicks as a person does, through the page. Needs
Playwright and a Chromium (`pip install playwright`; --chromium PATH), neither of which selfseg depends on.

She names 12 clusters, two of them alike, splits one, leaves one out, corrects 30 segments in five images (with a new
class where none of the list fits), undoes three, judges 20 places of an audit, and takes COCO, CVAT, palette PNGs and
the model away. After the corrections the server is killed with -9 and started again: everything decided must be there.
Any request outside of the page's origin, and any error on the browser's console, fails the walk.
`benchmarks/studio_photographs.py` makes a run, images and labels to walk through.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

VOID = "void"
ANIMATED = (960, 645)
"""Width and height of the animation, in pixels."""
PATIENCE = 180_000  # ms; of a busy machine
PICTURES_ARE_THERE = """() => [...document.images].every((one) => {
  const {top, bottom, left, right} = one.getBoundingClientRect();
  const seen = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth && bottom > top;
  return !seen || (one.complete && one.naturalWidth > 0);
})"""


class Person:
    """Knows the labels."""

    def __init__(self, images: Path, labels: Path) -> None:
        lines = (labels.parents[1] / "classes.txt").read_text("utf-8").splitlines()
        pairs = [re.match(r"(\d+)\s+(.*)", line).groups() for line in lines if line.strip()]  # type: ignore[union-attr]
        self.names = {value: name for value, name in pairs if not name.lower().startswith(VOID)}
        self.files = {path.stem: path for path in sorted(labels.iterdir())}
        self.images = images

    def label(self, name: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(self.files[Path(name).name]))

    def at(self, name: str, x: float, y: float) -> str:
        """What lies at a place; "" for what no class is."""
        label = self.label(name)
        height, width = label.shape
        value = int(label[min(int(y * height), height - 1), min(int(x * width), width - 1)])
        return self.names.get(str(value), "")

    def votes(self, name: str, superpixels: NDArray[Any]) -> NDArray[np.int64]:
        """How many pixels (regions, 256) of each region of an (h, w) map are of which value of the label."""
        label = self.label(name)
        rows = ((np.arange(label.shape[0]) + 0.5) * superpixels.shape[0] / label.shape[0]).astype(int)
        columns = ((np.arange(label.shape[1]) + 0.5) * superpixels.shape[1] / label.shape[1]).astype(int)
        pairs = superpixels[np.ix_(rows, columns)].astype(np.int64) * 256 + label
        return np.bincount(pairs.ravel(), minlength=256 * (int(superpixels.max()) + 1)).reshape(-1, 256)


class Server:
    """`selfseg studio` in a process of its own."""

    def __init__(self, run: Path, images: Path, log: Path) -> None:
        words = [sys.executable, "-m", "selfseg", "studio", str(run), str(images), "--no-browser", "--device", "cpu"]
        self.file = log.open("w")
        self.process = subprocess.Popen([*words, "--port", "8791"], stdout=self.file, stderr=subprocess.STDOUT)
        for _ in range(600):
            found = re.search(r"http://\S+", log.read_text("utf-8"))
            if found:
                self.address = found[0]
                return
            if self.process.poll() is not None:
                raise SystemExit(f"the studio did not start:\n{log.read_text('utf-8')}")
            time.sleep(0.5)
        raise SystemExit("the studio did not start in five minutes")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--pictures", type=Path, default=Path("build/studio"))
    parser.add_argument("--animation", type=Path, help="an animated WebP of the walk")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    log = options.run / "studio" / "decisions.jsonl"
    if log.exists():
        log.rename(log.with_name(f"decisions-{time.time():.0f}.jsonl"))
    from playwright.sync_api import sync_playwright

    server = Server(options.run, options.images, options.pictures / "studio.log")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium)
            walk = Walk(browser, server, Person(options.images, options.labels), options)
            try:
                walk.go()
                walk.film.write(options.animation)
            finally:
                walk.server.kill()
            browser.close()
    finally:
        server.kill()
        (options.pictures / "studio.log").unlink(missing_ok=True)


class Film:
    """Some moments of the walk, each with how long it is shown."""

    def __init__(self) -> None:
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []

    def add(self, page: Any, seconds: float, pointer: tuple[float, float] | None = None) -> None:
        """What is on the page now, and the mouse, which a screenshot lacks, at a place of the page in pixels."""
        frame = Image.open(io.BytesIO(page.screenshot(type="png"))).convert("RGB")
        if pointer is not None:
            corners = ((0, 0), (0, 24), (6, 19), (10, 28), (14, 26), (10, 17), (18, 17))
            arrow = [(pointer[0] + x, pointer[1] + y) for x, y in corners]
            ImageDraw.Draw(frame).polygon(arrow, fill="black", outline="white", width=2)
        self.frames.append(frame.resize(ANIMATED, Image.Resampling.LANCZOS))
        self.milliseconds.append(round(1000 * seconds))

    def write(self, file: Path | None) -> None:
        if file is None:
            return
        first, *rest = self.frames
        how = {"duration": self.milliseconds, "loop": 0, "quality": 70, "method": 6}
        first.save(file, "WEBP", save_all=True, append_images=rest, **how)
        print(f"{len(self.frames)} frames, {file.stat().st_size:,} bytes: {file}")


class Walk:
    """One person's way through the page."""

    def __init__(self, browser: Any, server: Server, person: Person, options: argparse.Namespace) -> None:
        self.server, self.person, self.options = server, person, options
        self.origin = server.address.split("/?")[0]
        self.context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.film = Film()
        self.pointer = (0.0, 0.0)
        self.strangers: list[str] = []
        self.errors: list[str] = []
        self.killed = False
        self.page.on("request", self.request)
        self.page.on("response", lambda r: self.errors.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" and not self.killed else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))

    def request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.strangers.append(request.url)

    def kept(self, path: str, action: Callable[[], object]) -> None:
        """Do what is sent, and wait for its answer and for the page to draw it."""
        with self.page.expect_response(lambda answer: answer.url.endswith(path)):
            action()
        self.page.wait_for_timeout(350)

    def settle(self) -> None:
        """Wait for the pictures that are in view, and for the image."""
        self.page.wait_for_function(PICTURES_ARE_THERE)
        for shown in self.page.locator(".viewer-notice").all():
            shown.wait_for(state="hidden")
        self.page.wait_for_timeout(700)

    def api(self, path: str) -> Any:
        return self.page.evaluate("async (path) => (await fetch(path)).json()", path)

    def go(self) -> None:
        page = self.page
        page.goto(self.server.address)
        page.wait_for_selector("article.card")
        self.concepts()
        self.images()
        self.kill_and_go_on()
        self.next()
        self.audit()
        self.hand_over()
        assert not self.strangers, f"requests outside of the origin: {self.strangers}"
        assert not self.errors, f"errors on the console: {self.errors}"
        print("no request outside of the origin, no error on the console")

    def concepts(self) -> None:
        from selfseg.studio.regions import RegionStore

        self.picture("concepts_begin")
        self.film.add(self.page, 2)
        state = self.api("/api/state")
        store = RegionStore.open(self.options.run)
        named: list[tuple[str, str]] = []
        for cluster in state["clusters"][:14]:
            votes: Counter[str] = Counter()
            for crop in cluster["typical"]:  # what a person sees: the typical segments
                x = (crop["box"][0] + crop["box"][2]) / 2
                y = (crop["box"][1] + crop["box"][3]) / 2
                found = self.person.at(store.names[crop["image"]], x, y)
                votes[found or VOID] += 1
            name = votes.most_common(1)[0][0]
            if name != VOID:
                named.append((cluster["id"], name))
        for turn, (path, name) in enumerate(named[:12], 1):
            field = self.page.locator(f'input[aria-label="Name of cluster {path.split("/")[1]}"]')
            field.fill(name)
            self.kept("/api/name", partial(field.press, "Enter"))
            if turn in (1, 4):
                self.settle()
                self.film.add(self.page, 1.2)
        rest = [one["id"] for one in self.api("/api/state")["clusters"] if not one["name"]]
        self.verb(rest[0], "Split")
        self.kept("/api/split", self.page.locator(".parts:visible button").first.click)
        self.kept("/api/leave-out", partial(self.verb, rest[1], "Leave out"))
        state = self.api("/api/state")
        names = [one["name"] for one in state["clusters"] if one["name"]]
        print(f"{len(names)} clusters have {len(set(names))} names, {len(state['clusters'])} clusters after a split")
        assert len(names) == 12
        assert len(set(names)) < 12
        assert any("." in one["id"] for one in state["clusters"])
        assert sum(one["leftOut"] for one in state["clusters"]) == 1
        self.page.evaluate("scrollTo(0, 0)")
        self.picture("concepts")
        self.film.add(self.page, 2)

    def verb(self, path: str, words: str) -> None:
        number = path.split("/")[1]
        self.page.locator(f'article.card:has(input[aria-label="Name of cluster {number}"])').get_by_role(
            "button", name=words
        ).click()

    def images(self) -> None:
        page = self.page
        corrected = 0
        count = self.api("/api/state")["images"]
        even = np.linspace(3, count - 4, 5).astype(int).tolist()
        for image in (*even, *(other for other in range(count) if other not in even)):
            if corrected == 30:
                break
            about = self.api(f"/api/images?from={image}&count=1")[0]
            if len(self.wrong(image, about)) < 20:
                continue  # she goes on to an image with more to do
            page.goto(f"{self.origin}/#images/{image}")
            page.wait_for_selector(".workbench canvas")
            self.settle()
            if not corrected:
                self.film.add(page, 2)
            for _ in range(6):
                corrected += self.correct(image, about)
                if corrected in (1, 3, 6):
                    self.settle()
                    self.film.add(page, 1.2, self.pointer)
        print(f"{corrected} segments corrected in five images")
        assert corrected == 30
        page.locator(".tools-side").evaluate("one => one.scrollTo(0, 0)")
        self.picture("images")
        before = self.api("/api/state")["progress"]["clicks"]
        for _ in range(3):
            self.kept("/api/undo", partial(page.keyboard.press, "z"))
        after = self.api("/api/state")["progress"]["clicks"]
        print(f"three undone: {before} clicks, then {after}")
        assert before - after == 3

    def wrong(self, image: int, about: dict[str, Any]) -> list[tuple[str, tuple[float, float]]]:
        """The right class, and a place, of each superpixel whose prediction is wrong, the largest first."""
        from selfseg.studio.regions import RegionStore

        store = RegionStore.open(self.options.run)
        classes = [one["name"] for one in self.api("/api/state")["classes"]]
        data = self.page.evaluate(
            "async (i) => [...new Uint8Array(await (await fetch(`/api/image/${i}/prediction`)).arrayBuffer())]", image
        )
        raw = bytes(data)
        n = int.from_bytes(raw[:4], "little")
        predicted = np.frombuffer(raw, "<u2", n, 4)
        first = int(store.first[image])
        superpixels = store.superpixels(image)
        votes = self.person.votes(about["name"], superpixels)
        found = []
        for region in np.argsort(-store.areas[first : first + n], kind="stable"):
            name = self.person.names.get(str(votes[region].argmax()), VOID)
            now = classes[predicted[region]] if predicted[region] < len(classes) else ""
            if name in (VOID, now) or votes[region].max() < 0.9 * votes[region].sum():
                continue
            ys, xs = np.nonzero(superpixels == region)
            middle = int(((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin())
            place = (xs[middle] + 0.5) / superpixels.shape[1], (ys[middle] + 0.5) / superpixels.shape[0]
            found.append((name, place))
        return found

    def correct(self, image: int, about: dict[str, Any]) -> int:
        """Click on a place whose prediction is wrong, with the right class: one of the page's list, or a new one."""
        name, place = self.wrong(image, about)[0]
        side = self.page.locator(".tools-side")
        if name in [one["name"] for one in self.api("/api/state")["classes"]]:
            self.page.get_by_role("radio", name=name).or_(side.get_by_text(name, exact=True)).first.click()
        else:
            side.get_by_placeholder("New class").fill(name)
            side.get_by_placeholder("New class").press("Enter")
        self.click(place, about)
        return 1

    def click(self, place: tuple[float, float], about: dict[str, Any]) -> None:
        box = self.page.locator(".workbench canvas").first.bounding_box()
        scale = min(box["width"] / about["width"], box["height"] / about["height"])
        left = box["x"] + (box["width"] - scale * about["width"]) / 2
        top = box["y"] + (box["height"] - scale * about["height"]) / 2
        self.page.mouse.move(left + 1, top + 1)
        self.pointer = left + place[0] * scale * about["width"], top + place[1] * scale * about["height"]
        self.kept("/api/click", partial(self.page.mouse.click, *self.pointer))

    def kill_and_go_on(self) -> None:
        before = self.api("/api/state")
        self.killed = True
        self.server.kill()
        self.page.wait_for_timeout(4000)
        self.picture("away", narrow=False)
        self.server = Server(self.options.run, self.options.images, self.options.pictures / "studio.log")
        self.page.goto(self.server.address)
        self.page.wait_for_timeout(2500)
        self.killed = False
        after = self.api("/api/state")
        for key in ("clusters", "progress", "undoes"):
            assert before[key] == after[key], f"{key} differ after the kill"
        assert [one["name"] for one in before["classes"]] == [one["name"] for one in after["classes"]]
        print(f"killed with -9 and started again: all {after['progress']['decisions']} decisions are there")

    def next(self) -> None:
        self.page.goto(f"{self.origin}/#next")
        self.page.wait_for_selector(".queue li")
        self.page.wait_for_timeout(2500)
        self.picture("next")
        self.film.add(self.page, 1.6)

    def audit(self) -> None:
        page = self.page
        page.goto(f"{self.origin}/#audit")
        page.wait_for_timeout(800)
        self.kept("/api/audit/start", page.get_by_role("button", name="Draw 60 places").click)
        self.picture("audit")
        names = self.api("/api/images?from=0&count=500")
        right = 0
        for n in range(20):
            place = self.api("/api/audit")["places"][n]
            truth = self.person.at(names[place["image"]]["name"], place["x"], place["y"])
            classes = [one["name"] for one in self.api("/api/state")["classes"]]
            if not truth:
                verdict = page.get_by_role("button", name="Can’t tell")
            elif place["predicted"] == (truth if truth in classes else ""):
                right += 1
                verdict = page.locator(".verdicts .yes")
            elif truth in classes:
                verdict = page.locator(".verdicts .answer").get_by_text(truth, exact=True).first
            else:
                verdict = page.get_by_role("button", name="none of the names")
            self.kept("/api/audit/answer", verdict.click)
        found = self.api("/api/audit")
        print(f"audit: {found['answered']} answered, {found['right']} right; {found['sentence']}")
        assert (found["answered"], found["right"]) == (20, right)
        page.get_by_role("button", name="Stop here for now").click()
        page.wait_for_timeout(600)
        self.picture("audit_result")
        self.film.add(page, 2)

    def hand_over(self) -> None:
        page = self.page
        page.goto(f"{self.origin}/#hand-over")
        page.wait_for_timeout(2500)
        for title in ("COCO JSON", "Segmentation mask 1.1"):
            page.locator("label.format", has_text=title).first.locator("input").check()
        page.get_by_role("button", name="Write the files").click()
        for _ in range(600):
            job = self.api("/api/job")
            if job and not job["running"]:
                break
            page.wait_for_timeout(500)
        assert job["error"] is None, job["error"]
        page.wait_for_timeout(800)
        self.picture("hand_over", show=".files")
        page.locator(".files").evaluate("one => one.scrollIntoView({block: 'end'})")
        self.film.add(page, 2.4)
        for one in job["files"]:
            with page.expect_download() as caught:
                page.locator(f'a[href$="{one["name"]}"]').first.click()
            size = os.path.getsize(caught.value.path())
            assert size == one["bytes"], (one, size)
            print(f"downloaded {one['name']}: {size:,} bytes; {one['about']}")
        print(json.dumps([one["name"] for one in job["files"]]))

    def picture(self, name: str, narrow: bool = True, show: str = "") -> None:
        """Light and dark, 1280 and 390 px wide, with the end of what `show` selects at the bottom."""
        for width, height in ((1280, 860), (390, 844)) if narrow else ((1280, 860),):
            for scheme in ("light", "dark"):
                self.page.set_viewport_size({"width": width, "height": height})
                self.page.emulate_media(color_scheme=scheme)
                if show:
                    self.page.locator(show).evaluate("one => one.scrollIntoView({block: 'end'})")
                if self.killed:
                    self.page.wait_for_timeout(1200)
                else:
                    self.settle()
                path = self.options.pictures / f"studio_{name}_{width}_{scheme}.jpg"
                self.page.screenshot(path=path, type="jpeg", quality=82)
        self.page.set_viewport_size({"width": 1280, "height": 860})
        self.page.emulate_media(color_scheme="light")
        self.page.wait_for_timeout(400)


if __name__ == "__main__":
    main()
