"""Who may ask the studio, and what every answer carries.

The server listens on this computer only, but so do other people's programs, and every page that the browser has open
can send requests here. So:

- the address that the terminal shows holds a token; opening it gives the browser a cookie (HttpOnly, SameSite=Strict),
  and without the cookie nothing is answered;
- the Host must be this computer's, so that another site's name can't be pointed here (DNS rebinding);
- what other pages send is refused by Origin and Sec-Fetch-Site; what changes something must name the Origin, and be
  JSON;
- bodies have an end, in bytes and in time;
- every answer, errors too, forbids scripts, styles and pictures from elsewhere, frames around it, and keeping it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 1 << 18
"""Bytes; a stroke of a thousand places has 40,000."""

PATIENCE = 20.0
"""Seconds that the next part of a body is waited for; a request that never ends must not be kept for ever."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_NO_TOKEN = "This is not the whole address. Open the one that the terminal shows, with its token."
_ANOTHER_PAGE = "the request came from another page; the studio answers only its own"
_TOO_LARGE = f"the request is larger than {LARGEST_BODY} bytes"
_TOO_SLOW = "The request did not come to its end in time. Nothing was decided."

# A page that goes on by itself, not a redirect: a Strict cookie is not sent along a way that began on another site,
# as a link in a chat or in a terminal in the browser does.
_WELCOME = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">
<title>selfseg studio</title></head><body><p><a href="/">Open the studio</a></p></body></html>"""
_REFUSED = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>selfseg studio</title></head>
<body><h1>The studio does not know this browser</h1><p>{}</p></body></html>"""


class Guard:
    """Lets only the person's own browser through to an application.

    Args:
        app: what answers.
        token: the secret in the address.

    Attributes:
        cookie: name of the cookie; it depends on the token, as cookies know no ports and two studios may be open.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()
        self._session = _derived(token, "session")
        self.cookie = f"selfseg-{_derived(token, 'name')[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return  # no lifespan, no web sockets

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, _Body(receive).receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """What is answered instead of the application; None if it may answer."""
        method, hosts = scope["method"], headers.getlist("host")
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            return _say(403, "the studio is only for this computer: its address begins with http://127.0.0.1", scope)
        if method not in ("GET", "HEAD", "POST"):
            return _say(405, f"the studio does not answer {method} requests", scope)
        origins = headers.getlist("origin")
        if any(origin.lower() != f"http://{hosts[0]}".lower() for origin in origins):
            return _say(403, _ANOTHER_PAGE, scope)
        opening = scope["path"] == "/" and method == "GET"
        token = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token") if opening else None
        if token is not None:
            return self._opened(token[0])
        if not self._has_cookie(headers):
            return _say(403, _NO_TOKEN, scope)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _say(403, _ANOTHER_PAGE, scope)
        if method != "POST":
            return None
        if not origins:
            return _say(403, "the request does not say which page it is from", scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _say(415, "the studio takes only JSON", scope)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return _say(413, _TOO_LARGE, scope)
        return None

    def _opened(self, token: str) -> Response:
        """The answer to the address with the token."""
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token):
            return HTMLResponse(_REFUSED.format(html.escape(_NO_TOKEN)), 403)
        answer = HTMLResponse(_WELCOME)
        answer.set_cookie(self.cookie, self._session, httponly=True, samesite="strict", path="/")
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        # Taken apart here: http.cookies gives up at the first cookie that is not well formed, and every program on
        # 127.0.0.1, whatever its port, may have set one.
        pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
        given = [value.strip() for name, _, value in pairs if name.strip() == self.cookie]
        return any(hmac.compare_digest(value.encode(), self._session.encode()) for value in given)


class _Body:
    """A request's body that ends in an error where it is too large or too slow, whatever its length was said to be."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0
        self._whole = False

    async def receive(self) -> Message:
        message = await (self._receive() if self._whole else self._soon())
        self._whole = not message.get("more_body", False)
        self._seen += len(message.get("body", b""))
        if self._seen > LARGEST_BODY:
            raise HTTPException(413, _TOO_LARGE)
        return message

    async def _soon(self) -> Message:
        try:
            return await asyncio.wait_for(self._receive(), PATIENCE)
        except TimeoutError as error:
            raise HTTPException(408, _TOO_SLOW) from error
        except asyncio.CancelledError as error:  # the server ends, and waits for no request that is not whole
            raise HTTPException(503, "The studio is being closed.") from error


def _derived(token: str, purpose: str) -> str:
    return hmac.new(token.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def _say(status: int, sentence: str, scope: Scope) -> Response:
    """A refusal in the form that the asker reads: JSON for the page's requests, a small page for a person."""
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": sentence}, status)
    if scope["path"] == "/" and status == 403:
        return HTMLResponse(_REFUSED.format(html.escape(sentence)), status)
    return PlainTextResponse(sentence, status)
