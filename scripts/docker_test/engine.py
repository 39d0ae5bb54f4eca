"""A Docker engine of the test's own: its socket, its images, its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from check import CheckError, begin, require, run, wait_until
from machine import SEARCHED

#: What Docker takes for its networks, out of the range of private addresses.
_ADDRESSES = "base=172.29.0.0/16,size=24"


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        environment: of the programs that are to speak to it.
        compose_program: Docker Compose.
        project: the compose file.
    """

    environment: dict[str, str]
    compose_program: Path
    project: Path

    def docker(self, *arguments: str | Path, directory: Path | None = None) -> str:
        """Runs `docker` and returns what it said.

        Raises:
            CheckError: as `check.run`.
        """
        return run(["docker", *arguments], self.environment, directory)

    def compose(self, *arguments: str | Path, overrides: tuple[Path, ...] = ()) -> str:
        """Runs `docker compose` with our file, and others after it, and returns what it said.

        Raises:
            CheckError: as `check.run`.
        """
        files = [word for file in (self.project, *overrides) for word in ("--file", file)]
        return run([self.compose_program, *files, *arguments], self.environment)

    def has_image(self, name: str) -> bool:
        """Whether an image of that name is there."""
        return bool(self.docker("image", "ls", "--quiet", name).strip())


@contextmanager
def running_engine(root: Path, kept: Path) -> Iterator[Engine]:
    """An engine that lives as long as the block and keeps its images in `kept`.

    Raises:
        CheckError: one runs already, or this one does not start.
    """
    begin("engine")
    _check_alone()
    socket = kept / "docker.sock"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.environ["PATH"], SEARCHED]),
        "DOCKER_HOST": f"unix://{socket}",
        # The builder of every engine; the other one is a plug-in that Debian 12 does not have.
        "DOCKER_BUILDKIT": "0",
        "DOCKER_CONFIG": str(kept / "config"),
    }
    command = [
        "dockerd",
        f"--data-root={kept / 'engine'}",
        f"--exec-root={kept / 'run'}",
        f"--pidfile={kept / 'dockerd.pid'}",
        f"--host=unix://{socket}",
        # Images are built in the host's network, and compose makes a network of its own.
        "--bridge=none",
        f"--default-address-pool={_ADDRESSES}",
    ]
    compose = root / ".venv-ops" / "bin" / "docker-compose"
    engine = Engine(environment, compose, root / "docker" / "compose.yaml")
    log = kept / "dockerd.log"
    with log.open("w", encoding="utf-8") as output:
        # In a session of its own, so that Ctrl-C does not end it before what runs in it.
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(
            lambda: process.poll() is not None or _answers(engine), f"dockerd runs, log in {log}"
        )
        require(process.poll() is None, "it has not ended at once")
        yield engine
        # Stages of old builds; those of today's are what the next build is quick by.
        engine.docker("image", "prune", "--force", "--filter", "until=24h")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Mounted by the engine, which leaves it; nothing could remove its folder.
        left = kept / "run" / "netns" / "default"
        if left.exists():
            subprocess.run(["umount", "--quiet", left], env=environment, check=False)


def _check_alone() -> None:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = comm.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if name == "dockerd":
            raise CheckError(
                f"a Docker engine runs already (process {comm.parent.name}), and two of them get "
                "into each other's firewall rules; stop that one first"
            )


def _answers(engine: Engine) -> bool:
    try:
        engine.docker("version")
    except CheckError:
        return False
    return True
