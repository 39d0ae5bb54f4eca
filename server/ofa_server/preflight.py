"""What must hold before Triton starts. Each of these it would report late, badly or not at all."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from ofa_server.errors import ServerError
from ofa_server.installation import Installation
from ofa_server.model_configs import ModelConfig

#: Room for some hundred answers.
MIN_CACHE_BYTES = 2**20


def check_libraries(installation: Installation) -> None:
    """Checks that the loader finds the shared libraries of the server and of its Python stub.

    Without its libpython the stub cannot start, and Triton waits for it for ever.

    Raises:
        ServerError: a library is missing, or the stub is built for another version of Python.
    """
    for program in (installation.binary, installation.stub):
        missing = re.findall(r"^\s*(\S+) => not found", _ldd(program, installation), re.MULTILINE)
        if missing:
            is_python = missing[0].startswith("libpython")
            advice = " (on Debian: apt-get install libpython3.11)" if is_python else ""
            raise ServerError(f"{program.name} needs {', '.join(missing)}, not found{advice}")
    library = re.search(r"libpython(\d+\.\d+)\S* => (\S+)", _ldd(installation.stub, installation))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if library is not None and library[1] != running:
        raise ServerError(
            f"this Triton runs models with Python {library[1]}; ofa is installed for {running}"
        )
    own_folder = Path(sysconfig.get_config_var("LIBDIR")).resolve()
    # Another build of the same version starts, and then fails in parts of the standard library.
    if (
        installation.from_wheel
        and library is not None
        and Path(library[2]).parent.resolve() != own_folder
    ):
        raise ServerError(
            f"models would run with {library[2]}; the one of this Python is not in {own_folder}"
        )


def _ldd(program: Path, installation: Installation) -> str:
    return subprocess.run(
        ["ldd", program],
        env=installation.environment(),
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def check_numpy(installation: Installation) -> None:
    """Checks the version of numpy.

    The stub of nvidia-pytriton 0.7 is built against numpy 1: with numpy 2 models load, but every
    numeric output arrives empty.

    Raises:
        ServerError: it is 2 or later.
    """
    if installation.from_wheel and int(version("numpy").partition(".")[0]) >= 2:
        raise ServerError(
            f"Triton from nvidia-pytriton needs numpy below 2, and {version('numpy')} is installed"
        )


def check_weights(repository: Path, configs: Mapping[str, ModelConfig]) -> None:
    """Checks that weights are whole, as far as that can be seen at once.

    Args:
        repository: folder of the models.
        configs: the models by name.

    Raises:
        ServerError: a file is damaged or was cut off, by a full disk or a copy that did not end.
    """
    for name, config in configs.items():
        if config.backend == "pytorch":
            for file in sorted((repository / name).glob("[0-9]*/*.pt")):
                # TorchScript is a zip file, whose table of contents is at its end.
                if not zipfile.is_zipfile(file):
                    raise ServerError(f"{file} is damaged or cut off; run `ofa export` again")


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Checks that Triton can listen.

    Args:
        host: address to listen on.
        ports: by what they are for.

    Raises:
        ServerError: the address is not this machine's, or a port is taken or named twice.
    """
    if len(set(ports.values())) < len(ports):
        raise ServerError(f"the ports must differ: {', '.join(map(str, ports.values()))}")
    for purpose, port in ports.items():
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                # A server that has just stopped leaves connections that block nobody.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise ServerError(
                f"the {purpose} port {port} on {host} cannot be used: {error.strerror}"
            ) from error


def check_response_cache(num_bytes: int, ensembles: Mapping[str, ModelConfig]) -> None:
    """Checks that a response cache can be had, and that every ensemble takes part in it.

    Args:
        num_bytes: its size; 0 for none.
        ensembles: the public models by name.

    Raises:
        ServerError: it is too small, or an ensemble does not take part: Triton would say nothing.
    """
    if num_bytes == 0:
        return
    if num_bytes < MIN_CACHE_BYTES:
        raise ServerError(
            f"a response cache of {num_bytes:,} bytes is too small; the least is "
            f"{MIN_CACHE_BYTES:,}"
        )
    for name, config in ensembles.items():
        if not config.response_cache.enable:
            raise ServerError(f"{name} does not take part in a cache; run `ofa export` again")
