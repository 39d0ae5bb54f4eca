"""What a model of Triton's Python backend sees of it, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Tensor:
    def __init__(self, name: str, value: np.ndarray[Any, Any]) -> None:
        self._name, self._value = name, value

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self._value


class TritonError:
    INTERNAL, INVALID_ARG, UNSUPPORTED, CANCELLED = (
        "INTERNAL",
        "INVALID_ARG",
        "UNSUPPORTED",
        "CANCELLED",
    )

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class TritonModelException(Exception):  # noqa: N818 - Triton's name
    pass


class Request:
    def __init__(
        self,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        wanted: list[str] | None = None,
        *,
        cancelled: bool = False,
        request_id: str = "",
    ) -> None:
        self._id = request_id
        self._tensors = [Tensor(name, value) for name, value in inputs.items()]
        self._wanted, self._cancelled = wanted, cancelled

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def requested_output_names(self) -> list[str]:
        return self._wanted or []

    def request_id(self) -> str:
        return self._id

    def is_cancelled(self) -> bool:
        return self._cancelled


class Response:
    def __init__(
        self, tensors: list[Tensor] | None = None, error: TritonError | None = None
    ) -> None:
        self.outputs = {tensor.name(): tensor.as_numpy() for tensor in tensors or []}
        self.error = error


class Metric:
    def __init__(self) -> None:
        self.total, self.values = 0.0, list[float]()

    def increment(self, amount: float) -> None:
        self.total += amount

    def set(self, value: float) -> None:
        self.total = value

    def observe(self, value: float) -> None:
        self.values.append(value)


class MetricFamily:
    """As Triton has it; what was registered is in `metrics`, by the family's name and labels."""

    COUNTER, GAUGE, HISTOGRAM = "COUNTER", "GAUGE", "HISTOGRAM"
    metrics: dict[str, dict[frozenset[tuple[str, str]], Metric]]

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description
        assert name.endswith("_total") == (kind == self.COUNTER)
        self._ours = self.metrics.setdefault(name, {})

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str], buckets: list[float] | None = None
    ) -> Metric:
        assert buckets is None or buckets == sorted(buckets)
        return self._ours.setdefault(frozenset(labels.items()), Metric())


def make_pb_utils(model_dir: Path) -> ModuleType:
    """The module `triton_python_backend_utils` for a model in `model_dir`; it keeps its log."""

    def get_input_tensor_by_name(request: Request, name: str) -> Tensor:
        return next(tensor for tensor in request.inputs() if tensor.name() == name)

    module = ModuleType("triton_python_backend_utils")
    log: list[str] = []
    metrics: dict[str, dict[frozenset[tuple[str, str]], Metric]] = {}
    module.__dict__.update(
        Tensor=Tensor,
        TritonError=TritonError,
        TritonModelException=TritonModelException,
        ModelConfig=object,
        InferenceResponse=Response,
        Logger=SimpleNamespace(log_error=log.append, log_info=log.append),
        MetricFamily=type("MetricFamily", (MetricFamily,), {"metrics": metrics}),
        metrics=metrics,
        get_input_tensor_by_name=get_input_tensor_by_name,
        get_model_dir=lambda: str(model_dir),
        log=log,
    )
    return module
