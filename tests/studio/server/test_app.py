"""What each address answers, and that what a person typed comes back as it was."""

import asyncio
import base64
import gzip
import struct
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from selfseg.studio.server.app import create_app, page_files
from selfseg.studio.server.contract import NO_CLASS
from selfseg.studio.server.wire import Fields, to_json
from studio.server.drawn import DrawnStudio

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "javascript:alert(1)",
    "شجرة",
    "‏עץ‏ <b>",
    "道路 🛣️",
    "1,5 %",
    "unsure?",
    "a" * 200,
    "{{7*7}} ${7*7} %s %00 \\u0041",
]


def decide(page: TestClient, path: str, **said: Any) -> Any:
    answer = page.post(f"/api/{path}", json=said)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_decision_is_answered_with_the_state_that_it_led_to(page: TestClient) -> None:
    before = page.get("/api/state").json()
    assert before["images"] == 3
    assert before["kNow"] == 5
    assert before["undoes"] == ""
    after = decide(page, "name", cluster="5/1", name="sky")
    assert after["version"] != before["version"]
    named = {cluster["id"]: cluster["name"] for cluster in after["clusters"]}
    assert named == {"5/0": "", "5/1": "sky", "5/2": "", "5/3": "", "5/4": ""}
    assert after["undoes"] == "named cluster 1 of 5 “sky”"
    assert [one["name"] for one in after["classes"]] == ["sky"]
    assert after["classes"][0]["colour"] == "#0072b2"
    assert after == page.get("/api/state").json()
    assert page.get("/api/pulse").json() == {"version": after["version"], "busy": None, "session": "drawn"}


def test_a_clusters_crops_lie_in_images_that_there_are(page: TestClient) -> None:
    for cluster in page.get("/api/state").json()["clusters"]:
        for crop in (*cluster["typical"], *cluster["diverse"]):
            x0, y0, x1, y1 = crop["box"]
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            asked = {"image": crop["image"], "box": f"{x0},{y0},{x1},{y1}", "cluster": cluster["id"], "size": 64}
            picture = page.get("/api/crop", params=asked)
            assert picture.headers["content-type"] == "image/jpeg"
            assert picture.content[:2] == b"\xff\xd8"


def test_every_decision_about_clusters_reaches_the_studio(page: TestClient, studio: DrawnStudio) -> None:
    decide(page, "name", cluster="5/0", name="sky")
    decide(page, "name", cluster="5/1", name="ground")
    assert [c["leftOut"] for c in decide(page, "leave-out", cluster="5/2", on=True)["clusters"]].count(True) == 1
    assert [c["leftOut"] for c in decide(page, "leave-out", cluster="5/2", on=False)["clusters"]].count(True) == 0
    ids = [c["id"] for c in decide(page, "split", cluster="5/3", parts=2)["clusters"]]
    assert ids == ["5/0", "5/1", "5/2", "5/3.0", "5/3.1", "5/4"]
    assert len(decide(page, "unsplit", cluster="5/3")["clusters"]) == 5
    assert decide(page, "colour", name="sky", colour="#0A0b0C")["classes"][0]["colour"] == "#0a0b0c"
    assert [c["name"] for c in decide(page, "rename", old="ground", new="sky")["classes"]] == ["sky"]
    assert [c["name"] for c in decide(page, "undo")["classes"]] == ["sky", "ground"]
    assert [c["name"] for c in decide(page, "redo")["classes"]] == ["sky"]
    assert decide(page, "k", k=3)["kNow"] == 3
    assert studio.decided.k == 3


