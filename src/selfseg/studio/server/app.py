"""The application that answers the studio's page: each address is a method of the studio.

The page's own files are read once, and answered from a list; no address becomes a path of the file system.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from selfseg.errors import ConfigError, SelfsegError
from selfseg.studio.server.contract import AnotherNow, StudioLike
from selfseg.studio.server.security import Guard
from selfseg.studio.server.wire import Fields, plain, prediction_bytes, regions_bytes, to_json

LOGGER = logging.getLogger(__name__)

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_LARGEST_PICTURE = 2048  # longer side in px
_MOST_IMAGES = 500  # in one answer

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(studio: StudioLike, token: str) -> Guard:
    """The studio's application.

    Args:
        studio: what it shows.
        token: the secret in its address.

    Returns:
        An ASGI application.
    """
    answers = _Answers(studio)
    routes = [
        *(_get(f"/api/{name}", answer, studio) for name, answer in answers.gets().items()),
        *(_post(f"/api/{name}", answer, studio) for name, answer in answers.posts().items()),
        Route("/files/{name}", answers.file, methods=["GET"]),
        *(Route(path, _constant(body, kind), methods=["GET"]) for path, (body, kind) in page_files().items()),
    ]
    return Guard(Starlette(routes=routes, exception_handlers=_HANDLERS), token)


def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of the page's files by the path of their address."""
    found: dict[str, tuple[bytes, str]] = {}

    def walk(folder: Traversable, path: str) -> None:
        for entry in folder.iterdir():
            kind = _KINDS.get(entry.name.rpartition(".")[2])
            if entry.is_dir():
                walk(entry, f"{path}{entry.name}/")
            elif kind is not None:
                found[f"{path}{entry.name}"] = (entry.read_bytes(), kind)

    walk(resources.files("selfseg.studio") / "page", "/")
    found["/"] = found.pop("/index.html")
    return found


class _Answers:
    """What each address gives."""

    def __init__(self, studio: StudioLike) -> None:
        self._studio = studio

    def gets(self) -> Mapping[str, Callable[[Fields], Any]]:
        """By address; a path's number is the field "index" (`Fields` reads it: a route fails at 5,000 digits)."""
        studio = self._studio
        return {
            "state": lambda _: studio.state(),
            "pulse": lambda _: studio.pulse(),
            "crop": lambda asked: _jpeg(
                studio.crop(
                    asked.whole("image"),
                    asked.box("box"),
                    asked.text("cluster") if "cluster" in asked else None,
                    _size(asked, 160),
                    asked.channels("channels"),
                )
            ),
            "images": lambda asked: plain(
                studio.images(asked.whole_or("from", 0), asked.whole_or("count", _MOST_IMAGES, _MOST_IMAGES))
            ),
            "image/{index}.jpg": lambda asked: _jpeg(
                studio.photograph(asked.whole("index"), _size(asked, 1600), asked.channels("channels"))
            ),
            "image/{index}/regions": lambda asked: _binary(regions_bytes(*studio.regions(asked.whole("index")))),
            "image/{index}/prediction": lambda asked: _binary(
                prediction_bytes(studio.prediction(asked.whole("index")))
            ),
            "queue": lambda asked: plain(studio.queue(asked.whole_or("count", 20, 200))),
            "audit": lambda _: studio.audit(),
            "formats": lambda _: plain(studio.formats()),
            "job": lambda _: studio.job(),
        }

    def posts(self) -> Mapping[str, Callable[[Fields], Any]]:
        """By address; what gives nothing has changed the state, which is the answer."""
        studio = self._studio
        return {
            "name": lambda said: studio.name(said.text("cluster"), said.text("name")),
            "leave-out": lambda said: studio.leave_out(said.text("cluster"), said.flag("on")),
            "split": lambda said: studio.split(said.text("cluster"), said.whole("parts", 64)),
            "unsplit": lambda said: studio.unsplit(said.text("cluster")),
            "colour": lambda said: studio.colour(said.text("name"), said.colour("colour")),
            "rename": lambda said: studio.rename(said.text("old"), said.text("new")),
            "k": lambda said: studio.choose_k(said.whole("k")),
            "undo": lambda said: studio.undo(said.whole("of") if "of" in said else None),
            "redo": lambda said: studio.redo(said.whole("of") if "of" in said else None),
            "click": lambda said: studio.click(
                said.whole("image"),
                said.places(),
                said.number("level"),
                said.text_or_none("name"),
                said.text("stroke") if "stroke" in said else "",
            ),
            "audit/start": self._audit_start,
            "audit/answer": self._audit_answer,
            "hand-over": lambda said: {"job": studio.hand_over(said.texts("formats"), said.flag("model"))},
        }

    async def file(self, request: Request) -> Response:
        """A finished file, by its name among those of the last job."""
        name = request.path_params["name"]
        job = await run_in_threadpool(self._studio.job)
        if job is None or name not in {file.name for file in job.files}:
            raise HTTPException(404, "there is no such file; the page lists those that are ready")
        path = await run_in_threadpool(self._studio.file, name)
        if not path.is_file():
            raise HTTPException(404, "this file was removed, or another studio of the run wrote others; write it again")
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    def _audit_start(self, said: Fields) -> Any:
        self._studio.audit_start(said.whole("count", 10_000), said.whole("seed", 2**53))
        return self._studio.audit()

    def _audit_answer(self, said: Fields) -> Any:
        self._studio.audit_answer(
            said.whole("n", 10_000), said.text("verdict"), said.whole("round") if "round" in said else None
        )
        return self._studio.audit()


