"""Triton's own times: what each model did between two readings of a server's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tritonclient.grpc


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
        others = readings.get(model.name, ModelStatistics())
        readings[model.name] = ModelStatistics(
            *(ours + theirs for ours, theirs in zip(version, others, strict=True))
        )
    return readings


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