@pytest.mark.parametrize("name", NASTY)
def test_names_come_back_as_they_were_typed_in_every_field(page: TestClient, name: str) -> None:
    state = decide(page, "name", cluster="5/0", name=name)
    assert state["clusters"][0]["name"] == name
    assert state["classes"][0]["name"] == name
    assert name in state["undoes"]
    clicked = decide(page, "click", image=0, x=0.5, y=0.5, level=1000, name=name, stroke="<b>")
    assert clicked["classes"][0]["name"] == name
    assert decide(page, "colour", name=name, colour="#ffffff")["classes"][0]["colour"] == "#ffffff"
    decide(page, "audit/start", count=3, seed=1)
    assert decide(page, "audit/answer", n=0, verdict=name)["places"][0]["verdict"] == name
    assert decide(page, "rename", old=name, new=name[:100] + "<i>")["classes"][0]["name"] == name[:100] + "<i>"
    for answer in (page.get("/api/state"), page.get("/api/audit"), page.post("/api/name", json={"cluster": name})):
        assert answer.headers["content-type"] == "application/json"  # with nosniff: no browser takes it for a page


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("name", {"cluster": None, "name": "a"}),
        ("leave-out", {"cluster": None, "on": True}),
        ("split", {"cluster": None, "parts": 2}),
        ("unsplit", {"cluster": None}),
        ("colour", {"name": "sky", "colour": None}),
        ("colour", {"name": None, "colour": "#000000"}),
        ("rename", {"old": None, "new": "a"}),
        ("hand-over", {"formats": [None], "model": False}),
    ],
)
def test_nonsense_is_refused_in_words_and_changes_nothing(
    page: TestClient, studio: DrawnStudio, path: str, said: dict[str, Any], name: str
) -> None:
    filled = {key: name if value is None else [name] if value == [None] else value for key, value in said.items()}
    answer = page.post(f"/api/{path}", json=filled)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10
    assert studio.version == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("name", {}),
        ("name", {"cluster": "5/0"}),
        ("name", {"cluster": "5/0", "name": 5}),
        ("name", {"cluster": ["5/0"], "name": "a"}),
        ("name", {"cluster": "5/0", "name": "a" * 1001}),
        ("leave-out", {"cluster": "5/0", "on": "yes"}),
        ("split", {"cluster": "5/0", "parts": 2.5}),
        ("split", {"cluster": "5/0", "parts": 1}),
        ("split", {"cluster": "5/0", "parts": True}),
        ("k", {"k": 4}),
        ("click", {"image": 3, "x": 0.5, "y": 0.5, "level": 9, "name": "a"}),
        ("click", {"image": -1, "x": 0.5, "y": 0.5, "level": 9, "name": "a"}),
        ("click", {"image": 0, "x": 1.5, "y": 0.5, "level": 9, "name": "a"}),
        ("click", {"image": 0, "x": "0,5", "y": 0.5, "level": 9, "name": "a"}),
        ("click", {"image": 0, "places": [], "level": 9, "name": "a"}),
        ("click", {"image": 0, "places": [[0.1, 0.2, 0.3]], "level": 9, "name": "a"}),
        ("click", {"image": 0, "places": [[0.5, 0.5]] * 4001, "level": 9, "name": "a"}),
        ("click", {"image": 0, "x": 0.5, "y": 0.5, "level": -1, "name": "a"}),
        ("click", {"image": 0, "x": 0.5, "y": 0.5, "level": 9}),
        ("audit/start", {"count": 0, "seed": 1}),
        ("audit/start", {"count": 10**9, "seed": 1}),
        ("audit/answer", {"n": 0, "verdict": None}),
        ("hand-over", {"formats": "coco", "model": False}),
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_refused(
    page: TestClient, studio: DrawnStudio, path: str, said: dict[str, Any]
) -> None:
    answer = page.post(f"/api/{path}", json=said)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10
    assert studio.version == 1


