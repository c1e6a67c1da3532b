"""Only the person's own browser, on this computer, through the studio's own page."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from selfseg.studio.server import security
from selfseg.studio.server.app import create_app
from selfseg.studio.server.security import LARGEST_BODY, Guard
from studio.server.conftest import ORIGIN, TOKEN
from studio.server.drawn import DrawnStudio

Browser = Callable[..., TestClient]

ADDRESSES = [
    "/", "/scripts/main.js", "/styles/base.css", "/icon.svg", "/api/state", "/api/pulse", "/api/images", "/api/queue",
    "/api/image/0.jpg", "/api/image/0/regions", "/api/image/0/prediction", "/api/crop?image=0&box=0,0,1,1",
    "/api/audit", "/api/formats", "/api/job", "/files/palette.zip",
]  # fmt: skip
DECISIONS = {
    "name": {"cluster": "5/0", "name": "sky"},
    "leave-out": {"cluster": "5/0", "on": True},
    "split": {"cluster": "5/0", "parts": 2},
    "colour": {"name": "sky", "colour": "#010203"},
    "rename": {"old": "sky", "new": "air"},
    "k": {"k": 3},
    "undo": {},
    "redo": {},
    "click": {"image": 0, "x": 0.5, "y": 0.5, "level": 1000, "name": "sky"},
    "audit/start": {"count": 5, "seed": 1},
    "audit/answer": {"n": 0, "verdict": "sky"},
    "hand-over": {"formats": ["coco"], "model": False},
}


def is_hardened(headers: object) -> bool:
    found = dict(headers)  # type: ignore[call-overload]
    policy = found.get("content-security-policy", "")
    return (
        policy.startswith("default-src 'self';")
        and "unsafe" not in policy
        and "script-src" not in policy
        and "frame-ancestors 'none'" in policy
        and found.get("x-content-type-options") == "nosniff"
        and found.get("cache-control") == "no-store"
        and found.get("referrer-policy") == "no-referrer"
        and found.get("cross-origin-resource-policy") == "same-origin"
    )


def test_the_right_token_gives_a_cookie_that_scripts_and_other_sites_never_see(browser: Browser) -> None:
    answer = browser().get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "domain" not in cookie.lower()
    assert TOKEN not in cookie
    assert TOKEN not in answer.text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "a", "\u00e9", "%00", TOKEN.upper()])
def test_a_wrong_token_lets_nobody_in(browser: Browser, token: str) -> None:
    client = browser()
    answer = client.get("/", params={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert client.get("/api/state").status_code == 403


def test_a_wrong_token_is_refused_to_a_browser_that_is_in_too(page: TestClient) -> None:
    assert page.get("/?token=wrong").status_code == 403
    assert page.get("/api/state").status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_second_browser_without_the_token_gets_nothing(page: TestClient, browser: Browser, address: str) -> None:
    assert page.get(address).status_code in (200, 404)
    answer = browser().get(address)
    assert answer.status_code == 403
    assert is_hardened(answer.headers)


@pytest.mark.parametrize("path", DECISIONS)
def test_a_second_browser_decides_nothing(browser: Browser, studio: DrawnStudio, path: str) -> None:
    answer = browser().post(f"/api/{path}", json=DECISIONS[path])
    assert answer.status_code == 403
    assert studio.version == 1


def test_a_made_up_or_another_studios_cookie_is_none(browser: Browser) -> None:
    client = browser()
    guard = client.app
    assert isinstance(guard, Guard)
    for value in ("", TOKEN, "0" * 64):
        assert client.get("/api/state", headers={"cookie": f"{guard.cookie}={value}"}).status_code == 403
    other = Guard(guard, "another-token")
    assert other.cookie != guard.cookie
    assert client.get("/api/state", headers={"cookie": f"{guard.cookie}={other._session}"}).status_code == 403
    assert client.get("/api/state", headers={"cookie": 'a="\\"; {[('}).status_code == 403


@pytest.mark.parametrize("other", ['prefs={"theme":"dark"}', "x=a b", 'k=a"b', "note=caf\xe9", "=", "a", "[]=1"])
def test_cookies_of_other_programs_on_this_computer_lock_nobody_out(browser: Browser, other: str) -> None:
    client = browser()
    guard = client.app
    assert isinstance(guard, Guard)
    own = f"{guard.cookie}={guard._session}"
    for line in (f"{other}; {own}", f"{own}; {other}"):
        assert client.get("/api/state", headers={"cookie": line.encode("latin-1")}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["example.com", "127.0.0.1.example.com", "localhost.example.com:8760", "10.0.0.5:8760", "", "127.0.0.1:8760:1"],
)
@pytest.mark.parametrize("address", ["/", f"/?token={TOKEN}", "/api/state"])
def test_another_host_is_refused_whatever_is_known(page: TestClient, host: str, address: str) -> None:
    answer = page.get(address, headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:8760", "LOCALHOST:1", "[::1]:8760"])
def test_this_computers_other_names_and_the_other_end_of_a_tunnel_are_fine(page: TestClient, host: str) -> None:
    assert page.get("/api/state", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://example.com", "null", "https://127.0.0.1:8760", "http://127.0.0.1:8761", "http://localhost:8760", ""],
)
def test_another_origin_is_refused(page: TestClient, studio: DrawnStudio, origin: str) -> None:
    assert page.post("/api/undo", json={}, headers={"origin": origin}).status_code == 403
    assert page.get("/api/state", headers={"origin": origin}).status_code == 403
    assert studio.version == 1


def test_a_decision_names_its_origin(page: TestClient, studio: DrawnStudio) -> None:
    del page.headers["origin"]
    assert page.get("/api/state").status_code == 200  # browsers don't name it when they get
    assert page.post("/api/name", json=DECISIONS["name"]).status_code == 403
    assert studio.version == 1


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_loads_is_refused_although_the_browser_sends_the_cookie(page: TestClient, site: str) -> None:
    del page.headers["origin"]
    for address in ("/api/image/0.jpg", "/api/state", "/scripts/main.js"):
        assert page.get(address, headers={"sec-fetch-site": site}).status_code == 403
    assert page.get("/api/state", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_link_on_another_site_to_the_address_with_the_token_works(browser: Browser) -> None:
    client = browser()
    answer = client.get(f"/?token={TOKEN}", headers={"sec-fetch-site": "cross-site"}, follow_redirects=False)
    assert answer.status_code == 200  # no redirect: a Strict cookie is not sent along one that began elsewhere
    assert 'http-equiv="refresh"' in answer.text
    assert client.get("/", headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_page_is_no_decision(page: TestClient, studio: DrawnStudio, kind: str) -> None:
    answer = page.post("/api/name", content=json.dumps(DECISIONS["name"]), headers={"content-type": kind})
    assert answer.status_code == 415
    assert studio.version == 1


def raw(app: Guard, path: str, cookie: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET of exactly this path; clients tidy paths up before they send them."""
    sent: list[Any] = []

    asked: list[bool] = []

    async def receive() -> dict[str, Any]:
        if asked:
            await asyncio.Event().wait()  # the client stays: whoever waits for it to go is told nothing
        asked.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", ORIGIN.removeprefix("http://").encode()), (b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "GET", "path": unquote(path), "raw_path": path.encode(), "query_string": b""}
    asyncio.run(app({**scope, "headers": headers, "http_version": "1.1", "scheme": "http"}, receive, send))
    start, *bodies = sent
    found = {key.decode(): value.decode() for key, value in start["headers"]}
    return start["status"], found, b"".join(message.get("body", b"") for message in bodies)


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/scripts/../../server/app.py", "/scripts/..%2f..%2fserver/app.py", "/%2e%2e/secret",
        "/files/..%2fsecret", "/files/../secret", "/files/%2e%2e%2fsecret", "/files/..", "/files/....//secret",
        "/files/%2fetc%2fpasswd", "/files//etc/passwd", "/files/%00", "/files/coco.zip%00", "/files/..%5csecret",
        "//etc/passwd", "/api/image/..%2f1.jpg", "/api/image/-1.jpg", "/api/image/1e3.jpg", "/api/image/0.jpg/../1",
        "/__init__.py", "/index.html/..", "/scripts", "/scripts/",
    ],
)  # fmt: skip
def test_no_path_leads_out(page: TestClient, studio: DrawnStudio, path: str) -> None:
    page.post("/api/hand-over", json=DECISIONS["hand-over"])
    (studio.out.parent / "secret").write_text("root:")
    guard = page.app
    assert isinstance(guard, Guard)
    cookie = f"{guard.cookie}={page.cookies[guard.cookie]}"
    assert raw(guard, "/files/coco.zip", cookie)[0] == 200
    status, headers, body = raw(guard, path, cookie)
    assert status in (400, 404)
    assert b"root:" not in body
    assert is_hardened(headers)