def _elsewhere(request: Request, studio: StudioLike) -> Response | None:
    """What is answered to a page that was opened when the studio had other images or clusters."""
    opened = request.headers.get("x-selfseg-session")
    if opened is None or opened == studio.session:
        return None
    sentence = "the studio was started again with other images or clusters; load the page again"
    return JSONResponse({"error": sentence, "session": studio.session}, 409)


def _get(path: str, answer: Callable[[Fields], Any], studio: StudioLike) -> Route:
    async def endpoint(request: Request) -> Response:
        if (refused := _elsewhere(request, studio)) is not None:
            return refused
        asked = Fields({**request.query_params, **request.path_params})
        packed = "gzip" in request.headers.get("accept-encoding", "")
        return await run_in_threadpool(lambda: _response(answer(asked), packed))

    return Route(path, endpoint, methods=["GET"])


def _post(path: str, answer: Callable[[Fields], Any], studio: StudioLike) -> Route:
    def answered(said: Fields) -> Response:
        result = answer(said)
        return _response(studio.state() if result is None else result)

    async def endpoint(request: Request) -> Response:
        if (refused := _elsewhere(request, studio)) is not None:
            return refused
        try:
            said = Fields(json.loads(await request.body()))
        except ClientDisconnect:  # nobody is there to be answered, and nothing was decided
            return Response(status_code=400)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the request is not JSON: {error}") from error
        return await run_in_threadpool(answered, said)

    return Route(path, endpoint, methods=["POST"])


def _response(value: Any, packed: bool = False) -> Response:
    if not isinstance(value, Response):
        return JSONResponse(to_json(value))
    if packed and value.media_type == _BINARY and len(value.body) > 4096:
        # Region maps shrink to a tenth in a few milliseconds; the page may be at the other end of a slow tunnel.
        body = zlib.compress(value.body, 1, 16 + zlib.MAX_WBITS)
        return Response(body, media_type=_BINARY, headers={"content-encoding": "gzip"})
    return value


_BINARY = "application/octet-stream"


def _binary(body: bytes) -> Response:
    return Response(body, media_type=_BINARY)


def _jpeg(body: bytes) -> Response:
    return Response(body, media_type="image/jpeg")


def _size(asked: Fields, default: int) -> int:
    return max(16, asked.whole_or("size", default, _LARGEST_PICTURE))


def _constant(body: bytes, kind: str) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        return Response(body, media_type=kind)

    return endpoint


async def _refused(_: Request, error: Exception) -> Response:
    """What can't be: the person reads the sentence."""
    return JSONResponse({"error": str(error)}, 400)


async def _another_now(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    """A mistake of ours: told in the terminal in full, and on the page in a line."""
    LOGGER.error("%s %s", request.method, request.url.path, exc_info=error)
    sentence = (
        f"something went wrong in the studio ({type(error).__name__}); the terminal says more. Your decisions are kept"
    )
    return JSONResponse({"error": sentence}, 500)


_HANDLERS: Mapping[Any, Any] = {
    AnotherNow: _another_now,
    SelfsegError: _refused,
    HTTPException: _http_error,
    Exception: _unforeseen,
}
