"""A Hugging Face hub on this machine: as much of its interface as fetching and sending a model asks for.

It speaks HTTP to the real `huggingface_hub`, and remembers each request and all that was sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_writes"


@dataclass
class Repository:
    """Branches, which are lists of commits, oldest first; each commit holds all files.

    Attributes:
        files: of the main branch's first commit.
        private: whether a token is needed.
        sizes: what the listing says instead of the truth.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    branches: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches = {"main": [self.files]}

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit's number and files, by branch or number."""
        if revision in self.branches:
            return sha_of(self.branches[revision][-1]), self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next(((sha_of(files), files) for files in commits if sha_of(files) == revision), None)


def sha_of(files: dict[str, bytes]) -> str:
    """The number of a commit, or of a file."""
    made = hashlib.sha1()
    for name in sorted(files):
        made.update(name.encode() + b"\0" + files[name])
    return made.hexdigest()


class FakeHub:
    """Repositories by name, and what was asked of them.

    Attributes:
        repositories: by USER/NAME.
        requests: method and path of each.
        broken: a status that every request is answered with, or 0.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.broken = 0

    def put(self, name: str, folder: Path, **settings: Any) -> Repository:
        """A repository with the files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = Repository(files, **settings)
        return self.repositories[name]

    def fetched(self) -> set[str]:
        """The files that were asked for."""
        return {path.split("/", 5)[5] for path in self.requests if path.startswith("GET /") and "/resolve/" in path}

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.requests.append(f"{method} {path}")
        if self.broken:
            return self.broken, {}, b"{}"
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        repository = self.repositories.get(name)
        if repository is None or (repository.private and token != TOKEN):
            return (404 if token == TOKEN else 401), {"X-Error-Code": "RepoNotFound"}, b"{}"
        if method == "POST" and token != TOKEN:
            return 403, {}, b"{}"
        what, revision = [*parts[4:6], "", ""][:2] if parts[0] == "api" else (parts[2], parts[3])
        if what == "branch":
            repository.branches[unquote(revision)] = list(repository.branches["main"])
            return _json({})
        found = repository.at(unquote(revision) or "main")
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if what == "resolve":
            return _file(found, unquote("/".join(parts[4:])))
        if what == "preupload":
            given = json.loads(body)["files"]
            return _json(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in given]}
            )
        if what == "commit":
            return self._commit(name, repository, unquote(revision), body)
        sha, files = found
        listed = [
            {"type": "file", "path": each, "rfilename": each, "size": repository.sizes.get(each, len(files[each])),
             "oid": sha_of({"": files[each]}), "blobId": sha_of({"": files[each]})}
            for each in files
        ]  # fmt: skip
        if what == "tree":
            return _json(listed)
        return _json({"id": name, "modelId": name, "sha": sha, "private": repository.private, "siblings": listed})

    def _create(self, given: dict[str, Any], token: str) -> tuple[int, dict[str, str], bytes]:
        if token != TOKEN:
            return 401, {}, b"{}"
        name = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
        if name in self.repositories:
            return 409, {}, b"{}"
        private = given.get("private") or given.get("visibility") == "private"
        self.repositories[name] = Repository({".gitattributes": b"*.safetensors filter=lfs\n"}, bool(private))
        return _json({"url": f"https://huggingface.co/{name}", "name": name})

    def _commit(self, name: str, repository: Repository, branch: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        files = dict(repository.branches[branch][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        repository.branches[branch].append(files)
        return _json(
            {
                "success": True,
                "commitOid": sha_of(files),
                "commitUrl": f"https://huggingface.co/{name}/commit/{sha_of(files)}",
            }
        )


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _file(found: tuple[str, dict[str, bytes]], name: str) -> tuple[int, dict[str, str], bytes]:
    sha, files = found
    if name not in files:
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}, b""
    return 200, {"ETag": f'"{sha_of({"": files[name]})}"', "X-Repo-Commit": sha}, files[name]


@contextmanager
def running(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that `huggingface_hub` takes for its own, with an empty cache, and with nobody logged in."""
    from huggingface_hub import constants, file_download

    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and content in one packet: two would wait for each other, 40 ms each time

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, headers, content = hub.answer(self.command, urlsplit(self.path).path, body, token)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for module in (constants, file_download):  # older versions have a copy of it
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
