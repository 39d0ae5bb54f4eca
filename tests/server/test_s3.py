"""`ofa serve --repository s3://…`, against a server that checks keys."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from ofa_server.background import free_ports
from tests.server.echo_repository import write_echo_repository
from tests.server.processes import OFA, START_DEADLINE_S, ServeProcess
from tests.server.requests import TIMEOUT_S, request_inputs
from tests.server.s3_server import BUCKET, KEY, SECRET, WEED, S3Server, s3_server

pytestmark = pytest.mark.skipif(not WEED.exists(), reason="make ops-tools brings SeaweedFS")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The right key, and no other source of one."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("key")
def test_a_repository_on_s3_is_served(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = write_echo_repository(tmp_path / "models")
    # S3 has no folders without a file.
    (models / "echo" / "1" / "manifest.json").touch()
    s3.upload(models, "some/models")
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setenv("TMPDIR", str(copies))
    server = ServeProcess(f"{s3.url}/{BUCKET}/some/models", tmp_path / "server.log")
    server.start()
    try:
        server.wait_until_ready()
        with grpcclient.InferenceServerClient(server.grpc_address) as client:
            answer = client.infer("echo", request_inputs(image=b"hello"), client_timeout=TIMEOUT_S)
            assert answer.as_numpy("captions").tolist() == [[b"hello"]]
        assert list(copies.glob("ofa-repository-*/echo/config.pbtxt"))
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert not list(copies.iterdir())


def refusal(repository: str) -> str:
    completed = subprocess.run(
        [OFA, "serve", "--repository", repository],
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
        check=False,
    )
    assert completed.returncode == 1
    [sentence] = completed.stderr.splitlines()
    return sentence.removeprefix("ofa serve: ")


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_key_is_said(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
) -> None:
    monkeypatch.setenv(variable, "another")
    url = f"{s3.url}/{BUCKET}/some/models"
    assert refusal(url) == (
        f"{url} cannot be read: the server refuses the key ({code}); set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, a profile of ~/.aws/credentials or the role of the machine or pod"
    )


@pytest.mark.usefixtures("key")
def test_a_missing_key_is_said(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert refusal(f"{s3.url}/{BUCKET}").startswith(
        "no key for S3 was found; set AWS_ACCESS_KEY_ID"
    )


@pytest.mark.usefixtures("key")
def test_a_missing_bucket_and_an_empty_prefix_are_said(s3: S3Server) -> None:
    url = f"{s3.url}/other/models"
    assert refusal(url) == f"{url} cannot be read: 127.0.0.1:{s3.port} has no bucket other"
    url = f"{s3.url}/{BUCKET}/elsewhere"
    assert refusal(url) == f"{url} holds no files; upload there what `ofa export` has written"


@pytest.mark.usefixtures("key")
def test_a_server_that_is_away_is_said() -> None:
    [port] = free_ports(1)
    url = f"s3://http://127.0.0.1:{port}/{BUCKET}/models"
    assert refusal(url).startswith(
        f"{url} cannot be read: 127.0.0.1:{port} is away or is no S3 server ("
    )


@pytest.mark.usefixtures("key")
def test_a_server_that_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ofa_server import s3_repository
    from ofa_server.errors import ServerError

    monkeypatch.setattr(s3_repository, "_READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"s3://http://127.0.0.1:{listener.getsockname()[1]}/{BUCKET}"
        began = time.monotonic()
        with pytest.raises(ServerError, match="is away"), s3_repository.local_repository(url):
            pass
        assert time.monotonic() - began < 60
    assert not list(tmp_path.iterdir())
