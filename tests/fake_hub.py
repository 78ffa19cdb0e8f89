"""A Hugging Face hub of this machine, in memory: as much of it as pushing and pulling a model asks for.

As a script it prints the lines of shell that make programs use it, and serves until its standard input ends::

    python tests/fake_hub.py

In tests ``with fake_hub.serving() as hub`` gives it, and ``hub.environment(home)`` what a process needs to use it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN, USER = "hf_of_this_machine", "user"


@dataclass
class Repository:
    """A repository: its files, and who may see it."""

    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)  # names of files that were uploaded by LFS
    commits: int = 1

    @property
    def head(self) -> str:
        """The hash of its last commit."""
        return hashlib.sha1(f"{self.commits}".encode()).hexdigest()

    def entries(self) -> list[dict[str, Any]]:
        """Its files as the hub lists them."""
        found = []
        for path, content in sorted(self.files.items()):
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(content), "path": path}
            if path in self.large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
            found.append(entry)
        return found


@dataclass
class Hub:
    """What the hub holds, and where it answers."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)  # by their SHA-256
    asked: list[str] = field(default_factory=list)  # methods and paths, in order
    answers: int = 0  # a status that every request gets; 0 lets them be worked on

    def environment(self, home: Path | str, token: str = TOKEN) -> dict[str, str]:
        """Variables by which the hub's client asks this one, and keeps its cache in a folder; without a token if it is empty."""
        given = {"HF_TOKEN": token} if token else {}
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # which has a protocol of its own
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            **given,
        }


class Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = path.split("/")
        if self.hub.answers:
            self._say({"error": "as told"}, self.hub.answers)
        elif words[0] == "lfs":
            self.hub.uploads[words[1]] = body
            self._say({})
        elif path == "api/whoami-v2":
            self._say({"name": USER, "type": "user", "orgs": []}) if self._known() else self._say({}, 401)
        elif path == "api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif words[:2] == ["api", "models"] and len(words) >= 4:
            self._of_model("/".join(words[2:4]), words[4:], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(path.partition(".git/")[0], json.loads(body))
        elif len(words) > 4 and words[2] == "resolve":
            self._file("/".join(words[:2]), "/".join(words[4:]))
        else:
            self._say({"error": "no such thing"}, 404)

    def _known(self) -> bool:
        return self.headers.get("Authorization", "") == f"Bearer {TOKEN}"

    def _refused(self, name: str, *, write: bool = False) -> bool:
        """Refuses who may not see a repository, or write to it."""
        there, given = self.hub.repositories.get(name), self.headers.get("Authorization")
        if given and not self._known():
            self._say(
                {"error": "Invalid credentials"},
                401,
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        elif there is None or (there.private and not self._known()):
            self._say(
                {"error": "Repository not found"}, 404 if given else 401, {"X-Error-Code": "RepoNotFound"}
            )
        elif write and (not self._known() or not name.startswith(f"{USER}/")):
            self._say({"error": "Forbidden"}, 403)
        else:
            return False
        return True

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or USER
        name = f"{owner}/{asked['name']}"
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        if not self._known():
            self._say(
                {"error": "Invalid credentials"},
                401,
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        elif owner != USER:
            self._say({"error": "Forbidden"}, 403)
        else:
            new = name not in self.hub.repositories
            if new:
                self.hub.repositories[name] = Repository(
                    private, files={".gitattributes": b"*.safetensors filter=lfs\n"}
                )
            says = {"url": f"{self.hub.address}/{name}", "name": name, "id": name}
            self._say(
                says if new else {**says, "error": "You already created this model repo"}, 200 if new else 409
            )

    def _of_model(self, name: str, words: list[str], body: bytes) -> None:
        what = words[0] if words else "revision"
        if self._refused(name, write=what in ("preupload", "commit")):
            return
        there = self.hub.repositories[name]
        if what == "revision":
            siblings = [{"rfilename": path} for path in sorted(there.files)]
            about = {"_id": "0", "id": name, "modelId": name, "sha": there.head, "private": there.private}
            self._say({**about, "gated": there.gated and "manual", "siblings": siblings, "tags": []})
        elif what == "tree":
            self._say(there.entries())
        elif what == "preupload":
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            self._say({"files": modes})
        elif what == "commit":
            self._commit(name, there, [json.loads(line) for line in body.splitlines()])
        else:
            self._say({"error": "no such thing"}, 404)

    def _commit(self, name: str, there: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                there.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                there.files[value["path"]] = self.hub.uploads[value["oid"]]
                there.large.add(value["path"])
        there.commits += 1
        self._say(
            {
                "commitUrl": f"{self.hub.address}/{name}/commit/{there.head}",
                "commitOid": there.head,
                "success": True,
            }
        )

    def _batch(self, name: str, asked: dict[str, Any]) -> None:
        if self._refused(name, write=True):
            return
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        self._say({"transfer": "basic", "objects": objects})

    def _validate(self, content: str) -> None:
        """Refuses a card without a head, as the hub does; and whatever its libraries do not know."""
        import yaml

        try:
            head = yaml.safe_load(content.split("---")[1])
            wrong = (
                "" if isinstance(head, dict) and isinstance(head.get("tags"), list) else '"tags" must be a list'
            )
        except (IndexError, yaml.YAMLError) as error:
            wrong = f"no head: {type(error).__name__}"
        self._say({"errors": [{"message": wrong}] if wrong else [], "warnings": []}, 400 if wrong else 200)

    def _file(self, name: str, path: str) -> None:
        if self._refused(name):
            return
        there = self.hub.repositories[name]
        if there.gated:
            self._say({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
            return
        entry = next((each for each in there.entries() if each["path"] == path), None)
        if entry is None:
            self._say(
                {"error": "Entry not found"},
                404,
                {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": there.head},
            )
            return
        content, digest = there.files[path], entry.get("lfs", entry)["oid"]
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": there.head}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._send(content, 200, {"Content-Type": "application/octet-stream", **headers})

    def _say(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving() -> Iterator[Hub]:
    """Gives a hub that runs meanwhile."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads, server.block_on_close = True, False
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with serving() as here:
        home = sys.argv[1] if len(sys.argv) > 1 else "hub"
        for name, value in here.environment(Path(home).absolute()).items():
            sys.stdout.write(f"export {name}={value}\n")
        sys.stdout.flush()
        sys.stdin.read()
