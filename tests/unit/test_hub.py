"""`fetch_checkpoint` against a hub on loopback that speaks the two hubs' routes.

The routes and answers are those that modelscope-hub 0.5.1 and huggingface_hub 0.36.2 ask for. Each
fetch is a process of its own, as the clients read their endpoints and caches from the environment
when they are imported, and because a download that resumes usually does so in another process.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

FETCH = """
import sys
from ofa.errors import CheckpointError
from ofa.hub import fetch_checkpoint
try:
    print(fetch_checkpoint(sys.argv[1]))
except CheckpointError as error:
    print(error)
    sys.exit(3)
"""
# Larger than the 10 MiB that the Hugging Face client reads before it writes.
WEIGHTS = b"0123456789abcdef" * 786_432
FILES = {
    "config.json": b"{}",
    "configuration.json": b"{}",
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version",
    "pytorch_model.bin": WEIGHTS,
    "README.md": b"not needed",
    "resources/demo.json": b"not needed",
}
NEEDED = {name for name in FILES if "/" not in name and name != "README.md"}
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked for."""

    revisions: dict[tuple[str, str], dict[str, bytes]]
    cut_after: dict[str, int] = field(default_factory=dict)  # file -> bytes sent, once
    corrupted: set[str] = field(default_factory=set)  # files sent with other bytes than stated
    sent: list[tuple[str, str | None]] = field(default_factory=list)  # file, Range header
    url: str = ""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def etag(name: str, content: bytes) -> str:
    """Return what Hugging Face states: SHA-256 for weights, git's blob id for the rest."""
    if name == "pytorch_model.bin":
        return sha256(content)
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match parts:
            case ["api", "v1", "models", owner, name, "repo", "files"]:
                self.answer_modelscope_listing(f"{owner}/{name}", query["Revision"])
            case ["api", "v1", "models", owner, name, "repo"]:
                files = self.hub.revisions[f"{owner}/{name}", query["Revision"]]
                self.answer_file(query["FilePath"], files[query["FilePath"]], {})
            case ["api", "models", owner, name, "revision", revision]:
                self.answer_hugging_face_info(f"{owner}/{name}", revision)
            case [owner, name, "resolve", _, *path]:
                file = "/".join(path)
                content = self.hub.revisions[f"{owner}/{name}", "main"][file]
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(file, content)}"'}
                self.answer_file(file, content, headers)
            case _:
                self.answer_json(404, {"error": f"no route {self.path}"})

    def answer_modelscope_listing(self, repository: str, revision: str) -> None:
        files = self.hub.revisions.get((repository, revision))
        if files is None:
            answer = {"Code": 10010205001, "Message": "record not found", "Success": False}
            self.answer_json(404, answer)
            return
        entries = [
            {"Path": name, "Type": "blob", "Size": len(content), "Sha256": sha256(content)}
            for name, content in files.items()
        ]
        self.answer_json(200, {"Code": 200, "Data": {"Files": entries}, "Success": True})

    def answer_hugging_face_info(self, repository: str, revision: str) -> None:
        files = self.hub.revisions.get((repository, revision))
        if files is None:
            known = any(name == repository for name, _ in self.hub.revisions)
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.answer_json(404, {"error": "not found"}, {"X-Error-Code": code})
            return
        siblings = [{"rfilename": name} for name in files]
        self.answer_json(200, {"id": repository, "sha": COMMIT, "siblings": siblings})

    def answer_json(
        self, status: int, answer: dict[str, object], headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_file(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        span = self.headers.get("Range")
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.sent.append((name, span))
        if name in self.hub.corrupted:
            content = bytes(len(content))
        cut = self.hub.cut_after.pop(name, len(content))
        self.wfile.write(content[start:cut])
        self.close_connection = True


@pytest.fixture
def hub() -> Iterator[Hub]:
    old = {**FILES, "config.json": b'{"version": "old"}'}
    state = Hub(
        revisions={
            ("damo/ofa_tiny", "master"): FILES,
            ("damo/ofa_tiny", "v1.0.1"): old,
            ("alice/ofa_tiny", "master"): FILES,
            ("OFA-Sys/ofa-tiny", "main"): FILES,
            ("OFA-Sys/ofa-tiny", "v1"): FILES,
            ("OFA-Sys/empty", "main"): {"README.md": b"nothing here"},
            ("damo/empty", "master"): {"README.md": b"nothing here"},
        }
    )
    handler = type("BoundHandler", (Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Fetch:
    """Runs `fetch_checkpoint` in a process whose caches and home are in `folder`."""

    folder: Path
    url: str

    def __call__(self, name: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "NO_PROXY": "127.0.0.1",
            "HF_ENDPOINT": self.url,
            "MODELSCOPE_ENDPOINT": self.url,
        }
        return subprocess.run(
            [sys.executable, "-c", FETCH, name],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def folder_of(self, name: str) -> Path:
        fetched = self(name)
        assert fetched.returncode == 0, fetched.stdout + fetched.stderr
        return Path(fetched.stdout.strip())

    def refusal_of(self, name: str) -> str:
        fetched = self(name)
        assert fetched.returncode == 3, fetched.stdout + fetched.stderr
        return fetched.stdout.strip()


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    return Fetch(tmp_path, hub.url)


ON_EITHER_HUB = pytest.mark.parametrize("name", ["damo/ofa_tiny", "OFA-Sys/ofa-tiny"])


def test_a_folder_is_returned_as_it_is(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "damo" / "ofa_tiny").mkdir(parents=True)
    assert fetch.folder_of("damo/ofa_tiny") == Path("damo/ofa_tiny")
    assert hub.sent == []


@ON_EITHER_HUB
def test_the_needed_files_arrive_once(name: str, hub: Hub, fetch: Fetch) -> None:
    folder = fetch.folder_of(name)
    assert {str(file.relative_to(folder)) for file in folder.rglob("*")} == NEEDED
    assert {file: (folder / file).read_bytes() for file in NEEDED} == {
        file: FILES[file] for file in NEEDED
    }
    hub.sent.clear()
    assert fetch.folder_of(name) == folder
    assert hub.sent == []


@ON_EITHER_HUB
def test_progress_is_shown(name: str, fetch: Fetch) -> None:
    assert "100%" in fetch(name).stderr


def test_a_revision_is_asked_for(fetch: Fetch) -> None:
    assert (fetch.folder_of("damo/ofa_tiny@v1.0.1") / "config.json").read_bytes() == (
        b'{"version": "old"}'
    )
    assert (fetch.folder_of("damo/ofa_tiny") / "config.json").read_bytes() == b"{}"
    assert fetch.folder_of("OFA-Sys/ofa-tiny@v1").name == COMMIT


def test_a_prefix_names_the_hub(fetch: Fetch) -> None:
    assert (fetch.folder_of("ms:alice/ofa_tiny") / "config.json").is_file()
    assert "alice/ofa_tiny on Hugging Face" in fetch.refusal_of("alice/ofa_tiny")
    assert "damo/ofa_tiny on Hugging Face" in fetch.refusal_of("hf:damo/ofa_tiny")


@ON_EITHER_HUB
def test_a_cut_download_goes_on_where_it_stopped(name: str, hub: Hub, fetch: Fetch) -> None:
    hub.cut_after["pytorch_model.bin"] = 11 << 20
    if name.startswith("OFA-Sys"):  # this client leaves the next attempt to the next call
        assert fetch.refusal_of(name).startswith(f"{name} on Hugging Face did not arrive")
    folder = fetch.folder_of(name)
    assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS
    spans = [span for file, span in hub.sent if file == "pytorch_model.bin"]
    assert len(spans) == 2
    assert spans[0] is None
    assert spans[1] is not None
    assert 0 < int(spans[1].removeprefix("bytes=").rstrip("-")) <= 11 << 20


@ON_EITHER_HUB
@pytest.mark.parametrize("file", ["pytorch_model.bin", "vocab.json"])
def test_other_bytes_than_stated_are_refused(name: str, file: str, hub: Hub, fetch: Fetch) -> None:
    hub.corrupted.add(file)
    message = fetch.refusal_of(name)
    assert message.startswith(f"{file} of {name} on ")
    assert "\n" not in message
    hub.corrupted.clear()
    assert (fetch.folder_of(name) / file).read_bytes() == FILES[file]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("damo/nothing", "there is no folder and no repository damo/nothing on ModelScope"),
        ("damo/ofa_tiny@v9", "there is no folder and no repository damo/ofa_tiny@v9 on ModelScope"),
        ("OFA-Sys/no", "there is no folder and no repository OFA-Sys/no on Hugging Face"),
        (
            "OFA-Sys/ofa-tiny@v9",
            "there is no folder and no repository OFA-Sys/ofa-tiny@v9 on Hugging Face",
        ),
        ("damo/empty", "damo/empty on ModelScope holds no config.json"),
        ("OFA-Sys/empty", "OFA-Sys/empty on Hugging Face holds no config.json"),
        ("./missing", "./missing is neither a folder nor the id of a checkpoint"),
        ("a/b/c", "a/b/c is neither a folder nor the id of a checkpoint"),
        ("xy:a/b", "xy:a/b is neither a folder nor the id of a checkpoint"),
    ],
)
def test_what_is_not_there_is_named(name: str, sentence: str, fetch: Fetch) -> None:
    assert fetch.refusal_of(name).startswith(sentence)


@ON_EITHER_HUB
def test_a_hub_that_cannot_be_reached_is_named(name: str, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    assert "cannot be reached" in Fetch(tmp_path, url).refusal_of(name)
