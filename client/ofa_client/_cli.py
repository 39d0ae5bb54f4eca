"""The command `ofa-client`."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ofa_client._arguments import INPUTS, make_parser
from ofa_client._bulk import Counts, ask_all, count_unanswered, unanswered
from ofa_client._bulk_journal import Journal, JournalError
from ofa_client._bulk_names import can_be_counted
from ofa_client._client import OFAClient
from ofa_client._errors import OFAClientError
from ofa_client._painting import paint_boxes
from ofa_client._printing import Result, to_json, to_lines
from ofa_client._results import DrawingResult, GroundingResult
from ofa_client._retry import RetryPolicy
from ofa_client._security_arguments import security_settings

if TYPE_CHECKING:
    from tqdm import tqdm

# A long run waits out a busy server and one that is started again: half a minute, more or less.
_PATIENCE = RetryPolicy(max_attempts=20)
# Requests under way at a time, where many pictures are asked about.
_CONCURRENCY = 8
# Characters of a text that stand above its answer; a picture's name is never cut.
_TITLE_LENGTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 if a request failed and 130 on Ctrl-C."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    # A file's name need not be valid text in the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if arguments.journal is None and (arguments.concurrency or arguments.shard):
        parser.error("--concurrency and --shard are for many pictures: they need --out")
    try:
        client = OFAClient(
            arguments.server.split(","),
            model=arguments.model,
            timeout=arguments.timeout,
            retry=RetryPolicy() if arguments.journal is None else _PATIENCE,
            **security_settings(arguments),
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    num_failed = 0
    try:
        with client:
            if arguments.journal is not None:
                return _ask_into_file(client, arguments)
            for inputs in _requests(arguments):
                num_failed += not _ask(client, inputs, arguments)
    except KeyboardInterrupt:
        return 130
    return 1 if num_failed else 0


def _ask_into_file(client: OFAClient, arguments: argparse.Namespace) -> int:
    """Ask about many pictures, keep the answers in a file, and return the exit code."""
    options = {name: getattr(arguments, name) for name in arguments.options}
    results = arguments.options[0].removeprefix("num_")
    counts = Counts()
    try:
        with (
            Journal(arguments.journal, results) as journal,
            _progress_bar(arguments, journal) as bar,
        ):
            names = unanswered(arguments.image, arguments.shard, journal)
            ask = functools.partial(arguments.method, client, **options)
            for counts in ask_all(names, journal, ask, arguments.concurrency or _CONCURRENCY):
                if bar is not None:
                    bar.set_postfix(failed=counts.failed, refresh=False)
                    bar.update()
    except (JournalError, OFAClientError, OSError) as error:
        print(f"ofa-client: {error}", file=sys.stderr)
        return 1
    finally:
        duplicates = f", {counts.duplicates:,} of them duplicates" if counts.duplicates else ""
        print(
            f"{arguments.journal}: {counts.answered:,} answered{duplicates}; "
            f"{counts.failed:,} failed",
            file=sys.stderr,
        )
    return 1 if counts.failed else 0


def _progress_bar(
    arguments: argparse.Namespace, journal: Journal
) -> AbstractContextManager[tqdm | None]:
    """Return a bar for a terminal; elsewhere, and without tqdm, nothing."""
    if not sys.stderr.isatty():
        return nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext()
    total = None
    if all(map(can_be_counted, arguments.image)):
        total = count_unanswered(arguments.image, arguments.shard, journal)
    bar: AbstractContextManager[tqdm] = tqdm(total=total, unit=" pictures", dynamic_ncols=True)
    return bar


def _requests(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Yield the inputs of one request after another; an argument may hold several pictures."""
    given = {name: getattr(arguments, name, None) for name in INPUTS}
    several = {
        name: value if isinstance(value, list) else [value]
        for name, value in given.items()
        if value is not None
    }
    for values in itertools.product(*several.values()):
        yield dict(zip(several, values, strict=True))


def _ask(client: OFAClient, inputs: Mapping[str, str], arguments: argparse.Namespace) -> bool:
    """Send one request, print its answer, and return whether all went well."""
    options = {name: getattr(arguments, name) for name in arguments.options}
    start = time.monotonic()
    try:
        result = arguments.method(client, **inputs, **options)
    except OFAClientError as error:
        _print_error(inputs, error, as_json=arguments.json)
        return False
    _print_result(inputs, result, time.monotonic() - start, as_json=arguments.json)
    try:
        _write_pictures(result, arguments)
    # What Pillow raises for a file name whose ending it does not know is a ValueError.
    except (OFAClientError, OSError, ImportError, ValueError) as error:
        print(f"ofa-client: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _write_pictures(result: Result, arguments: argparse.Namespace) -> None:
    match result:
        case GroundingResult() if arguments.draw:
            paint_boxes(arguments.image, result.boxes).save(arguments.draw)
        case DrawingResult():
            for rank, image in enumerate(result.images, start=1):
                suffix = f"-{rank}" if rank > 1 else ""
                arguments.out.with_stem(arguments.out.stem + suffix).write_bytes(image.png)


def _print_result(
    inputs: Mapping[str, str], result: Result, seconds: float, *, as_json: bool
) -> None:
    if as_json:
        print(json.dumps({**inputs, **to_json(result)}), flush=True)
        return
    lines = [f"{_title(inputs)}  ({seconds * 1000:.0f} ms)"]
    lines += [f"  {line}" for line in to_lines(result)]
    print("\n".join(lines), flush=True)


def _print_error(inputs: Mapping[str, str], error: OFAClientError, *, as_json: bool) -> None:
    if as_json:
        body = {"code": error.code, "message": error.message}
        print(json.dumps({**inputs, "error": body}), flush=True)
    else:
        print(f"{_title(inputs)}: {error.message}", file=sys.stderr, flush=True)


def _title(inputs: Mapping[str, str]) -> str:
    whole_or_cut = (
        text if name == "image" or len(text) <= _TITLE_LENGTH else f"{text[:_TITLE_LENGTH]}…"
        for name, text in inputs.items()
    )
    return "  ".join(whole_or_cut)
