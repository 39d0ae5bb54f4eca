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
    ) -> None:
        self._tensors = [Tensor(name, value) for name, value in inputs.items()]
        self._wanted, self._cancelled = wanted, cancelled

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def requested_output_names(self) -> list[str]:
        return self._wanted or []

    def is_cancelled(self) -> bool:
        return self._cancelled


class Response:
    def __init__(
        self, tensors: list[Tensor] | None = None, error: TritonError | None = None
    ) -> None:
        self.outputs = {tensor.name(): tensor.as_numpy() for tensor in tensors or []}
        self.error = error


def make_pb_utils(model_dir: Path) -> ModuleType:
    """The module `triton_python_backend_utils` for a model in `model_dir`; it keeps its log."""

    def get_input_tensor_by_name(request: Request, name: str) -> Tensor:
        return next(tensor for tensor in request.inputs() if tensor.name() == name)

    module = ModuleType("triton_python_backend_utils")
    log: list[str] = []
    module.__dict__.update(
        Tensor=Tensor,
        TritonError=TritonError,
        TritonModelException=TritonModelException,
        ModelConfig=object,
        InferenceResponse=Response,
        Logger=SimpleNamespace(log_error=log.append),
        get_input_tensor_by_name=get_input_tensor_by_name,
        get_model_dir=lambda: str(model_dir),
        log=log,
    )
    return module
