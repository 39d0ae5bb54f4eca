"""SeaweedFS as an S3 server for tests: one process, real signatures, always stopped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import minio

from ofa_server.background import free_ports
from tests.server.processes import START_DEADLINE_S, end_of, stop, wait_until

WEED = Path(__file__).parents[2] / ".venv-ops" / "bin" / "weed"
KEY, SECRET = "ofa-tests", "not-a-secret"
BUCKET = "models"


@dataclass
class S3Server:
    """A running server with an empty bucket."""

    port: int

    @property
    def url(self) -> str:
        return f"s3://http://127.0.0.1:{self.port}"

    @property
    def client(self) -> minio.Minio:
        return minio.Minio(f"127.0.0.1:{self.port}", KEY, SECRET, secure=False)

    def upload(self, folder: Path, prefix: str) -> None:
        """As `aws s3 cp --recursive` does."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.client.fput_object(BUCKET, f"{prefix}/{file.relative_to(folder)}", str(file))


@contextmanager
def s3_server(scratch: Path) -> Iterator[S3Server]:
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Write"],
    }
    (scratch / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (scratch / "data").mkdir()
    parts = ("master", "volume", "filer", "s3")
    names = [name for part in parts for name in (f"{part}.port", f"{part}.port.grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        *(WEED, "server", "-s3", f"-s3.config={scratch / 's3.json'}", f"-dir={scratch / 'data'}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.iam=false", "-volume.max=10"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    log = scratch / "s3.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    server = S3Server(ports["s3.port"])

    def has_bucket() -> bool:
        assert process.poll() is None, f"the S3 server has ended:\n{end_of(log)}"
        try:
            if not server.client.bucket_exists(BUCKET):
                server.client.make_bucket(BUCKET)
            # A store without a volume yet takes no file.
            server.client.fput_object(BUCKET, "ready", str(scratch / "s3.json"))
        except Exception:  # noqa: BLE001 - while it starts, anything
            return False
        return True

    try:
        wait_until(has_bucket, "the S3 server", START_DEADLINE_S)
        yield server
    finally:
        stop(process)
