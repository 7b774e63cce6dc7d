"""A small server that speaks the Hub's protocol on this machine: repositories, commits, large files, downloads."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

USER = "tester"
TOKENS = ("hf_token", "hf_read")  # the second may not write
LARGE = (".safetensors", ".bin", ".pt", ".parquet")  # what is uploaded as a large file, beside the commit
REPOS = r"(models|datasets|spaces)/([^/]+/[^/]+)"


class LoopbackHub:
    """The server; `url` is what HF_ENDPOINT names. A context manager.

    `repos` holds, by "models/user/name", the commits as (sha, path -> sha256 of the content), and `blobs` the contents.
    `drops`, if it is set, gets each request's method and path and says whether the connection breaks instead of an
    answer. Private repositories are there for those with a token only, and only "hf_token" may write.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.drops: Callable[[str, str], bool] | None = None
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo: str) -> dict[str, bytes]:
        """Return the newest content of a repository, "datasets/user/name" say."""
        return {path: self.blobs[digest] for path, digest in self.repos[repo]["commits"][-1][1].items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlparse(self.path)
        path, body = unquote(url.path), self._body()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        writes = re.search(r"/(create|preupload|commit|tag|auth-check/write)(/|$)|/lfs/", path) is not None
        if self.hub.drops is not None and self.hub.drops(self.command, path):
            self.close_connection = True
        elif token and token not in TOKENS and "/lfs/" not in path:
            self._refuse(401, "Invalid credentials in Authorization header")
        elif writes and token != TOKENS[0] and not re.fullmatch(r"/lfs/\w+", path):
            self._refuse(403 if token else 401, "You need a token with write rights")
        elif not token and self._is_private(path):
            self._refuse(401, "Repository not found", X_Error_Code="RepoNotFound")
        elif path == "/api/whoami-v2":
            self._reply({"type": "user", "name": USER, "orgs": [], "auth": {}})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._reply({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/lfs/(\w+)", path):
            fits = hashlib.sha256(body).hexdigest() == match[1]
            if fits:
                self.hub.blobs[match[1]] = body
            self._reply({}, 200 if fits else 400)
        elif match := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._large_files(json.loads(body))
        elif match := re.fullmatch(rf"/api/{REPOS}(?:/(\w[\w-]*)(?:/([^/]+)(?:/(.*))?)?)?", path):
            self._api(match, body)
        elif match := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._download(match[1] or "models", match[2], match[3], match[4])
        else:
            self._missing("EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, body: Any, code: int = 200, **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: int, why: str, **headers: str) -> None:
        self._reply({"error": why}, code, X_Error_Message=why, **headers)

    def _is_private(self, path: str) -> bool:
        names = [name.partition("/")[2] for name, repo in self.hub.repos.items() if repo["private"]]
        return any(re.search(rf"/{re.escape(name)}(/|\.git/|$)", path) for name in names)

    def _missing(self, what: str) -> None:
        self._reply({"error": what}, 404, X_Error_Code=what, X_Error_Message=what)

    def _create(self, asked: dict[str, Any]) -> None:
        kind, name = asked.get("type", "model") + "s", f"{asked.get('organization') or USER}/{asked['name']}"
        old = self.hub.repos.get(f"{kind}/{name}")
        if old is None:
            sha = hashlib.sha1(name.encode()).hexdigest()
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.repos[f"{kind}/{name}"] = {
                "commits": [(sha, {})],
                "private": bool(private),
                "tags": {},
                "titles": [],
            }
        address = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        self._reply({"url": address, "name": name, "error": "exists"}, 409 if old else 200)

    def _large_files(self, asked: dict[str, Any]) -> None:
        known = self.hub.blobs
        objects = [
            item
            if item["oid"] in known
            else {**item, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}}
            for item in asked["objects"]
        ]
        self._reply({"transfer": "basic", "objects": objects})

    def _api(self, match: re.Match[str], body: bytes) -> None:
        kind, name, verb, revision, _ = match.groups()
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            return self._missing("RepoNotFound")
        if verb == "auth-check":
            return self._reply({})
        if verb == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return self._reply({"files": files})
        if verb == "commit":
            return self._commit(repo, name, body)
        if verb == "commits":
            return self._reply([self._told(sha, title) for sha, title in reversed(repo["titles"])])
        sha, tree = self._tree(repo, revision)
        if sha is None:
            return self._missing("RevisionNotFound")
        if verb == "tag":
            repo["tags"][json.loads(body)["tag"]] = sha
            return self._reply({})
        if verb in ("tree", "paths-info"):
            asked = parse_qs(body.decode()).get("paths", tree) if verb == "paths-info" else tree
            return self._reply([self._row(path, tree[path]) for path in sorted(tree) if path in asked])
        if verb == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": sha}
            return self._reply({"branches": [branch], "converts": [], "tags": []})
        facts = {"_id": "0", "id": name, "modelId": name, "sha": sha, "private": repo["private"], "disabled": False}
        files = [{"rfilename": path} for path in tree]
        return self._reply({**facts, "gated": False, "tags": [], "downloads": 0, "likes": 0, "siblings": files})

    def _commit(self, repo: dict[str, Any], name: str, body: bytes) -> None:
        files, title = dict(repo["commits"][-1][1]), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                content = base64.b64decode(value["content"])
                digest = hashlib.sha256(content).hexdigest()
                self.hub.blobs[digest] = content
                files[value["path"]] = digest
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return self._refuse(400, f"{value['path']} was not uploaded")
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = hashlib.sha1(body + str(len(repo["commits"])).encode()).hexdigest()
        repo["commits"].append((sha, files))
        repo["titles"].append((sha, title))
        address = f"{self.hub.url}/{name}/commit/{sha}"
        self._reply({"success": True, "commitOid": sha, "commitUrl": address, "hookOutput": ""})

    def _row(self, path: str, digest: str) -> dict[str, Any]:
        size = len(self.hub.blobs[digest])
        large = {"lfs": {"oid": digest, "size": size, "pointerSize": 130}} if path.endswith(LARGE) else {}
        blob = hashlib.sha1(b"blob %d\0" % size + self.hub.blobs[digest]).hexdigest()
        return {"type": "file", "path": path, "size": size, "oid": blob, **large}

    @staticmethod
    def _told(sha: str, title: str) -> dict[str, Any]:
        return {"id": sha, "title": title, "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}

    @staticmethod
    def _tree(repo: dict[str, Any], revision: str | None) -> tuple[str | None, dict[str, str]]:
        for sha, files in reversed(repo["commits"]):
            if repo["tags"].get(revision, revision) in ("main", None, sha):
                return sha, files
        return None, {}

    def _download(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            return self._missing("RepoNotFound")
        sha, tree = self._tree(repo, revision)
        if sha is None:
            return self._missing("RevisionNotFound")
        if path not in tree:
            return self._reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = self.hub.blobs[tree[path]]
        headers = {"ETag": f'"{tree[path]}"', "X_Repo_Commit": sha, "Accept_Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self._reply(content, **headers)
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        part = content[first : last + 1]
        headers["Content_Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self._reply(part, 206, **headers)
