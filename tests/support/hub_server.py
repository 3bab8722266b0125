"""A small Hugging Face hub on 127.0.0.1, for tests: it counts what it is asked.

It speaks what huggingface_hub calls: the information about a repository, its tree, and
its files with ETag, X-Repo-Commit and ranges. What goes wrong is set by a test.
"""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path


@dataclasses.dataclass
class Hub:
    """What the hub has, how it fails, and what it was asked.

    Attributes:
      repos: {"models/owner/name": {revision: {file: content}}}; each commit is the hash
        of its files.
      status: of every answer to a path that contains the key, instead of a good one.
      code: X-Error-Code of those.
      cut: files that end after so many bytes, each time one is sent.
      hangs: parts of paths that are answered after many seconds.
      requests: "METHOD path" of all.
    """

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = dataclasses.field(
        default_factory=dict
    )
    status: dict[str, int] = dataclasses.field(default_factory=dict)
    code: str = ""
    cut: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    hangs: tuple[str, ...] = ()
    requests: list[str] = dataclasses.field(default_factory=list)
    ranges: list[str] = dataclasses.field(default_factory=list)

    def put(
        self, repo: str, files: Mapping[str, bytes | str], revision: str = "main"
    ) -> str:
        """Uploads the files of a revision, and returns its commit."""
        content = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
        commit = commit_of(content)
        self.repos.setdefault(repo, {})[revision] = content
        self.repos[repo][commit] = content
        return commit

    def put_folder(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Uploads a folder."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return self.put(repo, files, revision)

    def fetched(self) -> list[str]:
        """Returns the names of the files whose content was asked for, in order."""
        asked = (re.fullmatch(r"GET .*/resolve/[^/]+/(.*)", x) for x in self.requests)
        return [match[1] for match in asked if match is not None]

    def asked(self) -> list[str]:
        """Returns the requests about repositories and their files."""
        return [x for x in self.requests if "/resolve/" in x or "s/owner/" in x]

    def forget(self) -> None:
        """Forgets what was asked so far."""
        self.requests.clear()
        self.ranges.clear()


def commit_of(files: Mapping[str, bytes]) -> str:
    """Returns a name of 40 digits for the content of a commit."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name] + b"\0")
    return digest.hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Runs a hub in a thread."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if any(part in path for part in self.hub.hangs):
            time.sleep(3)
            self.close_connection = True
            return
        for part, status in self.hub.status.items():
            if part in path:
                self._send(status, b'{"error": "no"}', {"X-Error-Code": self.hub.code})
                return
        api = re.fullmatch(
            r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/(.+?))?/?", path
        )
        file = re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path)
        if api is not None:
            self._about(f"{api[1]}/{api[2]}", api[4] or "main", api[3] == "tree")
        elif file is not None:
            kind = "datasets" if file[1] else "models"
            self._file(f"{kind}/{file[2]}", file[3], file[4])
        else:
            self._send(404, b"{}", {})

    def _about(self, repo: str, revision: str, tree: bool) -> None:
        files = self._files(repo, revision)
        if files is None:
            return
        if tree:
            listed = [
                {"type": "file", "path": name, "size": len(x), "oid": _etag(x)}
                for name, x in files.items()
            ]
            self._send(200, json.dumps(listed).encode(), {})
            return
        about = {
            "id": repo.partition("/")[2],
            "sha": commit_of(files),
            "siblings": [{"rfilename": name} for name in files],
        }
        self._send(200, json.dumps(about).encode(), {})

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """Returns the files of a revision, or answers that there is none."""
        if repo not in self.hub.repos:
            code = {"X-Error-Code": "RepoNotFound"}
            self._send(401, b'{"error": "Repository not found"}', code)
            return None
        if revision not in self.hub.repos[repo]:
            code = {"X-Error-Code": "RevisionNotFound"}
            self._send(404, b'{"error": "Revision not found"}', code)
            return None
        return self.hub.repos[repo][revision]

    def _file(self, repo: str, revision: str, name: str) -> None:
        files = self._files(repo, revision)
        if files is None:
            return
        if name not in files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        content = files[name]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit_of(files)}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or self.command == "HEAD":
            self._send(200, content, headers, self._cut(name))
            return
        self.hub.ranges.append(f"{name} {asked[1]}")
        begin = int(asked[1])
        headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._send(206, content[begin:], headers, self._cut(name))

    def _cut(self, name: str) -> int | None:
        cuts = self.hub.cut.get(name, [])
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def _send(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str],
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
