"""Asking servers: one connection for each process, with a limit in time, repeated with pauses when it fails.

fsspec has the file systems, and s3fs and gcsfs find credentials in their own ways (environment, files, roles); we take
none. Their own repetitions are switched off where they can be, so that there is one rule, and what it did is known.
"""

from __future__ import annotations

import errno
import html
import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from selfseg.errors import ConfigError, DataError, MissingExtra, Unreachable
from selfseg.storage.remote.urls import as_url, is_web, shown

T = TypeVar("T")

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "RefreshError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
)
_SESSION = "SELFSEG_SESSION"


@dataclass(frozen=True)
class Patience:
    """How long servers are waited for; each is a variable of the environment, SELFSEG_REMOTE_ and its name.

    Attributes:
        attempts: at a request.
        pause: s before the second attempt; twice as long before each further one, less a random part of up to half.
        longest: s, of a pause.
        total: s after which a request that failed is not made again.
        connect: s to wait for a connection.
        silence: s to wait for the next bytes.
    """

    attempts: int = 6
    pause: float = 0.5
    longest: float = 20.0
    total: float = 300.0
    connect: float = 10.0
    silence: float = 60.0

    @classmethod
    def of_environment(cls) -> Patience:
        """What the environment says; raises ConfigError for what is no positive number."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"SELFSEG_REMOTE_{field.name.upper()}"
            text = os.environ.get(variable)
            if text is not None:
                try:
                    values[field.name] = int(text) if field.name == "attempts" else float(text)
                except ValueError:
                    values[field.name] = 0
                if not values[field.name] > 0:
                    raise ConfigError(f"{variable}={text} must be a positive number, or be left out")
        return cls(**values)


class Stamp(NamedTuple):
    """What tells a version of a remote file.

    Attributes:
        size: in bytes; -1 if the server doesn't say.
        tag: the MD5 of its bytes in hex where that is known, another tag of the server, or a time; "" if nothing is.
        modified: s since 1970; 0 if unknown.
    """

    size: int
    tag: str
    modified: float = 0.0

    def same(self, other: Stamp) -> bool:
        """Whether both are one version."""
        return self.size == other.size and self.tag == other.tag


def cache_folder() -> Path:
    """Where fetched files lie, and a list of the requests that were repeated."""
    given = os.environ.get("SELFSEG_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "selfseg"


class Missing(FileNotFoundError):
    """There is nothing at a URL."""


_systems: dict[tuple[int, str, str], Any] = {}
_making = threading.Lock()


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, one for each process, and the path in it.

    Raises:
        MissingExtra: if its package is not installed.
        Unreachable: if nobody knows such URLs.
    """
    import fsspec

    scheme = url.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingExtra(f"{scheme}://", _PACKAGES.get(scheme, str(error)), "remote") from error
    except ValueError as error:
        raise Unreachable(f"can't open {shown(url)}: {error}") from error
    where = {k: v for k, v in kind._get_kwargs_from_urls(url).items() if k in ("host", "port", "username")}
    key = (os.getpid(), scheme, repr(sorted(where.items())))
    with _making:  # fsspec would make one for each thread, with connections of its own
        if key not in _systems:
            options = {**_options(scheme, Patience.of_environment()), **where}
            made = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
            if hasattr(made, "retries"):
                made.retries = 1
            _systems[key] = made
    return _systems[key], kind._strip_protocol(url)


def _options(scheme: str, patience: Patience) -> dict[str, Any]:
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": patience.connect, "read_timeout": patience.silence}
        return {"config_kwargs": {**limits, "retries": {"max_attempts": 0}}}
    if scheme in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.silence)
        return {"client_kwargs": {"timeout": limit}}
    return {}


def persist(ask: Callable[[], T], url: str) -> T:
    """What `ask` returns; if that fails for a reason that may pass, it is asked again.

    Args:
        ask: makes a request.
        url: for messages.

    Raises:
        Missing: if the server says that there is no such file.
        PermissionError: if it says that this may not be done.
        Unreachable: if there are no credentials, or it keeps failing.
        OSError: if our own disk is full.
    """
    patience, begun = Patience.of_environment(), time.monotonic()
    for attempt in range(1, patience.attempts + 1):
        try:
            return ask()
        except DataError:
            raise
        except Exception as error:  # each kind of file system has its own
            failure = error
        _raise_what_stays(failure, url)
        spent = time.monotonic() - begun
        if attempt == patience.attempts or spent > patience.total:
            break
        _note_repeat(url, failure)
        pause = min(patience.longest, patience.pause * 2 ** (attempt - 1))
        time.sleep(pause * random.uniform(0.5, 1.0))  # not all at once, when a server comes back
    what = str(failure) or type(failure).__name__
    raise Unreachable(
        f"can't reach {shown(url)}: {what} ({attempt} attempts in {spent:.0f} s); when it can be reached, run the "
        "command again to continue"
    ) from failure