@pytest.mark.parametrize("body", ["", "{", "[]", "5", '"a"', "null", "NaN", "[" * 50_000, '{"a": 1e999}', b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(page: TestClient, body: Any) -> None:
    answer = page.post("/api/name", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "error" in answer.json()


@pytest.mark.parametrize(
    "address",
    [
        "/api/crop", "/api/crop?image=0", "/api/crop?image=0&box=0,0,1", "/api/crop?image=0&box=0,0,1,a",
        "/api/crop?image=0&box=1,0,0,1", "/api/crop?image=0&box=nan,0,1,1", "/api/crop?image=9&box=0,0,1,1",
        "/api/crop?image=0&box=0,0,1,1&cluster=9/9", "/api/crop?image=0&box=0,0,1,1&size=99999",
        "/api/image/9.jpg", "/api/image/9/regions", "/api/image/9/prediction", "/api/image/0.jpg?size=-1",
        "/api/images?from=a", "/api/images?count=100000", "/api/queue?count=1e3", "/api/queue?count=\u0663",
    ],
)  # fmt: skip
def test_an_address_that_asks_for_nonsense_is_refused(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


def test_images_come_in_pages(page: TestClient) -> None:
    images = page.get("/api/images").json()
    assert [(each["index"], each["name"], each["height"], each["width"]) for each in images] == [
        (0, "scene0.jpg", 45, 60),
        (1, "scene1.jpg", 45, 60),
        (2, "scene2.jpg", 45, 60),
    ]
    assert page.get("/api/images?from=1&count=1").json() == images[1:2]
    assert page.get("/api/images?from=5").json() == []


def test_regions_are_what_the_studio_has(page: TestClient, studio: DrawnStudio) -> None:
    body = page.get("/api/image/1/regions").content
    superpixels, merges = studio.regions(1)
    height, width, n = struct.unpack("<3I", body[:12])
    assert (height, width, n) == (*superpixels.shape, int(superpixels.max()) + 1)
    end = 12 + 2 * height * width
    assert np.array_equal(np.frombuffer(body[12:end], "<u2").reshape(height, width), superpixels)
    assert np.array_equal(np.frombuffer(body[end:], "<f4").reshape(n - 1, 3), merges)


def test_regions_are_packed_for_slow_tunnels(page: TestClient) -> None:
    with page.stream("GET", "/api/image/1/regions", headers={"accept-encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
    plain = page.get("/api/image/1/regions", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < 0.5 * len(plain.content)


def unpacked(body: bytes) -> tuple[Any, Any]:
    (n,) = struct.unpack("<I", body[:4])
    assert len(body) == 4 + 6 * n
    return np.frombuffer(body[4 : 4 + 2 * n], "<u2"), np.frombuffer(body[4 + 2 * n :], "<f4")


def test_a_click_is_answered_with_the_images_prediction(page: TestClient, studio: DrawnStudio) -> None:
    classes, certainty = unpacked(page.get("/api/image/0/prediction").content)
    assert (classes == NO_CLASS).all()
    assert len(classes) == len(certainty) == int(studio.regions(0)[0].max()) + 1
    answer = decide(page, "click", image=0, x=0.5, y=0.1, level=1000, name="sky")
    classes, certainty = unpacked(base64.b64decode(answer["prediction"]))
    region = int(studio.regions(0)[0][4, 30])
    assert classes[region] == 0
    assert certainty[region] == 1
    assert page.get("/api/image/0/prediction").content == base64.b64decode(answer["prediction"])
    assert answer["undoes"] == "clicked “sky” in scene0.jpg"
    assert page.get("/api/images").json()[0]["clicks"] == 1


def test_a_stroke_is_one_decision_for_undo(page: TestClient, studio: DrawnStudio) -> None:
    places = [[0.1, 0.1], [0.5, 0.1], [0.9, 0.1]]
    decide(page, "click", image=0, places=places, level=1000, name="sky", stroke="1")
    assert len(studio.decided.clicks) == 3
    decide(page, "undo")
    assert studio.decided.clicks == []


def test_a_click_that_erases_names_nothing(page: TestClient, studio: DrawnStudio) -> None:
    decide(page, "click", image=0, x=0.5, y=0.1, level=1000, name="sky")
    decide(page, "click", image=0, x=0.5, y=0.1, level=1000, name=None)
    assert studio.decided.clicks == []


def test_an_audit_from_the_first_place_to_the_result(page: TestClient) -> None:
    decide(page, "name", cluster="5/0", name="sky")
    assert page.get("/api/audit").json() is None
    audit = decide(page, "audit/start", count=4, seed=3)
    assert [place["n"] for place in audit["places"]] == [0, 1, 2, 3]
    assert audit["accuracy"] is None
    audit = decide(page, "audit/answer", n=0, verdict=audit["places"][0]["predicted"])
    audit = decide(page, "audit/answer", n=1, verdict="unsure")
    audit = decide(page, "audit/answer", n=2, verdict="something else")
    assert (audit["answered"], audit["unsure"], audit["right"], audit["accuracy"]) == (3, 1, 1, 0.5)
    assert 0 <= audit["low"] < 0.5 < audit["high"] <= 1
    assert audit == page.get("/api/audit").json()


def test_what_is_handed_over_can_be_downloaded(page: TestClient) -> None:
    assert [each["key"] for each in page.get("/api/formats").json()][:2] == ["palette", "coco"]
    assert page.get("/api/job").json() is None
    assert decide(page, "hand-over", formats=["palette", "coco"], model=True) == {"job": "job-1"}
    job = page.get("/api/job").json()
    assert [file["name"] for file in job["files"]] == ["palette.zip", "coco.zip", "model.zip"]
    for file in job["files"]:
        assert len(page.get(f"/files/{file['name']}").content) == file["bytes"]


def test_the_page_and_all_that_it_names_is_there(page: TestClient) -> None:
    assert page.get("/").headers["content-type"] == "text/html; charset=utf-8"
    for path, (body, kind) in page_files().items():
        answer = page.get(path)
        assert answer.content == body
        assert answer.headers["content-type"] == kind


def test_json_has_no_nan_and_no_numpy() -> None:
    assert to_json([float("nan"), np.float32(0.5), np.int64(3), np.bool_(True), None, "a"]) == [
        None,
        0.5,
        3,
        True,
        None,
        "a",
    ]


def test_fields_that_were_not_said_have_their_defaults() -> None:
    fields = Fields({"count": "7"})
    assert fields.whole_or("count", 3) == 7
    assert fields.whole_or("from", 3) == 3
    assert "from" not in fields


def test_a_page_of_another_session_is_told_to_load_again(page: TestClient, studio: DrawnStudio) -> None:
    session = page.get("/api/pulse").json()["session"]
    assert page.get("/api/state", headers={"x-selfseg-session": session}).status_code == 200
    version = studio.version
    for answer in (
        page.get("/api/image/0/prediction", headers={"x-selfseg-session": "old"}),
        page.post("/api/name", json={"cluster": "12/0", "name": "a"}, headers={"x-selfseg-session": "old"}),
    ):
        assert answer.status_code == 409
        assert answer.json()["session"] == session
    assert studio.version == version


def test_numbers_that_no_float_and_no_route_can_hold_are_refused_in_a_sentence(page: TestClient) -> None:
    huge = "1" + "0" * 400
    for said in (f'"x": {huge}, "y": 0.5, "level": 5', f'"x": 0.5, "y": 0.5, "level": {huge}'):
        text = f'{{"image": 0, "name": "a", {said}}}'
        answer = page.post("/api/click", content=text, headers={"content-type": "application/json"})
        assert (answer.status_code, "a number of at least 0" in answer.text) == (400, True)
    answer = page.get(f"/api/image/{'9' * 5000}.jpg")
    assert (answer.status_code, "a whole number" in answer.text) == (400, True)


def test_a_browser_that_leaves_in_the_middle_of_a_request_is_no_mistake_of_ours(studio: DrawnStudio) -> None:
    guard = create_app(studio, "token")
    cookie = f"{guard.cookie}={guard._session}".encode()
    pairs = {b"host": b"127.0.0.1", b"cookie": cookie, b"origin": b"http://127.0.0.1"}
    headers = [*pairs.items(), (b"content-type", b"application/json"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/api/undo", "query_string": b"", "headers": headers}
    asked = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        pass

    asyncio.run(guard(scope, receive, send))  # it raised ClientDisconnect
    assert next(asked, None) is None
