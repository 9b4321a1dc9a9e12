"""A small Hub on loopback: the HTTP API that huggingface_hub 2.4 speaks (without Xet), in memory, with faults on request.

    with HubServer() as hub:
        hub.endpoint                                   # HF_ENDPOINT; large files come from another host name, like a CDN
        hub.fault("POST", "/commit/", status=503)      # the next such request fails so
        hub.commits("alice/tiny")                      # [{"id", "message", "files": {name: bytes}}, ...], the oldest first

Users are the keys of TOKENS: alice and bob may write to what is theirs, `reader` is alice with a token that may only read.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {name: "hf_" + name[0] * 34 for name in ("alice", "bob", "reader")}
LARGE = (".safetensors", ".parquet", ".gguf", ".onnx")  # kept as large files (LFS), and all above SMALL bytes
SMALL = 1_000_000


@dataclass
class Fault:
    """What the next `times` requests whose method and path fit get: a status, or harm done to the body.

    `harm`: cut (the connection ends in the middle of a body), shorten (half of it, as if it were all), flip (a bit), html.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict = field(default_factory=dict)
    harm: str | None = None


@dataclass
class Repository:
    owner: str
    private: bool
    commits: list[dict] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> dict | None:
        commit_id = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit["id"] == commit_id), None)

    def add(self, branch: str, message: str, files: dict[str, bytes]) -> str:
        parent = self.branches.get(branch, "")
        names = sorted((name, git_hash(data)) for name, data in files.items())
        name = hashlib.sha1(repr((parent, message, names, len(self.commits))).encode()).hexdigest()
        self.commits.append({"id": name, "message": message, "files": dict(files)})
        self.branches[branch] = name
        return name


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str, size: int) -> bool:
    return size > 0 and (name.endswith(LARGE) or size > SMALL)


