"""Asks a running server about annotated pictures and scores its answers as papers do."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ofa_client import (
    ModelNotReadyError,
    OFAClient,
    OFAClientError,
    OverloadedError,
    UnavailableError,
)
from ofa_server.durations import positive_seconds
from ofa_server.evaluation import BENCHMARKS, Benchmark, EvaluationError, Source
from ofa_server.evaluation.benchmark import Example, Prediction
from ofa_server.evaluation.predictions import PredictionFile

#: How long one example waits for a place in the server's queue, and how often it asks for one.
_MAX_BUSY_S = 300.0
_BUSY_PAUSE_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ofa evaluate`."""
    parser.add_argument("--task", required=True, choices=BENCHMARKS)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help="as COCO, Karpathy and VQA publish them, or JSON Lines: see docs/evaluate.md",
    )
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="the other file of a VQA data set"
    )
    parser.add_argument(
        "--split", default="test", help="of Karpathy's annotations (default: %(default)s)"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="where answers are kept for the next run "
        "(default: beside the annotations, named for them and the ensemble)",
    )
    parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
    parser.add_argument(
        "--model", metavar="NAME", help="the ensemble to ask (default: that of the task)"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=8,
        metavar="N",
        help="requests under way at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for each request (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Asks what was not asked before, and prints the scores over all answers.

    Raises:
        EvaluationError: a file is unfit, something is not installed, nobody answers at the
            address, or some examples went without an answer (the others are scored and printed).
    """
    if importlib.util.find_spec("tqdm") is None:
        raise EvaluationError("tqdm is not installed; in a checkout: pip install '.[evaluate]'")
    if arguments.concurrency < 1:
        raise EvaluationError(f"--concurrency is {arguments.concurrency}; it must be 1 or more")
    if not arguments.images.is_dir():
        raise EvaluationError(f"{arguments.images} is no folder")
    source = Source(arguments.annotations, arguments.questions, arguments.split)
    benchmark = BENCHMARKS[arguments.task].load(source)
    if not benchmark.examples:
        raise EvaluationError(f"{arguments.annotations.name} holds no {benchmark.noun}")
    model = arguments.model or arguments.task
    origin = {
        "task": arguments.task,
        "ensemble": model,
        "annotations": _sha256(arguments.annotations),
    }
    if arguments.questions is not None:
        origin["questions"] = _sha256(arguments.questions)
    path = arguments.predictions or arguments.annotations.with_name(
        f"{arguments.annotations.name}.{model}.predictions.jsonl"
    )
    try:
        client = OFAClient(arguments.server, model=model, timeout=arguments.timeout)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    with client, PredictionFile(path, origin) as file:
        failures = ask_all(benchmark, client, arguments.images, file, arguments.concurrency)
        predictions = {
            example.key: file.predictions[example.key]
            for example in benchmark.examples
            if example.key in file.predictions
        }
    num_examples = len(benchmark.examples)
    if predictions:
        print(f"{model}: {len(predictions):,} of {num_examples:,} {benchmark.noun}")
        for name, score in benchmark.score(predictions).items():
            print(f"  {name:<10}{score:6.2f}")
    if failures:
        raise EvaluationError(
            f"{len(failures):,} of {num_examples:,} {benchmark.noun} have no answer and are not "
            f"in the scores; the next run asks for them again. The first: {failures[0]}"
        )


def ask_all(
    benchmark: Benchmark, client: OFAClient, images: Path, file: PredictionFile, concurrency: int
) -> Sequence[str]:
    """Asks for every example that the file has no prediction of, and keeps the answers there.

    Returns:
        For every example that went without an answer, its picture and why.

    Raises:
        EvaluationError: nobody answers at the address, or the server has no such ensemble.
    """
    from tqdm import tqdm

    waiting = [example for example in benchmark.examples if example.key not in file.predictions]
    failures = []
    with (
        ThreadPoolExecutor(concurrency) as threads,
        tqdm(
            total=len(benchmark.examples),
            initial=len(benchmark.examples) - len(waiting),
            unit=f" {benchmark.noun}",
        ) as progress,
    ):
        futures = {
            threads.submit(_ask_patiently, benchmark, client, images, example): example
            for example in waiting
        }
        try:
            for future in as_completed(futures):
                example = futures[future]
                try:
                    file.append(example.key, future.result())
                except (UnavailableError, ModelNotReadyError) as error:
                    raise EvaluationError(str(error)) from error
                except OFAClientError as error:
                    failures.append(f"{example.image}: {error}")
                progress.update()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return failures


def _ask_patiently(
    benchmark: Benchmark, client: OFAClient, images: Path, example: Example
) -> Prediction:
    """The server's answer, asked for again while it is too busy, for at most `_MAX_BUSY_S`."""
    give_up_at = time.monotonic() + _MAX_BUSY_S
    while True:
        try:
            return benchmark.ask(client, images, example)
        except OverloadedError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_BUSY_PAUSE_S)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
