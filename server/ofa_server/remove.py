"""Removes a version of a checkpoint that does not answer any more.

A server that polls hangs over a version that is there without its files, so `rm -r` will not do:
the folder of each model leaves the repository in a single step.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ofa_server.errors import ServerError
from ofa_server.model_configs import read_config
from ofa_server.versions import ENSEMBLE, find_export, served_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa remove`."""
    parser.add_argument("name", metavar="NAME", help="what clients ask for")
    parser.add_argument("version", type=int, metavar="VERSION", help="that goes")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> None:
    """Removes the version from all four models.

    Raises:
        ServerError: it is not there, or is the one that answers, or the repository cannot be
            written.
    """
    name, version = arguments.name, arguments.version
    models = find_export(arguments.repository, name)
    if served_version(read_config(models[ENSEMBLE])) in (version, None):
        raise ServerError(
            f"version {version} is the one that {name} answers with; `ofa switch` to another first"
        )
    folders = [model / str(version) for model in models.values()]
    there = [folder for folder in folders if folder.is_dir()]
    if not there:
        raise ServerError(f"{name} has no version {version}")
    removed = models[ENSEMBLE] / f".removed-{version}"
    try:
        # What one left that was killed at this.
        shutil.rmtree(removed, ignore_errors=True)
        removed.mkdir()
        for folder in there:
            folder.rename(removed / folder.parent.name)
        shutil.rmtree(removed)
    except OSError as error:
        raise ServerError(f"{arguments.repository} cannot be written: {error.strerror}") from error
    print(f"removed version {version} of {name}", flush=True)
