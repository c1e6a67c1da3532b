"""A small HTTP proxy on loopback whose answers fail as those of real servers do, by a schedule that repeats.

    with FaultyProxy("http://127.0.0.1:5000", faults=["", "500", "", "cut", "slow"]) as proxy:
        ...  # ask proxy.url

"" passes a request on; "500" and "503" answer so; "cut" closes the connection within the answer's body (of a request
that writes: after the server has done it); "drop" closes it without an answer; "slow" waits for `delay` seconds first.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_OWN = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


class FaultyProxy:
    """See the top of this module.

    Args:
        target: URL of the server behind it.
        faults: of the requests, one after the other, again and again.
        delay: s, of "slow".

    Attributes:
        url: where it listens.
        done: how often each fault was met; "" counts what was passed on.
    """

    def __init__(self, target: str, faults: Iterable[str] = ("",), delay: float = 0.3) -> None:
        self.done: Counter[str] = Counter()
        self.requests: list[str] = []
        schedule, lock, host = itertools.cycle(faults), threading.Lock(), urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    fault = next(schedule)
                    proxy.done[fault] += 1
                    proxy.requests.append(f"{self.command} {self.path}")
                if fault == "slow":
                    time.sleep(delay)
                if fault == "drop":
                    return self._close()
                if fault in ("500", "503"):
                    return self._send(int(fault), [], b"<Error><Code>InternalError</Code></Error>")
                server = http.client.HTTPConnection(host, timeout=60)
                server.request(self.command, self.path, body, dict(self.headers.items()))
                answer = server.getresponse()
                content = answer.read()
                server.close()
                headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OWN]
                self._send(answer.status, headers, content, cut=fault == "cut")

            def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
                self.send_response(status)
                for key, value in headers:
                    if key.lower() != "content-length" or self.command == "HEAD":
                        self.send_header(key, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self._close()

            def _close(self) -> None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
