"""Clients that ask a server, each as fast as its answers come."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, quantiles
from typing import NamedTuple

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import np_to_triton_dtype

from benchmarks.common import progress
from load_tests.triton_statistics import ModelStatistics, read_statistics, subtract
from ofa.tensors import Tensors

#: Part of the measured time that goes before it: a new batch size is slow at first.
WARMUP_SHARE = 0.3


class Answer(NamedTuple):
    """What a client got.

    Attributes:
        ended: when, by `time.perf_counter`.
        seconds: that it waited.
    """

    ended: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """What a number of clients saw, and what Triton says of the same time.

    Attributes:
        num_clients: that were waiting for an answer at any time.
        num_requests: that were answered.
        per_second: answers.
        latencies_ms: "mean", "p50", "p90" and "p99".
        triton: by model.
    """

    num_clients: int
    num_requests: int
    per_second: float
    latencies_ms: dict[str, float]
    triton: dict[str, ModelStatistics]


def measure_load(
    server: str, name: str, requests: Sequence[Tensors], num_clients: int, seconds: float
) -> Load:
    """Drive a server with a number of clients; what they get in a warm-up is not counted."""
    progress(f"{num_clients} clients for {seconds:g} s, after a warm-up")
    warm_up = WARMUP_SHARE * seconds
    with ThreadPoolExecutor(1) as pool:
        start = time.perf_counter()
        driving = pool.submit(drive, server, name, requests, num_clients, warm_up + seconds)
        time.sleep(warm_up)
        before = read_statistics(server)
        time.sleep(seconds)
        triton = subtract(read_statistics(server), before)
        answers = sorted(driving.result())
    counted = [each for each in answers if warm_up <= each.ended - start < warm_up + seconds]
    if not counted:
        # They take longer than that.
        counted, seconds = answers, answers[-1].ended - start
    latencies = [each.seconds for each in counted]
    # A single answer has no percentiles.
    percentiles = quantiles((latencies * 2)[: max(2, len(latencies))], n=100, method="inclusive")
    return Load(
        num_clients=num_clients,
        num_requests=len(counted),
        per_second=steady_rate([each.ended for each in counted], seconds),
        latencies_ms={
            "mean": 1000 * mean(latencies),
            **{f"p{p}": 1000 * percentiles[p - 1] for p in (50, 90, 99)},
        },
        triton=triton,
    )


def steady_rate(ends: Sequence[float], seconds: float) -> float:
    """Answers a second, told from when they came.

    Those of a batch come together. So the time is taken from the last answer before the first pause
    to the last of all: from any other a batch too many or too few would be counted, which is much
    where a batch takes seconds. Where the first pause comes late, it is none between batches, and
    all answers and the whole time are taken.

    Args:
        ends: of the answers in seconds, sorted.
        seconds: in which they came.
    """
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    pauses = [index for index, gap in enumerate(gaps) if gap > max(gaps) / 2]
    if pauses:
        first, last = pauses[0], len(ends) - 1
        if 2 * (ends[last] - ends[first]) > seconds:
            return (last - first) / (ends[last] - ends[first])
    return len(ends) / seconds


def drive(
    server: str, name: str, requests: Sequence[Tensors], num_clients: int, seconds: float
) -> list[Answer]:
    """Every answer to clients that send one request after the other.

    Requests that are under way when the time is over are finished and counted.
    """
    inputs = [_infer_inputs(request) for request in requests]
    deadline = time.perf_counter() + seconds

    def run_client(number: int) -> list[Answer]:
        first = number % len(inputs)
        own = itertools.cycle([*inputs[first:], *inputs[:first]])
        answers = []
        with grpcclient.InferenceServerClient(server) as client:
            while (start := time.perf_counter()) < deadline:
                client.infer(name, next(own))
                end = time.perf_counter()
                answers.append(Answer(end, end - start))
        return answers

    with ThreadPoolExecutor(num_clients) as pool:
        return list(itertools.chain.from_iterable(pool.map(run_client, range(num_clients))))


def _infer_inputs(request: Tensors) -> list[grpcclient.InferInput]:
    inputs = []
    for name, tensor in request.items():
        row = tensor[np.newaxis]
        inputs.append(grpcclient.InferInput(name, row.shape, np_to_triton_dtype(row.dtype)))
        inputs[-1].set_data_from_numpy(row)
    return inputs
