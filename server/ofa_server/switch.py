"""Makes another version of a checkpoint the one that answers.

Servers with `--model-control poll` have loaded and warmed it beside the one that answers. They are
asked whether they have, before the one file that decides is replaced (docs/versions.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from ofa_server.durations import seconds
from ofa_server.errors import ServerError
from ofa_server.model_configs import read_config
from ofa_server.versions import (
    ENSEMBLE,
    MEMBERS,
    complete_versions,
    find_export,
    with_served_version,
)

_ASK_INTERVAL_S = 0.2
_ASK_TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa switch`."""
    parser.add_argument("name", metavar="NAME", help="what clients ask for")
    parser.add_argument("version", type=int, metavar="VERSION", help="that is to answer")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument(
        "--server",
        action="append",
        metavar="HOST:PORT",
        help="gRPC address of a server on this repository, which must have loaded the version; may "
        "be given several times, and a name with several addresses stands for all of them",
    )
    servers.add_argument(
        "--offline",
        action="store_true",
        help="ask no server: none runs on this repository, or those that do are started again",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="for the servers to load the version, and then to answer with it (default: 600)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Switches when every server has the version, and waits until every server answers with it.

    Raises:
        ServerError: the version is not in the repository, or a server has not loaded it in time;
            nothing is changed then. Or a server does not answer with it in time.
    """
    name, version = arguments.name, arguments.version
    models = find_export(arguments.repository, name)
    there = complete_versions(models)
    if version not in there:
        raise ServerError(
            f"{name} has no version {version}, but {', '.join(map(str, there)) or 'none'}"
        )
    # Says in a sentence what a damaged file is.
    read_config(models[ENSEMBLE])
    config = models[ENSEMBLE] / "config.pbtxt"
    switched = with_served_version(config.read_text("utf-8"), version)
    servers = [] if arguments.offline else addresses(arguments.server)
    members = [models[member].name for member in MEMBERS]
    _wait_for(servers, members, version, arguments.timeout, "has not loaded", "nothing was changed")
    _replace(config, switched)
    print(f"{name} answers with version {version} from now on", flush=True)
    advice = f"see its log, and roll back with `ofa switch {name} VERSION`"
    _wait_for(servers, [name], version, arguments.timeout, "does not answer with", advice)
    for server in servers:
        print(f"{server} does", flush=True)


def addresses(servers: Sequence[str]) -> list[str]:
    """Every address that the servers' names stand for, as `HOST:PORT`; of IPv4 where there are.

    Raises:
        ServerError: a server is not of that form, or its name is unknown.
    """
    found = dict[str, None]()
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal():
            raise ServerError(f"the server {server!r} does not do; HOST:PORT is meant")
        try:
            infos = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise ServerError(f"the server {server} cannot be found: {error.strerror}") from error
        # A server that listens on one of "localhost" 127.0.0.1 and ::1 does on the first.
        v4 = [address for family, *_, address in infos if family == socket.AF_INET]
        hosts = [f"{address[0]}" for address in v4] or [f"[{info[4][0]}]" for info in infos]
        found |= dict.fromkeys(f"{address}:{port}" for address in hosts)
    return list(found)


def _wait_for(
    servers: Sequence[str],
    models: Sequence[str],
    version: int,
    timeout_s: float,
    complaint: str,
    advice: str,
) -> None:
    """Waits until every server has a version of all models.

    Raises:
        ServerError: one does not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    for server in servers:
        with grpcclient.InferenceServerClient(
            # A proxy that the environment names is not meant for our own servers.
            server,
            channel_args=[("grpc.enable_http_proxy", 0)],
        ) as client:
            while missing := [model for model in models if not _has(client, model, version)]:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{server} {complaint} version {version} of {missing[0]} within "
                        f"{timeout_s:g} s; {advice}"
                    )
                time.sleep(_ASK_INTERVAL_S)


def _has(client: grpcclient.InferenceServerClient, model: str, version: int) -> bool:
    try:
        return bool(client.is_model_ready(model, str(version), client_timeout=_ASK_TIMEOUT_S))
    except InferenceServerException:
        return False


def _replace(file: Path, text: str) -> None:
    """Puts a new text in the place of a file's, in one step."""
    new = file.with_name(f".{file.name}")
    try:
        with new.open("w", encoding="utf-8") as writer:
            writer.write(text)
            writer.flush()
            os.fsync(writer.fileno())
        # The servers may run as another user.
        shutil.copymode(file, new)
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ServerError(f"{file} cannot be written: {error.strerror}") from error
