"""The PyTorch that a server runs models with must be as new as the one that exported them.

An older one knows neither the file's format nor, perhaps, its operators, and would say so in a
traceback, once for every model.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_server.errors import ServerError
from ofa_server.installation import Installation
from ofa_server.model_configs import ModelConfig
from ofa_server.versions import read_manifests

_TIMEOUT_S = 60
#: The library's own word, since torch 2.9: a byte each for major, minor and patch in front.
_ASK_LIBRARY = """
import ctypes, sys
version = ctypes.CDLL(sys.argv[1]).aoti_torch_abi_version
version.restype = ctypes.c_uint64
print(version() >> 56, version() >> 48 & 255, sep=".")
"""


def check_torch(
    installation: Installation, repository: Path, ensembles: Mapping[str, ModelConfig]
) -> str | None:
    """Compares the server's PyTorch with the manifests of all versions of all exports.

    Returns:
        A warning where the server's version cannot be known.

    Raises:
        ServerError: it is older than an export's, or there is none.
    """
    needed = {
        export: torch
        for export, manifest in read_manifests(repository, ensembles).items()
        if (torch := _exporting_torch(manifest)) is not None
    }
    if not needed:
        return None
    export, newest = max(needed.items(), key=lambda item: _number(item[1]))
    if installation.has_pytorch:
        library = installation.backends / "pytorch" / "libtorch_cpu.so"
        runtime = libtorch_version(library, installation.environment())
    else:
        runtime = _installed_torch()
    if runtime is None:
        return (
            "the version of this server's libtorch cannot be found out; it must be at least "
            f"{newest}, which {export} was exported with"
        )
    if _number(runtime) < _number(newest):
        raise ServerError(
            f"{export} was exported with torch {newest} and this server runs {runtime}; export it "
            "with that version, or serve with a newer one"
        )
    return None


def _exporting_torch(manifest: Mapping[str, Any]) -> str | None:
    """The version of torch that an export was made with, None where its manifest does not say."""
    try:
        return str(manifest["versions"]["torch"])
    except (KeyError, TypeError):
        return None


def libtorch_version(library: Path, environment: Mapping[str, str]) -> str | None:
    """Major and minor version of a libtorch, None if it does not tell.

    It is loaded in a process of its own, which takes half a second.

    Args:
        library: its `libtorch_cpu.so`.
        environment: in which Triton loads it.
    """
    try:
        completed = subprocess.run(
            [sys.executable, "-I", "-c", _ASK_LIBRARY, library],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()


def _installed_torch() -> str:
    """The version that the stand-in backend imports."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError as error:
        raise ServerError(
            "this Triton has no PyTorch backend, and torch for the stand-in is not installed "
            "(pip install torch)"
        ) from error


def _number(version: str) -> tuple[int, ...]:
    """Major and minor: a patch release changes no operators."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