def test_only_files_of_the_job_are_given(page: TestClient, studio: DrawnStudio) -> None:
    page.post("/api/hand-over", json=DECISIONS["hand-over"])
    (studio.out / "other.zip").write_bytes(b"not in the list")
    assert page.get("/files/other.zip").status_code == 404
    answer = page.get("/files/coco.zip")
    assert answer.content == (studio.out / "coco.zip").read_bytes()
    assert answer.headers["content-disposition"] == 'attachment; filename="coco.zip"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert is_hardened(answer.headers)


def test_a_file_of_the_job_that_was_removed_is_told(
    page: TestClient, studio: DrawnStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.post("/api/hand-over", json={"formats": ["coco"], "model": False})
    monkeypatch.setattr(studio, "file", lambda name: tmp_path / name)
    answer = page.get("/files/coco.zip")
    assert answer.status_code == 404
    assert "write it again" in answer.text


def test_a_huge_body_is_refused_before_it_is_read(page: TestClient, studio: DrawnStudio) -> None:
    body = json.dumps({"cluster": "5/0", "name": "a" * LARGEST_BODY})
    answer = page.post("/api/name", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert is_hardened(answer.headers)
    assert studio.version == 1


def test_a_huge_body_that_does_not_say_so_is_cut_off(page: TestClient, studio: DrawnStudio) -> None:
    sent = []

    def pieces():  # type: ignore[no-untyped-def]  # chunked: no length is said
        yield b'{"cluster": "5/0", "name": "'
        for _ in range(100):
            sent.append(1)
            yield b"a" * (LARGEST_BODY // 10)
        yield b'"}'

    answer = page.post("/api/name", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert is_hardened(answer.headers)
    assert studio.version == 1


def half_a_request() -> dict[str, Any]:
    """A decision whose body has begun, as the server sees it."""
    guard = Guard(lambda *_: None, TOKEN)  # type: ignore[arg-type, return-value]
    headers = {"host": "127.0.0.1", "origin": "http://127.0.0.1", "content-type": "application/json"}
    headers["cookie"] = f"{guard.cookie}={guard._session}"
    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    about = {"type": "http", "method": "POST", "path": "/api/name", "query_string": b"", "headers": listed}
    return {**about, "raw_path": b"/api/name", "http_version": "1.1", "scheme": "http", "root_path": ""}


@pytest.mark.parametrize("closed", [False, True])
def test_a_body_that_never_ends_is_not_waited_for(
    studio: DrawnStudio, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(security, "PATIENCE", 60 if closed else 0.02)
    sent: list[Any] = []

    async def ask() -> None:
        parts = [{"type": "http.request", "body": b'{"clus', "more_body": True}]

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        asked = asyncio.create_task(create_app(studio, TOKEN)(half_a_request(), receive, send))
        await asyncio.sleep(0.1)
        asked.cancel()  # as a server does that ends
        await asyncio.wait_for(asked, 5)

    asyncio.run(ask())
    assert sent[0]["status"] == (503 if closed else 408)
    assert studio.version == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
@pytest.mark.parametrize("address", ["/", "/api/state", "/api/name"])
def test_other_methods_are_not_answered(page: TestClient, method: str, address: str) -> None:
    answer = page.request(method, address)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    assert is_hardened(answer.headers)


@pytest.mark.parametrize("path", DECISIONS)
def test_nothing_is_decided_by_getting(page: TestClient, studio: DrawnStudio, path: str) -> None:
    answer = page.get(f"/api/{path}", params={key: str(value) for key, value in DECISIONS[path].items()})
    assert answer.status_code == 405
    assert studio.version == 1


def test_what_is_read_is_not_posted(page: TestClient) -> None:
    for path in ("state", "images", "queue", "formats", "job", "image/0.jpg"):
        assert page.post(f"/api/{path}", json={}).status_code == 405


def test_every_answer_is_hardened_and_none_is_open_to_other_sites(page: TestClient) -> None:
    answers = [page.get(address) for address in (*ADDRESSES, f"/?token={TOKEN}", "/?token=x", "/none", "/api/none")]
    answers += [page.post(f"/api/{path}", json=said) for path, said in DECISIONS.items()]
    answers += [page.post("/api/name", json={"cluster": "5/0"})]
    assert {answer.status_code for answer in answers} >= {200, 400, 403, 404}
    for answer in answers:
        assert is_hardened(answer.headers), answer.url
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "server" not in answer.headers


def test_a_mistake_in_the_studio_is_hardened_too_and_tells_no_secrets(
    browser: Browser, studio: DrawnStudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("a path of this machine")

    monkeypatch.setattr(studio, "queue", lambda count: broken())
    client = browser(raise_server_exceptions=False)
    client.get(f"/?token={TOKEN}")
    answer = client.get("/api/queue")
    assert answer.status_code == 500
    assert "RuntimeError" in answer.json()["error"]
    assert "a path" not in answer.text
    assert is_hardened(answer.headers)
    assert "a path of this machine" in caplog.text


def test_requests_of_other_kinds_are_not_answered(browser: Browser) -> None:
    client = browser()
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect(f"{ORIGIN.replace('http', 'ws')}/api"):
        pass
    assert closed.value.code == 1008
