"""The command `ofa-client`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from ofa_client._client import OFAClient
from ofa_client._errors import OFAClientError
from ofa_client._protocol import CaptioningResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 if a picture failed and 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    # A file's name need not be valid text in the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _caption(arguments)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ofa-client", description="Ask an OFA model on Triton about pictures."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    caption = verbs.add_parser(
        "caption",
        help="print the captions of pictures",
        description="Print the captions of pictures, best first, with their scores. "
        "The exit code is 1 if a picture failed.",
    )
    caption.add_argument("pictures", nargs="+", metavar="PICTURE", help="file of a picture")
    caption.add_argument(
        "--server",
        default="localhost:8001",
        metavar="HOST:PORT",
        help="gRPC port of the server (default: %(default)s)",
    )
    caption.add_argument(
        "--model",
        default="caption",
        metavar="NAME",
        help="name of the ensemble (default: %(default)s)",
    )
    caption.add_argument(
        "--num-captions",
        type=int,
        metavar="N",
        help="captions a picture (default: the checkpoint's)",
    )
    caption.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds allowed a picture (default: %(default)g)",
    )
    caption.add_argument(
        "--json", action="store_true", help="print one JSON object a picture and line"
    )
    return parser


def _caption(arguments: argparse.Namespace) -> int:
    num_failed = 0
    with OFAClient(arguments.server, model=arguments.model, timeout=arguments.timeout) as client:
        for picture in arguments.pictures:
            start = time.monotonic()
            try:
                result = client.caption(picture, num_captions=arguments.num_captions)
            except OFAClientError as error:
                num_failed += 1
                _print_error(picture, error, as_json=arguments.json)
            else:
                _print_result(picture, result, time.monotonic() - start, as_json=arguments.json)
    return 1 if num_failed else 0


def _print_result(picture: str, result: CaptioningResult, seconds: float, *, as_json: bool) -> None:
    if as_json:
        captions = [{"text": caption.text, "score": caption.score} for caption in result.captions]
        print(json.dumps({"image": picture, "captions": captions}), flush=True)
        return
    lines = [f"{picture}  ({seconds * 1000:.0f} ms)"]
    lines += [f"  {caption.score:8.3f}  {caption.text}" for caption in result.captions]
    print("\n".join(lines), flush=True)


def _print_error(picture: str, error: OFAClientError, *, as_json: bool) -> None:
    if as_json:
        body = {"code": error.code, "message": error.message}
        print(json.dumps({"image": picture, "error": body}), flush=True)
    else:
        print(f"{picture}: {error.message}", file=sys.stderr, flush=True)
