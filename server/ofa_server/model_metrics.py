"""Our own figures on Triton's metrics port: how requests end, what they cost, what is served.

Telling Triton one figure wakes another process and lasts up to 0.15 ms. So a request only adds to
numbers of this process, and a thread tells Triton once a second what was added. With `adapters` the
only module that touches `pb_utils`. docs/observability.md lists the figures.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from ofa.errors import (
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    InvalidTextError,
    RequestError,
)
from ofa.tasks.task import STAGES

#: Seconds until the metrics port shows what a request has added.
_INTERVAL_S = 1.0
#: Upper bounds of answers in tokens; captions have about ten.
_LENGTH_BOUNDS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)
#: Labels for the kinds of refusal, a class before its base.
_REFUSALS: dict[type[RequestError], str] = {
    ImageTooLargeError: "image_too_large",
    InvalidImageError: "unreadable_image",
    InvalidTextError: "invalid_text",
    InvalidOptionError: "invalid_option",
    RequestError: "invalid_request",
}
_IDENTITY = "identity.json"
_IDENTITY_LABELS = ("task", "language", "checkpoint", "weights", "precision", "device", "torch")
#: The stage before the library's own: waiting until the generator can use another row.
_ADMISSION = "admission"


class ModelMetrics:
    """The figures of one member's process. Triton adds up those of all processes of a model.

    Every label's values are from lists of our own, never from a request. All figures carry `model`,
    the ensemble's name, and `version`.
    """

    def __init__(self, arguments: Mapping[str, str]) -> None:
        """Starts the figures at 0.

        Args:
            arguments: what Triton gives to `initialize`.
        """
        ensemble, _, self._member = arguments["model_name"].rpartition("_")
        self._labels = {
            "model": ensemble or self._member,
            "version": arguments["model_version"],
        }
        self._kept: list[Any] = []
        outcomes = [
            ("ok", "none"),
            *(("refused", reason) for reason in _REFUSALS.values()),
            ("failed", self._member),
            ("cancelled", self._member),
        ]
        requests = self._family("ofa_requests_total", "Requests by how they ended", "COUNTER")
        self._requests = {
            (outcome, reason): _Sum(self._metric(requests, outcome=outcome, reason=reason))
            for outcome, reason in outcomes
        }
        self._numbers: list[_Sum | _Values] = list(self._requests.values())
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tell_triton, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tells Triton what is left, then takes the figures back: the model is being unloaded."""
        self._closing.set()
        self._thread.join()
        # Triton forgets a figure with the last reference to it; if the process just ends, it stays.
        vars(self).clear()

    def refused(self, error: RequestError) -> None:
        """A request was its sender's fault."""
        reason = next(name for kind, name in _REFUSALS.items() if isinstance(error, kind))
        self._requests["refused", reason].add(1)

    def failed(self) -> None:
        """A request met a fault of ours."""
        self._requests["failed", self._member].add(1)

    def cancelled(self) -> None:
        """A request's sender had gone."""
        self._requests["cancelled", self._member].add(1)

    def _family(self, name: str, description: str, kind: str) -> Any:  # noqa: ANN401
        family = pb_utils.MetricFamily(
            name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind)
        )
        self._kept.append(family)
        return family

    def _metric(self, family: Any, **labels: str) -> Any:  # noqa: ANN401
        metric = family.Metric(labels=self._labels | labels)
        self._kept.append(metric)
        return metric

    def _tell_triton(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            self._tell_once()
        self._tell_once()

    def _tell_once(self) -> None:
        try:
            for number in self._numbers:
                number.tell()
        except Exception as error:  # noqa: BLE001 - a second's figures are lost, not all later ones
            pb_utils.Logger.log_error(f"the figures of {self._member} were not taken: {error}")


class PreprocessMetrics(ModelMetrics):
    """The figures of preprocess: also what its stages cost, and which checkpoint is served."""

    def __init__(self, arguments: Mapping[str, str], version: Path) -> None:
        """Starts the figures.

        Args:
            arguments: what Triton gives to `initialize`.
            version: folder of the model's version.
        """
        super().__init__(arguments)
        seconds = self._family(
            "ofa_preprocess_stage_seconds_total", "Seconds spent in a stage", "COUNTER"
        )
        runs = self._family("ofa_preprocess_stage_runs_total", "Runs of a stage", "COUNTER")
        self._stages = {
            stage: (_Sum(self._metric(seconds, stage=stage)), _Sum(self._metric(runs, stage=stage)))
            for stage in (_ADMISSION, *STAGES)
        }
        self._numbers += [number for pair in self._stages.values() for number in pair]
        info = self._family("ofa_model_info", "What is served; always 1", "GAUGE")
        self._metric(info, **_read_identity(version)).set(1)
        loaded = self._family(
            "ofa_model_load_timestamp_seconds", "Unix time at which it was loaded", "GAUGE"
        )
        self._metric(loaded).set(time.time())

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Times the wait inside the block."""
        start = time.perf_counter()
        yield
        self.add_stage(_ADMISSION, time.perf_counter() - start)

    def add_stage(self, stage: str, seconds: float) -> None:
        """One of `ofa.tasks.task.STAGES` has taken so long."""
        spent, runs = self._stages[stage]
        spent.add(seconds)
        runs.add(1)


class PostprocessMetrics(ModelMetrics):
    """The figures of postprocess: also how long answers are."""

    def __init__(self, arguments: Mapping[str, str]) -> None:
        super().__init__(arguments)
        lengths = self._family("ofa_answer_tokens", "Tokens of the best answer", "HISTOGRAM")
        histogram = lengths.Metric(labels=self._labels, buckets=list(_LENGTH_BOUNDS))
        self._kept.append(histogram)
        self._lengths = _Values(histogram)
        self._numbers.append(self._lengths)

    def answered(self, num_tokens: int | None) -> None:
        """A request was answered; None if the answer is not made of tokens."""
        self._requests["ok", "none"].add(1)
        if num_tokens is not None:
            self._lengths.add(num_tokens)


class _Sum:
    """What a counter has to grow by."""

    def __init__(self, metric: Any) -> None:  # noqa: ANN401
        self._metric = metric
        self._lock = threading.Lock()
        self._added = 0.0

    def add(self, amount: float) -> None:
        with self._lock:
            self._added += amount

    def tell(self) -> None:
        with self._lock:
            added, self._added = self._added, 0.0
        if added:
            self._metric.increment(added)


class _Values:
    """What a histogram has to be told."""

    def __init__(self, metric: Any) -> None:  # noqa: ANN401
        self._metric = metric
        self._lock = threading.Lock()
        self._added = Counter[int]()

    def add(self, value: int) -> None:
        with self._lock:
            self._added[value] += 1

    def tell(self) -> None:
        with self._lock:
            added, self._added = self._added, Counter()
        for value in added.elements():
            self._metric.observe(float(value))


def _read_identity(version: Path) -> dict[str, str]:
    """Labels that tell checkpoints apart; "unknown" where an earlier export did not say."""
    file = version / _IDENTITY
    told = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return {name: told.get(name, "unknown") for name in _IDENTITY_LABELS}
