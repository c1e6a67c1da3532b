"""Where the studio is, and who knows."""

import html
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pytest

from selfseg.errors import ConfigError
from selfseg.studio.server import serving
from selfseg.studio.server.serving import address, create_server, kept_token, listen, new_token, serve, words
from studio.server.drawn import DrawnStudio


def test_it_listens_to_this_computer_only() -> None:
    with listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_the_next_port_is_taken_where_one_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen(0) as taken:
        monkeypatch.setattr(serving, "PORT", taken.getsockname()[1])
        with listen(None) as other:
            assert taken.getsockname()[1] < other.getsockname()[1] < taken.getsockname()[1] + 20


def test_a_port_that_was_asked_for_is_that_or_an_error() -> None:
    with listen(0) as taken, pytest.raises(ConfigError, match=r"port \d+ is taken.*--port"):
        listen(taken.getsockname()[1])
    with pytest.raises(ConfigError, match="99999"):
        listen(99_999)


def test_tokens_can_not_be_guessed() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert {len(token) for token in tokens} == {43}


def test_the_words_hold_the_address_and_the_line_for_ssh() -> None:
    here = words(8760, "secret", True, {})
    assert address(8760, "secret") in here[0]
    assert not [line for line in here if "ssh" in line]
    for far in (words(8760, "secret", False, {}), words(8760, "secret", True, {"SSH_CONNECTION": "1 2 3 4"})):
        (line,) = [line for line in far if "ssh" in line]
        assert line.split()[:4] == ["ssh", "-N", "-L", "8760:127.0.0.1:8760"]
        assert "secret" not in line


def test_a_kept_token_is_the_same_and_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "studio"
    token = kept_token(folder)
    assert kept_token(folder) == token
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600


def test_a_token_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    token = kept_token(tmp_path)
    (tmp_path / "token").chmod(0o644)
    other = kept_token(tmp_path)
    assert other != token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "short", "a" * 44, "é" * 43, "a" * 42 + "\n", "../" + "a" * 40])
def test_a_file_that_holds_no_token_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    (tmp_path / "token").chmod(0o600)
    assert len(kept_token(tmp_path)) == 43


def test_a_link_in_the_tokens_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("a" * 43)
    elsewhere.chmod(0o600)
    (tmp_path / "token").symlink_to(elsewhere)
    assert kept_token(tmp_path) != "a" * 43
    assert elsewhere.read_text() == "a" * 43
    assert not (tmp_path / "token").is_symlink()


@pytest.fixture
def port(studio: DrawnStudio) -> Iterator[int]:
    """A studio that is served in a thread."""
    listening = listen(0)
    server = create_server(studio, "a-token")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listening.close()
    assert not thread.is_alive()


def test_a_real_browser_comes_in_by_the_address(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/api/state").status_code == 403
        assert client.get("/?token=a-token").status_code == 200
        assert client.get("/api/state").json()["images"] == 3
        answer = client.get("/")
        assert "server" not in answer.headers
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")


def test_what_is_no_http_is_refused_without_harm(port: int) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(1000)
            assert answer == b"" or answer.split()[1] in (b"400", b"403")
    assert httpx.get(f"http://127.0.0.1:{port}/api/state").status_code == 403


def test_serving_says_where_and_opens_the_browser(studio: DrawnStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    ran = threading.Event()

    def open_browser(where: str) -> None:
        opened.append(where)
        path = Path(url2pathname(urlsplit(where).path))
        goes_to.append(html.unescape(path.read_text()).partition("0;url=")[2].partition('"')[0])
        modes.append(path.stat().st_mode & 0o777)
        ran.set()

    goes_to: list[str] = []
    modes: list[int] = []
    monkeypatch.setattr(serving.webbrowser, "open", open_browser)
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda self, sockets: ran.wait(5))
    said: list[str] = []
    serve(studio, said.append, port=0)
    assert goes_to[0] in said[0]
    assert "token=" in goes_to[0]
    assert "token" not in opened[0]  # everybody on the computer can read a program's arguments
    assert os.name != "posix" or modes == [0o600]
    serve(studio, said.append, port=0, browser=False, token="mine")
    assert len(opened) == 1
    assert not Path(url2pathname(urlsplit(opened[0]).path)).exists()
    assert "token=mine" in "".join(said)
