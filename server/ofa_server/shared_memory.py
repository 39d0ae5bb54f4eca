"""The /dev/shm regions through which Triton and its Python stubs pass tensors.

A stub's region outlives a server that is killed. So the regions of one `ofa serve` carry a prefix
of their own, and a lock file of that name is held by Triton and its stubs as long as one of them
lives: regions whose lock is free belong to nobody.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import NamedTuple

from ofa.image import MAX_IMAGE_BYTES
from ofa.tasks.task import MAX_TEXT_BYTES
from ofa_server.errors import ServerError
from ofa_server.model_configs import ModelConfig, num_instances, numpy_dtype

_DIRECTORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_PREFIX = "ofa-serve-"
_LOCK_SUFFIX = ".lock"
_MIB = 2**20
#: What a stub takes before any tensor: its `shm-default-byte-size`.
_STUB_BYTES = _MIB
#: A region holds a request's tensors and its answer's.
_COPIES = 2
#: Bounds of what preprocess takes; the other tensors have the size of the warm-up's.
_MAX_BYTES = {"image": MAX_IMAGE_BYTES, "text": MAX_TEXT_BYTES, "text2": MAX_TEXT_BYTES}


class Regions(NamedTuple):
    """The regions of one server.

    Attributes:
        prefix: how their names start.
        lock_fd: descriptor that Triton must inherit.
    """

    prefix: str
    lock_fd: int


@contextmanager
def own_regions(needed: int) -> Iterator[Regions]:
    """Removes what dead servers have left, and in the end what this one leaves.

    Args:
        needed: bytes that the regions can take.

    Raises:
        ServerError: there is no room for them. Triton would start, and fail single requests under
            load.
    """
    _remove_leaked_regions()
    _check_room(needed)
    prefix = f"{_PREFIX}{uuid.uuid4().hex[:8]}-"
    new_lock = _DIRECTORY / f"{prefix}new"
    lock_fd = os.open(new_lock, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    # Only now can another server that starts take it for a lock, and find it held.
    new_lock.rename(_DIRECTORY / f"{prefix}{_LOCK_SUFFIX}")
    try:
        yield Regions(prefix, lock_fd)
    finally:
        os.close(lock_fd)
        _remove_regions(prefix)


def _check_room(needed: int) -> None:
    stats = os.statvfs(_DIRECTORY)
    free = stats.f_bavail * stats.f_frsize
    if free < needed:
        raise ServerError(
            f"{_DIRECTORY} has {free // _MIB} MiB free, and these models can need "
            f"{-(-needed // _MIB)} MiB (for a container: docker run --shm-size)"
        )


def needed_shared_memory(
    configs: Mapping[str, ModelConfig], versions: Mapping[str, int], *, stand_in: bool
) -> int:
    """Bytes of shared memory that full batches of the largest requests take.

    An answer counts as no larger than its request, which pictures that are drawn are not.

    Args:
        configs: the models by name.
        versions: how many of each are loaded at once.
        stand_in: PyTorch models run in a Python stub, too.
    """
    in_stubs = {"python", "pytorch"} if stand_in else {"python"}
    return sum(
        versions[name]
        * num_instances(config)
        * (_STUB_BYTES + _COPIES * max(1, config.max_batch_size) * _request_bytes(config))
        for name, config in configs.items()
        if config.backend in in_stubs
    )


def _request_bytes(config: ModelConfig) -> int:
    """Size of the largest request; only the warm-up's tells the dimensions that vary."""
    warmup = config.model_warmup[0].inputs if config.model_warmup else {}
    return sum(
        _MAX_BYTES.get(name, prod(tensor.dims) * numpy_dtype(tensor.data_type).itemsize)
        for name, tensor in warmup.items()
    )


def _remove_leaked_regions() -> None:
    for lock in _DIRECTORY.glob(f"{_PREFIX}*{_LOCK_SUFFIX}"):
        # Held, another user's, or just removed by another server: not ours to clear up.
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_regions(lock.name.removesuffix(_LOCK_SUFFIX))


def _remove_regions(prefix: str) -> None:
    # The lock goes last: while it is there, another server can still find what is left.
    for region in sorted(_DIRECTORY.glob(f"{prefix}*"), key=lambda path: path.suffix):
        region.unlink(missing_ok=True)