def _raise_what_stays(error: Exception, url: str) -> None:
    """Raise what another attempt can't mend."""
    if isinstance(error, FileNotFoundError) and _hides_another(error.__cause__):
        assert isinstance(error.__cause__, Exception)
        error = error.__cause__
    names = {type(each).__name__ for each in (error, error.__cause__, error.__context__) if each is not None}
    if isinstance(error, FileNotFoundError):
        raise Missing(errno.ENOENT, f"there is nothing at {shown(url)}") from error
    if names & set(_NO_CREDENTIALS):
        raise Unreachable(
            f"no credentials for {shown(url)}: {error}; set them up as for the tools of that store, e.g. in "
            "AWS_PROFILE or ~/.aws/credentials, or with gcloud auth application-default login (docs/remote.md)"
        ) from error
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        raise PermissionError(errno.EACCES, f"{shown(url)} is refused to these credentials: {error}") from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error  # our disk, not the connection: waiting is no help
    if isinstance(error, ImportError | NotImplementedError | TypeError | AttributeError):
        raise Unreachable(f"can't open {shown(url)}: {type(error).__name__}: {error}") from error


def _hides_another(cause: BaseException | None) -> bool:
    """Whether "not found" is what fsspec says of any error over http: who believed it would skip images."""
    kind = type(cause).__module__.partition(".")[0]
    foreign = kind in ("aiohttp", "asyncio") or isinstance(cause, TimeoutError | ConnectionError)
    return foreign and getattr(cause, "status", None) not in (404, 410)


_noting = threading.Lock()


def _note_repeat(url: str, error: Exception) -> None:
    """Append to CACHE/repeated.jsonl; the processes of a session share it, so that all of them are counted."""
    entry = {"session": session(), "time": round(time.time(), 3), "url": shown(url)}
    entry["error"] = f"{type(error).__name__}: {error}"[:300]
    path = cache_folder() / "repeated.jsonl"
    try:
        with _noting:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > 1 << 22:
                path.replace(path.with_name("repeated-before.jsonl"))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
    except OSError:
        pass  # it is for a person to read, and no reason to stop


def session() -> str:
    """A word that this process and those that it starts have in common."""
    return os.environ.setdefault(_SESSION, f"{os.getpid()}-{time.time_ns()}")


def repeated() -> int:
    """How many requests were made again in this session."""
    if not _systems:
        return 0
    mine, count = f'"session": "{session()}"', 0
    for name in ("repeated-before.jsonl", "repeated.jsonl"):
        path: Path = cache_folder() / name
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as lines:
                count += sum(mine in line for line in lines)
    return count


def list_files(url: str) -> dict[str, Stamp]:
    """All files below a URL, or the one at it, by their own URLs; empty if there is nothing.

    Raises:
        Unreachable: if the server can't be reached, or refuses.
    """
    system, inside = connect(url)
    try:
        if is_web(url):
            return _list_web(system, url)
        found = persist(lambda: system.find(inside, withdirs=False, detail=True), url)
    except Missing:
        return {}
    except PermissionError as error:
        raise Unreachable(str(error.strerror)) from error
    scheme = url.partition("://")[0]
    files = {f"{scheme}://{name.lstrip('/')}": info for name, info in found.items() if info.get("type") != "directory"}
    return {name: stamp_of(info) for name, info in sorted(files.items()) if not name.endswith("/")}


def _list_web(system: Any, url: str) -> dict[str, Stamp]:
    """Of a page with links, which most servers show for a folder; each file is asked for its size and version."""
    from concurrent.futures import ThreadPoolExecutor

    pending, seen, files = [url + "/"], set[str](), list[str]()
    try:
        persist(lambda: system.ls(url + "/", detail=True), url)
    except Missing:  # no folder
        return {url: stamp_at(url)}
    while pending:
        folder = pending.pop()
        seen.add(folder)
        for entry in persist(lambda folder=folder: system.ls(folder, detail=True), folder):  # type: ignore[misc]
            link = html.unescape(str(entry["name"])).partition("#")[0]
            inside = link.startswith(url + "/") and ".." not in link.split("/")
            if not inside or "?" in link or link.rstrip("/") == folder.rstrip("/"):
                continue  # parents, other places, and other orders of the same list
            if not link.endswith("/"):
                files.append(link)
            elif link not in seen and link not in pending:
                pending.append(link)
    files = sorted(set(files))
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(files, pool.map(stamp_at, files), strict=True))


def stamp_at(url: str) -> Stamp:
    """The version of a file; raises as `persist`."""
    system, inside = connect(url)
    return stamp_of(persist(lambda: system.info(inside), url))


def stamp_of(info: dict[str, Any]) -> Stamp:
    """What fsspec's `info` says of a version."""
    import base64
    from datetime import datetime
    from email.utils import parsedate_to_datetime

    md5, size = info.get("md5Hash"), info.get("size")
    known = ("ETag", "etag", "Content-MD5", "mtime", "LastModified", "last_modified", "Last-Modified", "updated")
    tag = next((str(info[key]) for key in (*known, "created") if info.get(key)), "").removeprefix("W/").strip('"')
    modified: Any = next((info[k] for k in ("LastModified", "Last-Modified", "updated", "mtime") if info.get(k)), 0)
    try:
        if isinstance(modified, str):
            iso = modified[:4].isdigit()
            modified = datetime.fromisoformat(modified) if iso else parsedate_to_datetime(modified)
        modified = float(modified.timestamp() if isinstance(modified, datetime) else modified)
    except (ValueError, TypeError):
        modified = 0.0
    tag = base64.b64decode(md5).hex() if isinstance(md5, str) else tag
    return Stamp(-1 if size is None else int(size), tag, modified)


def require_url(place: Path | str) -> str:
    """A place that is known to be a URL."""
    url = as_url(place)
    assert url is not None, place
    return url
