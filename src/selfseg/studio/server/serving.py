"""Starting the studio's server, and saying where it is."""

from __future__ import annotations

import getpass
import html
import os
import re
import secrets
import socket
import stat
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from selfseg.errors import ConfigError
from selfseg.storage.files import storage_errors
from selfseg.studio.server.app import create_app
from selfseg.studio.server.contract import StudioLike

PORT = 8760
"""Where the studio is if nothing is said; the next ones if that is taken."""

_TRIED = 20  # ports
_GO_ON = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={0}">
<title>selfseg studio</title></head><body><p><a href="{0}">Open the studio</a></p></body></html>"""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def serve(
    studio: StudioLike,
    say: Callable[[str], None],
    *,
    port: int | None = None,
    browser: bool = True,
    token: str | None = None,
) -> None:
    """Serve the studio's page to this computer until it is interrupted.

    Args:
        studio: what is shown.
        say: told a line at a time where the page is.
        port: where to listen; the first that is free from `PORT` on if None, any that is free if 0.
        browser: whether to open the page here; otherwise it is said how to open it from another computer.
        token: the secret in the address, as `kept_token` gives it; a new one if None.

    Raises:
        ConfigError: if the port is taken.
    """
    token = token or new_token()
    listening = listen(port)
    number = int(listening.getsockname()[1])
    server = create_server(studio, token)
    for line in words(number, token, browser, os.environ):
        say(line)
    way_in = _way_in(address(number, token)) if browser else None
    if way_in is not None:
        # Beside the server: some browsers only come back when they are closed.
        threading.Thread(target=webbrowser.open, args=(way_in.as_uri(),), daemon=True).start()
    try:
        with listening:
            server.run(sockets=[listening])
    finally:
        if way_in is not None:
            way_in.unlink(missing_ok=True)


def _way_in(where: str) -> Path:
    """A page that goes on to an address, and that only we can read: a program's arguments are read by everybody."""
    handle, name = tempfile.mkstemp(prefix="selfseg-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_GO_ON.format(html.escape(where)))
    return Path(name)


def create_server(studio: StudioLike, token: str) -> uvicorn.Server:
    """The server, to be run on a socket that `listen` gives."""
    config = uvicorn.Config(
        create_app(studio, token),
        log_config=None,
        access_log=False,  # addresses hold the token
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def listen(port: int | None) -> socket.socket:
    """A socket that only this computer reaches.

    Raises:
        ConfigError: if the port is taken, or none of those that are tried is free.
    """
    for number in range(PORT, PORT + _TRIED) if port is None else (port,):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would let two programs listen at once
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", number))
            listening.listen(128)
        except (OSError, OverflowError):
            listening.close()
        else:
            return listening
    asked = f"ports {PORT} to {PORT + _TRIED - 1} are" if port is None else f"port {port} is"
    raise ConfigError(f"{asked} taken or not allowed; choose another with --port, or --port 0 for any that is free")


def address(port: int, token: str) -> str:
    """Where the page is, with the token that lets a browser in."""
    return f"http://127.0.0.1:{port}/?token={token}"


def words(port: int, token: str, browser: bool, environment: Mapping[str, str]) -> list[str]:
    """The lines that say where the page is, and how to reach it from another computer.

    Example:
        >>> for line in words(8760, "secret", True, {}):
        ...     print(line)
        The studio is at  http://127.0.0.1:8760/?token=secret
        Keep the address to yourself: it opens the studio to anybody. Ctrl+C stops it; decisions are saved at once.
    """
    lines = [f"The studio is at  {address(port, token)}"]
    if not browser or "SSH_CONNECTION" in environment:
        lines += [
            "From another computer: run this there, leave it running, and open the address in the browser there:",
            f"  ssh -N -L {port}:127.0.0.1:{port} {_here()}",
        ]
    return [
        *lines,
        "Keep the address to yourself: it opens the studio to anybody. Ctrl+C stops it; decisions are saved at once.",
    ]


def _here() -> str:
    """This computer and its user, as ssh takes them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return socket.gethostname()
    return f"{user}@{socket.gethostname()}"


def new_token() -> str:
    """A secret of 256 random bits, fit for an address."""
    return secrets.token_urlsafe(32)


def kept_token(folder: Path) -> str:
    """The secret that a folder keeps, so that an open page goes on after the studio was stopped and started again.

    A file that others could read, or that is not ours, is replaced by a new one. Where files can't be kept from others,
    nothing is kept, and the secret is another one each time.

    Args:
        folder: of the studio's files; it is made.

    Raises:
        StorageError: if it can't be written.
    """
    path = folder / "token"
    token = _read_private(path)
    if token is not None:
        return token
    token = new_token()
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
        if _read_private(path) is None:
            path.unlink()
    return token


def _read_private(path: Path) -> str | None:
    """A kept secret that nobody else can have read."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))) as file:
            about = os.fstat(file.fileno())
            text = file.read(100)
    except (OSError, ValueError):
        return None
    private = stat.S_ISREG(about.st_mode) and not stat.S_IMODE(about.st_mode) & 0o077
    ours = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    return text if private and ours and _TOKEN.fullmatch(text) else None
