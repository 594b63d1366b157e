# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face Hub on the loopback interface: create, push, list and load model repositories, and check their cards.

Branch `main` and commit hashes only, repositories in memory. Writing needs the token. A request that no route answers
gets status 501, so that a test can see it in `requests`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_loopback"
USER = "someone"
# `pipeline_tag`s of the real Hub that an image model may carry; anything else is refused there.
PIPELINE_TAGS = {"image-classification", "image-feature-extraction", "other"}


class HubError(Exception):
    """An answer that is not a success; `code` is what huggingface_hub reads from X-Error-Code."""

    def __init__(self, status: int, code: str, **headers: str):
        super().__init__(code)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": code, **headers}


def check_card(content: str) -> list[str]:
    """What the real Hub would refuse in the YAML head of a model card: the rules that matter here."""
    parts = re.split(r"^---\s*$", content, maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return ["empty or missing yaml metadata"]
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(head, dict):
        return ["the metadata is not a mapping"]
    return [*_check_fields(head), *_check_results(head)]


def _check_fields(head: dict[str, Any]) -> list[str]:
    errors = [
        f'"{name}" must be a list of strings'
        for name in ("tags", "datasets", "metrics")
        if not all(isinstance(item, str) for item in (head.get(name) or []))
    ]
    if head.get("pipeline_tag", "other") not in PIPELINE_TAGS:
        errors.append(f'"pipeline_tag" {head["pipeline_tag"]} is not a task of the Hub')
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", str(head.get("license", "other"))):
        errors.append(f'"license" {head["license"]} is not a licence identifier')
    return errors


def _check_results(head: dict[str, Any]) -> list[str]:
    errors = []
    for entry in head.get("model-index") or []:
        for result in entry.get("results") or [{}]:
            if not {"task", "dataset", "metrics"} <= set(result):
                errors.append('each result of "model-index" needs task, dataset and metrics')
            elif not {"name", "type"} <= set(result["dataset"]):
                errors.append('a dataset of "model-index" needs name and type')
            elif any(not {"type", "value"} <= set(metric) for metric in result["metrics"]):
                errors.append('a metric of "model-index" needs type and value')
    return errors


class FakeHub:
    """The state of the Hub, and its server while used as a context manager."""

    def __init__(self) -> None:
        self.commits: dict[str, list[str]] = {}  # hashes per repository, the newest last
        self.trees: dict[str, dict[str, bytes]] = {}  # files per commit
        self.objects: dict[str, bytes] = {}  # large files by SHA-256
        self.requests: list[tuple[str, str, int]] = []  # method, path, status

    def __enter__(self) -> "FakeHub":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo: str, folder: str | Path) -> None:
        """Put the files of a folder into a new repository, without HTTP; the name needs no namespace."""
        files = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
        self.commits[repo] = []
        self.commit(repo, {name: path.read_bytes() for name, path in files.items()})

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Make `files` the content of `main`."""
        digest = hashlib.sha1(f"{repo} {len(self.commits[repo])}".encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + content)
        self.trees[digest.hexdigest()] = files
        self.commits[repo].append(digest.hexdigest())
        return digest.hexdigest()

    def resolve(self, repo: str, revision: str | None = None) -> str:
        """The commit that a revision of a repository stands for."""
        if repo not in self.commits:
            raise HubError(404, "RepoNotFound")
        revision = self.commits[repo][-1] if revision in (None, "main") else revision
        if revision not in self.commits[repo]:
            raise HubError(404, "RevisionNotFound")
        return revision

    def files(self, repo: str) -> dict[str, bytes]:
        """The files on `main`."""
        return self.trees[self.resolve(repo)]

    def paths(self, method: str, prefix: str = "/") -> list[str]:
        """Paths that were asked for with a method and began with a prefix, in order."""
        return [path for verb, path, _ in self.requests if verb == method and path.startswith(prefix)]


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _etag(name: str, content: bytes) -> str:
    if _is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Routes by regular expression; each answer is bytes (a file) or something for JSON."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Stay silent: `hub.requests` keeps the log."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self) -> None:
        path, body, headers = unquote(urlsplit(self.path).path), self._body(), {}
        try:
            for methods, pattern, needs_token, route in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods:
                    if needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        raise HubError(401, "Invalid credentials in Authorization header")
                    status, answer, headers = route(self.hub, body, **match.groupdict())
                    break
            else:
                raise HubError(501, f"the fake Hub does not know {self.command} {path}")
        except HubError as error:
            status, answer, headers = error.status, {"error": str(error)}, error.headers
        self.hub.requests.append((self.command, path, status))
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _answer


def _create(hub: FakeHub, body: bytes) -> tuple[int, Any, dict]:
    wish = json.loads(body)
    repo = f"{wish['organization'] or USER}/{wish['name']}"
    is_new = repo not in hub.commits
    if is_new:
        hub.commits[repo] = []
        hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
    return 200 if is_new else 409, {"url": f"{hub.url}/{repo}", "name": repo}, {}


def _info(hub: FakeHub, body: bytes, repo: str, revision: str | None = None) -> tuple[int, Any, dict]:
    sha = hub.resolve(repo, revision)
    siblings = [{"rfilename": name} for name in sorted(hub.trees[sha])]
    return 200, {"id": repo, "sha": sha, "private": False, "gated": False, "tags": [], "siblings": siblings}, {}


def _tree(hub: FakeHub, body: bytes, repo: str, revision: str) -> tuple[int, Any, dict]:
    entries = []
    for name, content in sorted(hub.trees[hub.resolve(repo, revision)].items()):
        entries.append({"type": "file", "path": name, "size": len(content), "oid": _etag(name, content)})
        if _is_large(name):
            entries[-1]["lfs"] = {"oid": _etag(name, content), "size": len(content), "pointerSize": 134}
    return 200, entries, {}


def _file(hub: FakeHub, body: bytes, repo: str, revision: str, name: str) -> tuple[int, Any, dict]:
    sha = hub.resolve(repo, revision)
    if name not in hub.trees[sha]:
        raise HubError(404, "EntryNotFound", **{"X-Repo-Commit": sha})
    content = hub.trees[sha][name]
    headers = {"X-Repo-Commit": sha, "ETag": f'"{_etag(name, content)}"', "Content-Type": "application/octet-stream"}
    if _is_large(name):
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": len(content)}
    return 200, content, headers


def _preupload(hub: FakeHub, body: bytes, repo: str, revision: str) -> tuple[int, Any, dict]:
    present = hub.trees[hub.resolve(repo, revision)]
    files = []
    for file in json.loads(body)["files"]:
        name = file["path"]
        files.append({"path": name, "uploadMode": "lfs" if _is_large(name) else "regular", "shouldIgnore": False})
        if name in present:
            files[-1]["oid"] = _etag(name, present[name])
    return 200, {"files": files}, {}


def _lfs_batch(hub: FakeHub, body: bytes, repo: str) -> tuple[int, Any, dict]:
    hub.resolve(repo)
    objects = [{"oid": wish["oid"], "size": wish["size"]} for wish in json.loads(body)["objects"]]
    for entry in objects:
        if entry["oid"] not in hub.objects:
            entry["actions"] = {"upload": {"href": f"{hub.url}/lfs/{entry['oid']}"}}
    return 200, {"transfer": "basic", "objects": objects}, {}


def _lfs_put(hub: FakeHub, body: bytes, oid: str) -> tuple[int, Any, dict]:
    if hashlib.sha256(body).hexdigest() != oid:
        raise HubError(400, "the content does not match its hash")
    hub.objects[oid] = body
    return 200, {}, {}


def _commit(hub: FakeHub, body: bytes, repo: str, revision: str) -> tuple[int, Any, dict]:
    files = dict(hub.trees[hub.resolve(repo, revision)])
    operations: Iterable[dict] = map(json.loads, body.splitlines())
    for operation in operations:
        key, value = operation["key"], operation["value"]
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
        elif key != "header":
            raise HubError(501, f"the fake Hub does not know the operation {key}")
    sha = hub.commit(repo, files)
    return 200, {"commitUrl": f"{hub.url}/{repo}/commit/{sha}", "commitOid": sha}, {}


def _validate_yaml(hub: FakeHub, body: bytes) -> tuple[int, Any, dict]:
    errors = check_card(json.loads(body)["content"])
    return 400 if errors else 200, {"errors": [{"message": error} for error in errors], "warnings": []}, {}


def _whoami(hub: FakeHub, body: bytes) -> tuple[int, Any, dict]:
    return 200, {"type": "user", "name": USER, "orgs": []}, {}


_REPO = r"(?P<repo>(?:[^/]+/)?[^/]+)"
_MODEL = rf"/api/models/{_REPO}"
# Methods, pattern of the path, whether it needs the token, what answers.
_ROUTES = (
    (("GET",), r"/api/whoami-v2", True, _whoami),
    (("POST",), r"/api/repos/create", True, _create),
    (("POST",), r"/api/validate-yaml", False, _validate_yaml),
    (("GET",), rf"{_MODEL}/tree/(?P<revision>[^/]+)", False, _tree),
    (("GET",), rf"{_MODEL}/revision/(?P<revision>[^/]+)", False, _info),
    (("GET",), _MODEL, False, _info),
    (("POST",), rf"{_MODEL}/preupload/(?P<revision>[^/]+)", True, _preupload),
    (("POST",), rf"{_MODEL}/commit/(?P<revision>[^/]+)", True, _commit),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", True, _lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", False, _lfs_put),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", False, _file),
)