class HubServer:
    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}  # ("models", "alice/tiny")
        self.objects: dict[str, bytes] = {}  # large files by their SHA-256
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []  # method, path
        self.lies: list[dict] = []  # entries added to every file list
        self.lock = threading.RLock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.endpoint, self.cdn = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fault(self, method: str, path: str, **what) -> None:
        with self.lock:
            self.faults.append(Fault(method, path, **what))

    def calm(self) -> None:
        """No fault is left, no lie, no memory of requests."""
        with self.lock:
            self.faults.clear()
            self.lies.clear()
            self.requests.clear()

    def seen(self, method: str, path: str) -> int:
        """How many such requests came."""
        return sum(m == method and re.search(path, p) is not None for m, p in self.requests)

    def commits(self, name: str, kind: str = "models") -> list[dict]:
        return self.repositories[kind, name].commits

    def files(self, name: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        return self.repositories[kind, name].at(revision)["files"]

    def put(self, name: str, files: dict[str, bytes]) -> str:
        """A repository made without a request; returns its commit."""
        repository = Repository(name.split("/")[0], private=False)
        self.repositories["models", name] = repository
        for file, data in files.items():
            if is_large(file, len(data)):
                self.objects[hashlib.sha256(data).hexdigest()] = data
        return repository.add("main", "put", files)


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self):
        self.route(self.command)

    do_HEAD = do_POST = do_PUT = do_GET

    # The request

    def route(self, method: str) -> None:
        parts = urlsplit(self.path)
        path, query = parts.path, parse_qs(parts.query)
        self.harm = None
        with self.hub.lock:
            self.hub.requests.append((method, path))
            fault = next((f for f in self.hub.faults if f.method == method and re.search(f.path, path)), None)
            if fault:
                fault.times -= 1
                if fault.times == 0:
                    self.hub.faults.remove(fault)
        if fault and fault.harm == "cut" and method in ("PUT", "POST", "HEAD"):
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.connection.shutdown(2)
            self.close_connection = True
            return
        body = self.body()
        if fault and fault.status:
            self.answer(fault.status, {"error": ""}, **fault.headers)
            return
        self.harm = fault.harm if fault else None
        with self.hub.lock:
            for verb, pattern, handler in ROUTES:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    handler(self, *(group and unquote(group) for group in match.groups()), body=body, query=query)
                    return
        self.answer(404, {"error": f"no such address: {method} {path}"})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def user(self) -> str | None:
        """Who asks; "?" with a token nobody has."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return next((name for name, known in TOKENS.items() if known == token), "?") if token else None

    # The answer

    def answer(self, status: int, value=None, **headers) -> None:
        data = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        size = len(data)
        if self.harm == "html":
            data = b"<html>busy</html>"
        elif self.harm == "flip":
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif self.harm in ("shorten", "cut"):
            data = data[: size // 2]
        if self.harm == "cut":
            self.close_connection = True
        else:
            size = len(data)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer(status, {"error": message}, **headers)

    def find(self, kind: str, name: str, write: bool = False) -> Repository | None:
        """The repository, if the asking user may have it; else the refusal is sent."""
        user, repository = self.user(), self.hub.repositories.get((kind, name))
        if user == "?":
            return self.refuse(401, "Invalid credentials in Authorization header")
        if repository is None or repository.private and {"reader": "alice"}.get(user, user) != repository.owner:
            if user is None:
                return self.refuse(401, "Invalid username or password.")
            return self.refuse(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            return self.refuse(401, "Invalid username or password.")
        if write and user != repository.owner:
            return self.refuse(403, "You don't have the rights to write here")
        return repository

    def find_commit(self, kind: str, name: str, revision: str) -> tuple[Repository, dict] | tuple[None, None]:
        repository = self.find(kind, name)
        commit = repository and repository.at(revision)
        if repository and not commit:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return (repository, commit) if commit else (None, None)

    # The calls

    def create(self, body, **_):
        request, user = json.loads(body), self.user()
        if user in (None, "?"):
            return self.refuse(401, "Invalid credentials in Authorization header")
        owner = request.get("organization") or user
        kind, name = (request.get("type") or "model") + "s", f"{owner}/{request['name']}"
        if owner != user:
            return self.refuse(403, f"You don't have the rights to create a {kind[:-1]} under the namespace {owner!r}")
        if (kind, name) in self.hub.repositories:
            return self.answer(409, {"error": "You already created this repo", "url": f"{self.hub.endpoint}/{name}"})
        private = request.get("visibility") == "private" or bool(request.get("private"))
        repository = self.hub.repositories[kind, name] = Repository(owner, private)
        repository.add("main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def info(self, kind, name, revision="main", **_):
        repository, commit = self.find_commit(kind, name, revision)
        if commit:
            siblings = [{"rfilename": file} for file in commit["files"]]
            facts = {"id": name, "sha": commit["id"], "private": repository.private, "siblings": siblings, "tags": []}
            self.answer(200, {**facts, "downloads": 0, "likes": 0, "author": repository.owner})

    def tree(self, kind, name, revision, **_):
        repository, commit = self.find_commit(kind, name, revision)
        if commit:
            self.answer(200, [entry(file, data) for file, data in commit["files"].items()] + self.hub.lies)

    def branch(self, kind, name, branch, body, **_):
        repository = self.find(kind, name, write=True)
        if repository:
            if branch in repository.branches:
                return self.refuse(409, "Reference already exists")
            repository.branches[branch] = repository.branches["main"]
            self.answer(200, {})

    def preupload(self, kind, name, revision, body, **_):
        repository = self.find(kind, name, write=True)
        if not repository:
            return
        commit = repository.at(revision)
        if commit is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = []
        for file in json.loads(body)["files"]:
            large, there = is_large(file["path"], file["size"]), commit["files"].get(file["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git_hash(there)
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": files})

    def batch(self, prefix, name, body, **_):
        if not self.find("datasets" if prefix else "models", name, write=True):
            return
        objects = []
        for one in json.loads(body)["objects"]:
            objects.append({"oid": one["oid"], "size": one["size"]})
            if one["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.cdn}/upload/{one['oid']}?X-Amz-Signature=secretsignature"}
                objects[-1]["actions"] = {"upload": upload}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid, body, query, **_):
        if self.headers.get("Authorization"):
            return self.refuse(400, "a token came to the CDN")
        if query.get("X-Amz-Signature") != ["secretsignature"] or hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(403, "SignatureDoesNotMatch")
        self.hub.objects[oid] = body
        self.answer(200)

    def commit(self, kind, name, branch, body, **_):
        repository = self.find(kind, name, write=True)
        if not repository:
            return
        if branch not in repository.branches:
            return self.refuse(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files, message = dict(repository.at(branch)["files"]), ""
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.refuse(400, "a large file was never uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    return self.refuse(404, "A file with this name doesn't exist", "EntryNotFound")
        made = repository.add(branch, message, files)
        url = f"{self.hub.endpoint}/{name}/commit/{made}"
        self.answer(200, {"success": True, "commitOid": made, "commitUrl": url})

    def validate_yaml(self, body, **_):
        content = json.loads(body)["content"]
        if "license: [" in content:
            return self.answer(400, {"errors": [{"message": '"license" must be a string'}], "warnings": []})
        self.answer(200, {"errors": [], "warnings": []})

    def resolve(self, prefix, name, revision, file, **_):
        harm, self.harm = self.harm, None
        repository, commit = self.find_commit("datasets" if prefix else "models", name, revision)
        if not commit:
            return
        data, about = commit["files"].get(file), {"X-Repo-Commit": commit["id"]}
        if data is None:
            return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", **about)
        if is_large(file, len(data)):
            digest = hashlib.sha256(data).hexdigest()
            about |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            return self.answer(302, {}, Location=f"{self.hub.cdn}/cdn/{digest}", **about)
        self.harm = harm
        self.answer(200, data, ETag=f'"{git_hash(data)}"', **about)

    def cdn(self, oid, **_):
        if self.headers.get("Authorization"):
            return self.refuse(400, "a token came to the CDN")
        self.answer(200, self.hub.objects[oid], ETag=f'"{oid}"')


def entry(name: str, data: bytes) -> dict:
    """A line of a file list."""
    if not is_large(name, len(data)):
        return {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()
    lfs = {"oid": digest, "size": len(data), "pointerSize": len(pointer)}
    return {"type": "file", "path": name, "size": len(data), "oid": git_hash(pointer), "lfs": lfs}


NAME = r"([^/]+/[^/]+?)"
ANY = rf"/api/(models|datasets)/{NAME}"
ROUTES = (
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", ANY, Handler.info),
    ("GET", rf"{ANY}/revision/([^/]+)", Handler.info),
    ("GET", rf"{ANY}/tree/([^/]+)", Handler.tree),
    ("POST", rf"{ANY}/branch/([^/]+)", Handler.branch),
    ("POST", rf"{ANY}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"{ANY}/commit/([^/]+)", Handler.commit),
    ("POST", rf"/(datasets/)?{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/upload/([0-9a-f]+)", Handler.upload),
    ("GET", "/cdn/([0-9a-f]+)", Handler.cdn),
    ("GET", rf"/(datasets/)?{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("HEAD", rf"/(datasets/)?{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
)
