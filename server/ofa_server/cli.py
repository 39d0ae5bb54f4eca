"""The `ofa` command; one module a verb."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from ofa.errors import OFAError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: those of the command line if None.

    Returns:
        Exit status: 0, 1 after one sentence on standard error, or 130 on Ctrl-C.
    """
    # The modules of the verbs do not import torch before they run.
    from ofa_server import evaluate, export, remove, serve, switch
    from ofa_server.gateway import command as gateway

    parser = argparse.ArgumentParser(prog="ofa", description="OFA checkpoints on Triton.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, verb, summary in (
        ("export", export, "write a Triton model repository from a checkpoint"),
        ("switch", switch, "make another version of a checkpoint the one that answers"),
        ("remove", remove, "remove a version of a checkpoint from a repository"),
        ("serve", serve, "run Triton over a model repository"),
        ("gateway", gateway, "serve HTTP and a page in front of a running server"),
        ("evaluate", evaluate, "score a running server on annotated pictures"),
    ):
        subparser = verbs.add_parser(name, help=summary, description=verb.__doc__)
        verb.add_arguments(subparser)
        subparser.set_defaults(run=verb.run)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except OFAError as error:
        print(f"ofa {parsed.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0
