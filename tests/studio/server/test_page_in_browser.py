"""The page in a real browser, where what a person does in a hurry or by mistake must not become a decision."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from selfseg.studio.server.serving import address, create_server, listen
from studio.server.drawn import DrawnStudio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request, Route

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

pytestmark = pytest.mark.slow

WAIT = 15_000  # ms; of two busy cores
PULSE = 2500  # ms, in which the page has heard of what another one decided

MARK = """canvas => { // where what is drawn in the mark's yellow has its middle
  const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== 255 || data[i + 1] !== 214 || data[i + 2] !== 10) continue;
    found[0] += 1;
    found[1] += (i / 4) % width;
    found[2] += Math.floor(i / 4 / width);
  }
  return [found[1] / found[0], found[2] / found[0]];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        here = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        own = Path(started.chromium.executable_path)
        if here is None and not own.exists():
            pytest.skip("there is no chromium")
        browser = started.chromium.launch(executable_path=here or own, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Line:
    """The way to an address of the studio, which may be cut, or so slow that requests wait on it.

    It is laid before the page is opened: an open page may send its next request past a route that was just added.
    """

    path: str
    state: Literal["open", "cut", "slow"] = "open"
    waiting: list[Route] = field(default_factory=list)

    def carry(self, route: Route) -> None:
        if self.state == "cut":
            route.abort()
        elif self.state == "slow":
            self.waiting.append(route)
        else:
            route.continue_()


@pytest.fixture
def screen(studio: DrawnStudio, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a part of the page; a line may lie between it and the studio."""
    for number, name in enumerate(("sky", "ground", "road")):
        studio.name(f"5/{number}", name)
    with served(studio) as opened:
        context = chromium.new_context(viewport={"width": 1300, "height": 850})
        context.set_default_timeout(WAIT)

        def show(part: str, line: Line | None = None) -> Page:
            page = context.new_page()
            if line is not None:
                page.route(f"**{line.path}", line.carry)
            page.goto(opened)
            page.wait_for_selector(".cards .card")
            page.goto(f"{opened.partition('?')[0]}#{part}")
            if part != "concepts":
                page.wait_for_selector(".viewer canvas, .audit .panel")
            if page.locator(".viewer").count():
                page.wait_for_selector(".viewer-notice[hidden]", state="attached")
            return page

        yield show
        context.close()


@contextmanager
def served(studio: DrawnStudio) -> Iterator[str]:
    listening = listen(0)
    server = create_server(studio, "a-token")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield address(listening.getsockname()[1], "a-token")
    server.should_exit = True
    thread.join(10)
    listening.close()


def sent(page: Page, path: str) -> list[dict[str, Any]]:
    """What the page sends to an address from now on."""
    found: list[dict[str, Any]] = []

    def hear(request: Request) -> None:
        if request.method == "POST" and request.url.endswith(path):
            found.append(json.loads(request.post_data or "{}"))

    page.on("request", hear)
    return found


def at(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """A place of a canvas on the screen."""
    box = canvas.bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def kept(page: Page, action: Callable[[], object], path: str = "/api/click") -> None:
    """Do what is sent, and wait for its answer."""
    with page.expect_response(lambda answer: answer.url.endswith(path)):
        action()


def lost(page: Page, action: Callable[[], object], line: Line) -> None:
    """Do what is sent over a line that is cut, and wait until it has failed."""
    line.state = "cut"
    with page.expect_event("requestfailed", lambda request: request.url.endswith(line.path)):
        action()
    line.state = "open"


def verdicts(studio: DrawnStudio) -> list[str | None]:
    return [place.verdict for place in studio.decided.audit or ()]


def many_names(studio: DrawnStudio) -> None:
    """So many that a field for yet another one is shown."""
    for number in range(8):
        studio.click(0, [((number + 0.5) / 8, 0.5)], 1000, f"thing {number}", "")


def test_arrow_keys_do_not_move_the_place_that_is_judged(studio: DrawnStudio, screen: Callable[[str], Page]) -> None:
    studio.audit_start(4, 1)
    page = screen("audit")
    kept(page, lambda: page.keyboard.press("u"), "/api/audit/answer")
    page.wait_for_selector(".progress:has-text('Place 2 of 4')")
    page.wait_for_selector(".viewer-notice[hidden]", state="attached")
    canvas = page.locator(".viewer canvas")
    canvas.focus()
    page.wait_for_timeout(300)
    before = canvas.evaluate(MARK)
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert canvas.evaluate(MARK) == before
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".progress:has-text('Place 1 of 4')")


def test_arrow_keys_leave_the_mark_on_what_a_digit_answers(screen: Callable[[str], Page]) -> None:
    page = screen("next")
    clicks = sent(page, "/api/click")
    asked = page.evaluate("fetch('/api/queue?count=1').then(answer => answer.json())")[0]
    canvas = page.locator(".viewer canvas")
    canvas.focus()
    page.wait_for_timeout(300)
    mark, before = canvas.evaluate(MARK), canvas.screenshot()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft" if asked["x"] > 0.5 else "Shift+ArrowRight")
    page.wait_for_timeout(300)
    assert canvas.evaluate(MARK) == pytest.approx(mark, abs=2)
    assert canvas.screenshot() != before  # there is a cursor
    kept(page, lambda: page.keyboard.press("2"))
    assert [(click["image"], click["places"]) for click in clicks] == [(asked["image"], [[asked["x"], asked["y"]]])]


def test_a_half_typed_name_is_no_verdict(studio: DrawnStudio, screen: Callable[[str], Page]) -> None:
    many_names(studio)
    for number in range(3):
        studio.click(1, [((number + 0.5) / 3, 0.5)], 1000, f"tenth or later {number}", "")
    studio.audit_start(4, 1)
    page = screen("audit")
    field = page.locator(".others .name-field input")
    assert "⇧1" in page.locator(".others .answer", has_text="tenth or later").first.inner_text()
    field.press_sequentially("zzz")
    kept(page, lambda: page.click("text=Can’t tell"), "/api/audit/answer")
    assert verdicts(studio) == ["unsure", None, None, None]
    page.wait_for_selector(".progress:has-text('Place 2 of 4')")
    field.press_sequentially("bic")
    studio.name("5/3", "fence")
    page.wait_for_timeout(PULSE)
    assert field.input_value() == "bic"
    assert field.evaluate("field => field === document.activeElement")
    assert verdicts(studio) == ["unsure", None, None, None]
    page.keyboard.type("ycle")
    kept(page, lambda: page.keyboard.press("Enter"), "/api/audit/answer")
    assert verdicts(studio)[1] == "bicycle"


def test_a_half_typed_name_is_no_answer_to_a_question(screen: Callable[[str], Page]) -> None:
    page = screen("next")
    clicks = sent(page, "/api/click")
    page.locator(".answers .name-field input").press_sequentially("zz")
    page.click("button.answer:has-text('Skip')")
    page.wait_for_selector(".queue li:nth-child(2) [aria-current]")
    page.wait_for_timeout(300)
    assert clicks == []


def test_a_card_keeps_its_name_when_left_but_not_when_it_goes(
    studio: DrawnStudio, screen: Callable[[str], Page]
) -> None:
    page = screen("concepts")
    page.locator(".card:has-text('Cluster 3') .name-field input").press_sequentially("fence")
    kept(page, lambda: page.click(".segmented button:has-text('Named')"), "/api/name")
    page.wait_for_selector(".segmented button[aria-pressed=true]:has-text('Named')")
    assert studio.decided.names["5/3"] == "fence"
    page.click(".segmented button:has-text('All')")
    page.locator(".card:has-text('Cluster 4') .name-field input").press_sequentially("bi")
    said = sent(page, "/api/name")
    studio.choose_k(3)
    page.wait_for_timeout(PULSE)
    assert page.locator(".card").count() == 3
    assert said == []


def test_trying_again_judges_the_place_that_was_meant(studio: DrawnStudio, screen: Callable[..., Page]) -> None:
    studio.audit_start(4, 1)
    line = Line("/api/audit/answer")
    page = screen("audit", line)
    kept(page, lambda: page.keyboard.press("n"), line.path)
    page.wait_for_selector(".progress:has-text('Place 2 of 4')")
    again = page.locator(".notice button:has-text('Try again')")
    for _ in range(2):
        lost(page, lambda: page.keyboard.press("u"), line)
        again.wait_for()
    assert again.count() == 1
    page.click("button:has-text('Back')")
    page.wait_for_selector(".progress:has-text('Place 1 of 4')")
    kept(page, again.click, line.path)
    assert verdicts(studio) == ["", "unsure", None, None]
    again.wait_for(state="detached")


def test_a_retry_goes_when_its_place_has_a_verdict(studio: DrawnStudio, screen: Callable[..., Page]) -> None:
    studio.audit_start(4, 1)
    line = Line("/api/audit/answer")
    page = screen("audit", line)
    again = page.locator("button:has-text('Try again')")
    lost(page, lambda: page.keyboard.press("u"), line)
    again.wait_for()
    kept(page, lambda: page.keyboard.press("n"), line.path)
    page.wait_for_selector(".progress:has-text('Place 2 of 4')")
    assert again.count() == 0


def painting(screen: Callable[[str], Page]) -> tuple[Page, list[dict[str, Any]], Locator]:
    """The images with a class to paint with, what is sent of it, and where to paint."""
    page = screen("images")
    clicks = sent(page, "/api/click")
    page.click(".classes.painting .pick >> nth=0")
    return page, clicks, page.locator(".viewer canvas")


def test_a_stroke_stays_in_its_image(screen: Callable[[str], Page]) -> None:
    page, clicks, canvas = painting(screen)
    page.mouse.move(*at(canvas, 0.3, 0.5))
    page.mouse.down()
    page.mouse.move(*at(canvas, 0.35, 0.5), steps=3)
    page.keyboard.press("Space")
    page.wait_for_selector(".place:has-text('2 of 3')")
    page.wait_for_selector(".viewer-notice[hidden]", state="attached")
    page.mouse.move(*at(canvas, 0.9, 0.5), steps=8)
    page.mouse.up()
    page.wait_for_timeout(600)
    assert [click["image"] for click in clicks] == [0]
    assert max(x for x, _ in clicks[0]["places"]) < 0.5


def test_the_wheel_does_not_change_what_is_being_painted(screen: Callable[[str], Page]) -> None:
    page, clicks, canvas = painting(screen)
    page.mouse.move(*at(canvas, 0.5, 0.5))
    for _ in range(20):
        page.keyboard.press("[")
    words = page.get_attribute(".slider input[aria-valuetext]", "aria-valuetext") or ""
    (segments,) = re.findall(r"in (\d+) segments", words)
    page.mouse.down()
    page.mouse.move(*at(canvas, 0.52, 0.5), steps=2)
    for _ in range(10):
        page.mouse.wheel(0, -30)
    page.wait_for_timeout(200)
    kept(page, page.mouse.up)
    assert [click["level"] for click in clicks] == [int(segments)]


def test_a_second_key_in_a_hurry_answers_nothing(screen: Callable[[str], Page]) -> None:
    page = screen("next")
    clicks = sent(page, "/api/click")
    kept(page, lambda: page.keyboard.press("1"))
    page.keyboard.press("2")
    page.wait_for_selector(".queue li:nth-child(2) [aria-current]")
    page.wait_for_timeout(600)
    assert [click["name"] for click in clicks] == ["sky"]
    assert page.locator(".queue [aria-current]").get_attribute("class") != "done"
    assert page.locator(".queue li:nth-child(2) [aria-current]").count() == 1
    kept(page, lambda: page.keyboard.press("z"), "/api/undo")
    page.wait_for_selector(".queue li:nth-child(1) [aria-current]")
    assert page.locator(".queue .done").count() == 0


def test_closing_asks_while_something_is_being_saved(screen: Callable[..., Page]) -> None:
    line = Line("/api/click", "slow")
    page = screen("images", line)
    page.click(".classes.painting .pick >> nth=0")
    page.mouse.click(*at(page.locator(".viewer canvas"), 0.5, 0.5))
    page.wait_for_selector(".saved:has-text('Saving')")
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.close(run_before_unload=True)
    page.wait_for_timeout(1000)
    assert asked == ["beforeunload"]
    assert not page.is_closed()
    for route in line.waiting:
        route.continue_()
    page.wait_for_selector(".saved:has-text('Saved')")


def test_renaming_ends_when_its_field_is_left(screen: Callable[[str], Page]) -> None:
    page = screen("images")
    page.click("[aria-label='Rename sky']")
    page.click("[data-focus=erase]", delay=150)
    page.wait_for_selector(".classes.painting li.chosen.eraser")  # the press was not swallowed
    assert page.locator(".renaming").count() == 0
    page.click("[aria-label='Rename sky']")
    page.mouse.click(*at(page.locator(".viewer canvas"), 0.01, 0.01))
    page.wait_for_selector(".renaming", state="detached")
    page.fill("[aria-label='Name of a new class']", "fence")
    page.keyboard.press("Enter")
    page.wait_for_selector(".classes.painting li.chosen:has-text('fence')")


def test_a_name_in_decomposed_letters_is_the_same_name(studio: DrawnStudio, screen: Callable[[str], Page]) -> None:
    page = screen("images")
    page.fill("[aria-label='Name of a new class']", "cafe\u0301")
    page.keyboard.press("Enter")
    kept(page, lambda: page.mouse.click(*at(page.locator(".viewer canvas"), 0.5, 0.5)))
    assert "caf\u00e9" in studio.decided.order
    page.wait_for_selector(".classes.painting li:has-text('caf'):has-text('%')")
    assert page.locator(".classes.painting li:has-text('caf')").count() == 1


def test_the_page_of_another_studio_is_loaded_anew(studio: DrawnStudio, screen: Callable[[str], Page]) -> None:
    page = screen("images")
    page.wait_for_timeout(PULSE)  # until it has heard of the first one
    page.click(".classes.painting .pick >> nth=0")
    studio.session = "second"
    page.mouse.click(*at(page.locator(".viewer canvas"), 0.5, 0.5))
    page.wait_for_selector(".notice:has-text('started again'):has-text('Not saved: the click.')")
    assert studio.decided.clicks == []
    studio.session = "third"  # and without any decision
    page.wait_for_selector(".notice:has-text('started again'):has-text('Nothing was waiting')")


def test_a_new_audit_in_the_middle_of_one_asks_first(studio: DrawnStudio, screen: Callable[[str], Page]) -> None:
    studio.audit_start(4, 1)
    studio.audit_answer(0, "unsure")
    page = screen("audit")
    page.click("text=Stop here for now")
    page.click("text=New audit")
    page.keyboard.press("Enter")  # the first button keeps what there is
    page.wait_for_selector("dialog", state="detached")
    assert verdicts(studio) == ["unsure", None, None, None]
    page.click("text=New audit")
    kept(page, lambda: page.click("text=Draw new places"), "/api/audit/start")
    assert verdicts(studio) == [None] * 60
