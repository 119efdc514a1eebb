"""Answers of the hub, made up or given by a server on this machine."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlparse

import httpx2
from huggingface_hub.errors import HfHubHTTPError

GATED: Final = "gated/model"
REFS: Final = "api/models/some/model/refs"


def answer(status: int, **headers: str) -> httpx2.Response:
    """Make an answer of the hub."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request("GET", "https://huggingface.co/some/model")
    return httpx2.Response(status, headers=named, request=request)


def refused(**headers: str) -> HfHubHTTPError:
    """Make the error of an HTTP 429."""
    return HfHubHTTPError("too many", response=answer(429, **headers))


class Asked(NamedTuple):
    """One request, and how it was answered."""

    path: str
    status: int
    when: float
    token: str


class _Hub(BaseHTTPRequestHandler):
    """One repository with several revisions, a gated one, and refusals on demand."""

    protocol_version = "HTTP/1.1"
    revisions: Mapping[str, Path]
    refusals: list[Callable[[], str]]
    asked: list[Asked]

    def do_HEAD(self) -> None:
        self.respond(b"")

    def do_GET(self) -> None:
        self.respond(None)

    def respond(self, body: bytes | None) -> None:
        """Answer, without a body where `body` says so."""
        path = unquote(urlparse(self.path).path).strip("/")
        status, headers, content = self.found(path)
        token = self.headers.get("Authorization", "")
        self.asked.append(Asked(path, status, monotonic(), token))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if body is None else body)

    def found(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a path."""
        if path.startswith(GATED):
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if path == REFS and self.refusals:
            return 429, {"Retry-After": self.refusals.pop(0)()}, b""
        if path == REFS:
            refs = [self.ref(name) for name in self.revisions]
            listed = {"branches": refs, "tags": [], "converts": []}
            return 200, {}, json.dumps(listed).encode()
        if path.startswith("some/model/resolve/"):
            return self.file(*path.split("/", 4)[3:])
        is_there = path.startswith("api/models/some/model/")
        return (
            404,
            {"X-Error-Code": "EntryNotFound" if is_there else "RepoNotFound"},
            b"",
        )

    def file(self, revision: str, name: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of a file at a branch or a commit."""
        commits = {self.ref(name)["targetCommit"]: name for name in self.revisions}
        folder = self.revisions.get(commits.get(revision, revision))
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if not (folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = (folder / name).read_bytes()
        commit = self.ref(folder.name)["targetCommit"]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return 200, {"X-Repo-Commit": commit, "ETag": etag}, content

    def ref(self, name: str) -> dict[str, str]:
        """Say what a branch points to."""
        commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        return {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}

    def log_message(self, *args: Any) -> None:
        """Be silent."""


@contextmanager
def served(
    revisions: Mapping[str, Path], refusals: list[Callable[[], str]]
) -> Iterator[tuple[str, list[Asked]]]:
    """Serve folders as the revisions of `some/model`, each named after its folder.

    Args:
        revisions: Folder of each revision.
        refusals: Makes the `Retry-After` of each HTTP 429 that the first requests for
            the list of branches get.

    Yields:
        The server's address, and what it was asked.
    """
    asked: list[Asked] = []
    more = {"revisions": revisions, "refusals": refusals, "asked": asked}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), more))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
