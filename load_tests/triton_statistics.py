"""Triton's own times: what each model did between two readings of a server's statistics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import tritonclient.grpc
from tritonclient.utils import InferenceServerException


class ModelStatistics(NamedTuple):
    """What one model did: since its server started, or between two readings.

    The times are sums over the answered requests, in nanoseconds. A request that shared an
    execution counts the whole execution.
    """

    num_requests: int = 0
    num_failures: int = 0
    num_executions: int = 0
    total: int = 0
    queue: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0


def read_statistics(server: str) -> dict[str, ModelStatistics]:
    """Return what each model, by its name, did since the server at HOST:PORT started.

    Raises:
        tritonclient.utils.InferenceServerException: the server does not answer.
    """
    with tritonclient.grpc.InferenceServerClient(server) as client:
        models = client.get_inference_statistics(client_timeout=10).model_stats
    readings: dict[str, ModelStatistics] = {}
    for model in models:
        times = model.inference_stats
        version = ModelStatistics(
            num_requests=times.success.count,
            num_failures=times.fail.count,
            num_executions=model.execution_count,
            total=times.success.ns,
            queue=times.queue.ns,
            compute_input=times.compute_input.ns,
            compute_infer=times.compute_infer.ns,
            compute_output=times.compute_output.ns,
        )
        _add(readings, model.name, version)
    return readings


def _add(readings: dict[str, ModelStatistics], name: str, statistics: ModelStatistics) -> None:
    others = readings.get(name, ModelStatistics())
    readings[name] = ModelStatistics(
        *(ours + theirs for ours, theirs in zip(statistics, others, strict=True))
    )


class Reading(NamedTuple):
    """What all servers together had done at a time, in seconds since 1970."""

    time: float
    models: dict[str, ModelStatistics]


class Watch:
    """Reads the statistics of servers once a second, for as long as its block lasts.

    Args:
        servers: HOST:PORT of each.
        on_reading: called with the readings after each.

    Attributes:
        readings: in order; the first is from before the block, the last from after it. One at
            which a server did not answer is left out.
    """

    def __init__(
        self, servers: Sequence[str], on_reading: Callable[[Sequence[Reading]], None]
    ) -> None:
        self._servers = servers
        self._on_reading = on_reading
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.readings: list[Reading] = []

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self._read()

    def _read(self) -> None:
        models: dict[str, ModelStatistics] = {}
        try:
            for server in self._servers:
                for name, statistics in read_statistics(server).items():
                    _add(models, name, statistics)
        except InferenceServerException:
            return
        self.readings.append(Reading(time.time(), models))
        self._on_reading(self.readings)


def between(readings: Sequence[Reading], start: float, end: float) -> dict[str, ModelStatistics]:
    """Return what each model did between two times, by the readings that are nearest to them."""
    if not readings:
        return {}
    first, last = (
        min(readings, key=lambda reading: abs(reading.time - moment)) for moment in (start, end)
    )
    return subtract(last.models, first.models)


#: What the names of an ensemble's members end on, in the order in which a request passes them.
MEMBERS = ("preprocess", "generator", "postprocess")


class Share(NamedTuple):
    """Where the requests of an ensemble spent their time in the server: means, in milliseconds.

    Attributes:
        total_ms: from the server's first to its last.
        queue_ms: waiting, for any of the members.
        compute_ms: in any of them, the transfer of tensors counted; a request that shared an
            execution counts the whole execution.
        infer_ms: of that, in the generator itself.
        batch: rows that the generator got at once.
    """

    total_ms: float
    queue_ms: float
    compute_ms: float
    infer_ms: float
    batch: float


def share_of(ensemble: str, models: Mapping[str, ModelStatistics]) -> Share | None:
    """Return where an ensemble's requests were; None if it answered none."""
    whole = models.get(ensemble, ModelStatistics())
    members = [models.get(f"{ensemble}_{name}", ModelStatistics()) for name in MEMBERS]
    generator = members[1]
    if not whole.num_requests or not generator.num_executions:
        return None
    return Share(
        total_ms=_mean_ms([whole.total], whole),
        queue_ms=sum(_mean_ms([member.queue], member) for member in members),
        compute_ms=sum(_mean_ms(member[-3:], member) for member in members),
        infer_ms=_mean_ms([generator.compute_infer], generator),
        batch=generator.num_requests / generator.num_executions,
    )


def _mean_ms(times: Iterable[int], model: ModelStatistics) -> float:
    return sum(times) / max(model.num_requests, 1) / 1e6


def subtract(
    after: Mapping[str, ModelStatistics], before: Mapping[str, ModelStatistics]
) -> dict[str, ModelStatistics]:
    """Return what each model did between two readings; models that did nothing are left out."""
    differences = {
        name: ModelStatistics(
            *(
                new - old
                for new, old in zip(model, before.get(name, ModelStatistics()), strict=True)
            )
        )
        for name, model in after.items()
    }
    return {name: model for name, model in differences.items() if any(model)}


def format_table(models: Mapping[str, ModelStatistics]) -> str:
    """Return a table with one line a model and, in milliseconds, the means of a request's times."""
    width = max([len("model"), *map(len, models)])
    columns = (
        "requests",
        "failures",
        "executions",
        "batch",
        "total",
        "queue",
        "in",
        "infer",
        "out",
    )
    lines = [f"{'model':{width}}" + "".join(f"{column:>11}" for column in columns)]
    for name, model in models.items():
        # An ensemble executes nothing itself, and a model that only failed has no times.
        batch = f"{model.num_requests / model.num_executions:.2f}" if model.num_executions else "-"
        times = (
            f"{time / model.num_requests / 1e6:.2f}" if model.num_requests else "-"
            for time in model[3:]
        )
        counts = (model.num_requests, model.num_failures, model.num_executions)
        lines.append(
            f"{name:{width}}" + "".join(f"{cell:>11}" for cell in (*counts, batch, *times))
        )
    return "\n".join(lines)
