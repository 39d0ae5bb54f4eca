"""What does the `ofa` command say when the machine or a file is not as it should be?

Each case must end with a sentence that says what to do, without a traceback, with status 1 and in
time. What must be in the sentence is written here beside the case.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.serving import linked
from chaos.figures import Figure
from chaos.processes import SHARED_MEMORY
from chaos.servers import CHECKPOINT, OFA
from ofa_server.background import free_ports

#: Seconds until the command must have ended: loading the models is among them.
_PATIENCE_S = 60
_BOUND = f"a sentence within {_PATIENCE_S} s"
#: What another network's checkpoint says of itself.
_BERT = '{"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 30522}'
#: For a store that nobody reaches.
_S3 = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "x"}


@dataclass(frozen=True)
class _Case:
    """One misfortune.

    Attributes:
        what: in words.
        command: arguments of `ofa`.
        says: pattern of what the sentence must say.
        mount: where a small file system is mounted for this command alone, and its size.
        environment: variables that the command gets besides.
    """

    what: str
    command: list[str]
    says: str
    mount: tuple[Path, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def run(repository: Path, quick: bool) -> list[Figure]:
    """Starts the command in every misfortune, or in the first ones."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-chaos-")))
        own = stack.enter_context(linked(repository, "caption"))
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        cases = _cases(own, scratch, taken)
        # No path of this machine is recorded.
        hidden = {str(own): "REPOSITORY", str(scratch): "FOLDER", str(ROOT): "."}
        return [_try(case, hidden) for case in (cases[:2] if quick else cases)]


def _cases(repository: Path, scratch: Path, taken: int) -> list[_Case]:
    def serve(folder: Path | str, *arguments: str) -> list[str]:
        grpc, metrics, health = map(str, free_ports(3))
        ports = ["--grpc-port", grpc, "--http-port", "0", "--metrics-port", metrics]
        return ["serve", "--repository", str(folder), *ports, "--health-port", health, *arguments]

    def broken(name: str, damage: Callable[[Path], object]) -> list[str]:
        """A copy of the repository with one file damaged."""
        copy = scratch / name
        shutil.copytree(repository, copy)
        damage(copy)
        return serve(copy)

    def export(checkpoint: Path, target: Path) -> list[str]:
        return ["export", str(checkpoint), "--repository", str(target), "--precision", "float32"]

    def checkpoint(name: str, damage: Callable[[Path], object]) -> Path:
        copy = scratch / name
        shutil.copytree(CHECKPOINT, copy)
        damage(copy)
        return copy

    small = scratch / "small"
    small.mkdir()
    config, model = "caption_preprocess/config.pbtxt", "caption_generator/1/model.pt"
    away = free_ports(1)[0]
    return [
        _Case(
            "a port is taken", serve(repository, "--grpc-port", str(taken)), f"port {taken}.*use"
        ),
        _Case("there is no repository", serve(scratch / "nothing"), "nothing"),
        _Case(
            f"{SHARED_MEMORY} is too small",
            serve(repository),
            f"{SHARED_MEMORY} has 8 MiB free, .* can need .*--shm-size",
            (SHARED_MEMORY, "8m"),
        ),
        _Case(
            "the disk is full, at an export",
            export(CHECKPOINT, small / "models"),
            "cannot be written: No space left on device",
            (small, "4m"),
        ),
        _Case(
            "the disk is full, at a start",
            serve(repository),
            "make room",
            (small, "64k"),
            {"TMPDIR": str(small)},
        ),
        _Case(
            "a configuration is damaged",
            broken("config", lambda copy: (copy / config).write_text("max_batch_size: {")),
            "config.pbtxt",
        ),
        _Case(
            "model.pt is missing",
            broken("missing", lambda copy: (copy / model).unlink()),
            "model.pt.*ofa export",
        ),
        _Case(
            "model.pt is cut off",
            broken("cut", lambda copy: os.truncate(copy / model, 100_000)),
            "model.pt.*ofa export",
        ),
        _Case(
            "one byte of model.pt has changed",
            broken("changed", lambda copy: _change_a_byte(copy / model)),
            "model.pt.*ofa export",
        ),
        _Case(
            "another network's checkpoint",
            export(
                checkpoint("other", lambda copy: (copy / "config.json").write_text(_BERT)),
                scratch / "models",
            ),
            "a model of the type bert; ofa is meant",
        ),
        _Case(
            "the checkpoint's weights are of another size",
            export(
                checkpoint("size", lambda copy: _edit(copy / "config.json", " 192,", " 256,")),
                scratch / "models",
            ),
            "has shape",
        ),
        _Case(
            "the checkpoint's weights are cut off",
            export(
                checkpoint("short", lambda copy: os.truncate(copy / "pytorch_model.bin", 100_000)),
                scratch / "models",
            ),
            "pytorch_model.bin",
        ),
        _Case(
            "the S3 store is away",
            serve(f"s3://http://127.0.0.1:{away}/bucket/models"),
            f"s3://.*{away}",
            environment=_S3,
        ),
    ]


def _edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def _change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _try(case: _Case, hidden: Mapping[str, str]) -> Figure:
    command = [str(OFA), *case.command]
    if case.mount:
        # A mount of this command's own, which nobody else sees.
        folder, size = case.mount
        script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
        command = [
            *("unshare", "--map-root-user", "--mount"),
            *("sh", "-c", script, "sh", size, str(folder), *command),
        ]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **case.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Figure(case.what, _PATIENCE_S, "s", _BOUND, within=False, note="does not end")
    seconds = time.monotonic() - start
    sentence = done.stderr.splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"
    for path, name in hidden.items():
        sentence = sentence.replace(path, name)
    is_well_said = (
        done.returncode == 1
        and re.fullmatch(rf"ofa \w+: .*({case.says}).*", sentence) is not None
        and "Traceback" not in done.stderr
    )
    return Figure(case.what, seconds, "s", _BOUND, within=is_well_said, note=sentence)
