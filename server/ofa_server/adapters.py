"""Between Triton's requests and the library: with `model_metrics` all that touches `pb_utils`.

The `model.py` of preprocess and postprocess hand one method of their task to `answer_each`.
Importable inside Triton's Python stub only, which provides `triton_python_backend_utils`.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ofa.errors import RequestError
from ofa.tensors import Tensors
from ofa_server.model_metrics import ModelMetrics

#: Of a request's id in the log; the client's own ids have 32 characters.
_MAX_ID_LENGTH = 64

# What Pillow has to say of a broken picture goes to its sender. As warnings it would fill the log,
# and Python keeps every warning of another wording for as long as the process lives.
warnings.filterwarnings("ignore", module=r"PIL\.")


def version_directory() -> Path:
    """Folder of the model version that this process serves, where `task.json` lies."""
    return Path(pb_utils.get_model_dir())


def answer_each(
    requests: Sequence[Any], answer: Callable[[Tensors], Tensors], metrics: ModelMetrics
) -> list[Any]:
    """Answers requests one by one, so that one that fails harms no other.

    Args:
        requests: as Triton hands them to `execute`, each of batch size 1.
        answer: tensors of a request to tensors of its response.
        metrics: told of every request that gets no answer, and why.

    Returns:
        A response for each request, in order. A `RequestError` becomes INVALID_ARGUMENT with its
        message; any other exception is logged with its traceback and becomes INTERNAL, without it.
    """
    return [_answer_one(request, answer, metrics) for request in requests]


def _answer_one(
    request: Any,  # noqa: ANN401
    answer: Callable[[Tensors], Tensors],
    metrics: ModelMetrics,
) -> Any:  # noqa: ANN401
    if request.is_cancelled():
        metrics.cancelled()
        return _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
    try:
        outputs = answer({tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()})
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value[np.newaxis]) for name, value in outputs.items()]
        )
    except RequestError as error:
        metrics.refused(error)
        pb_utils.Logger.log_info(f"{_name(request)} was refused: {error}")
        return _error(str(error), pb_utils.TritonError.INVALID_ARG)
    except Exception:  # noqa: BLE001 - whatever goes wrong fails its own request only
        metrics.failed()
        pb_utils.Logger.log_error(f"{_name(request)} has failed: {traceback.format_exc()}")
        return _error("internal error; the server's log says more", pb_utils.TritonError.INTERNAL)


def _name(request: Any) -> str:  # noqa: ANN401
    """A request in a line of the log, by the id that its sender chose."""
    return f"request {request.request_id()[:_MAX_ID_LENGTH]!r}"


def _error(message: str, code: int) -> Any:  # noqa: ANN401
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
