"""What must hold before Triton starts. Each of these it would report late, badly or not at all."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from ofa_server.errors import ServerError
from ofa_server.installation import Installation
from ofa_server.model_configs import ModelConfig, is_ensemble, network_file
from ofa_server.versions import adapter_file, model_folders

_MAX_PORT = 2**16 - 1
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


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Checks that Triton can listen.

    Args:
        host: address to listen on.
        ports: by what they are for.

    Raises:
        ServerError: the address is not this machine's, or a port is none, taken or named twice.
    """
    for purpose, port in ports.items():
        if not 1 <= port <= _MAX_PORT:
            raise ServerError(f"the {purpose} port must be 1 to {_MAX_PORT}, not {port}")
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


def check_model_files(repository: Path, configs: Mapping[str, ModelConfig]) -> None:
    """Checks what the models are made of, as far as Triton would not say what to do.

    Every byte of a network is read: a damaged one would be loaded without a word, and its answers
    would be wrong.

    Args:
        repository: folder of models.
        configs: the models by name.

    Raises:
        ServerError: a file is missing or damaged, or a configuration says nothing.
    """
    for name, config in configs.items():
        if not (config.backend or config.platform or is_ensemble(config)):
            raise ServerError(
                f"{repository / name / 'config.pbtxt'} names no backend; run `ofa export` again"
            )
        for warmup in config.model_warmup:
            for tensor in warmup.inputs.values():
                file = repository / name / "warmup" / tensor.input_data_file
                if tensor.input_data_file and not file.is_file():
                    raise ServerError(f"{file} is missing; run `ofa export` again")
        if config.backend == "pytorch":
            for file in sorted((repository / name).glob(f"[0-9]*/{network_file(config)}")):
                _check_archive(file)


def foreign_adapters(repository: Path, ensembles: Iterable[str]) -> list[str]:
    """Names of the models whose adapters are not those that this release exports.

    Another release's may not know the names that they import, and Triton may crash over that.

    Args:
        repository: folder of models.
        ensembles: names of the public models.

    Raises:
        ServerError: a file cannot be read.
    """
    found = dict[str, None]()
    for ensemble in ensembles:
        for member, folder in model_folders(repository, ensemble).items():
            ours = adapter_file(member)
            for file in folder.glob(f"[0-9]*/{ours.name}") if ours.is_file() else ():
                if _content(file) != ours.read_bytes():
                    found[folder.name] = None
    return list(found)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ServerError(f"{file} cannot be read: {error.strerror}") from error


def _check_archive(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ServerError(f"{file} is cut off or no network; run `ofa export` again") from error
    except OSError as error:
        raise ServerError(f"{file} cannot be read: {error.strerror}") from error
    if damaged is not None:
        raise ServerError(f"{file} is damaged (at {damaged}); run `ofa export` again")


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
