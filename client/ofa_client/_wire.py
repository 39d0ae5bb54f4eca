"""Between numpy and Triton's messages. tritonclient has no types, so they are Any in here."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from ofa_client._errors import ServerError
from ofa_client._tensors import Tensors


def to_message(model: str, request_id: str, inputs: Tensors) -> Any:  # noqa: ANN401
    """Return the ModelInferRequest of the inputs, each [1, 1]; bytes as object arrays."""
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, tensor in inputs.items():
        datatype = np_to_triton_dtype(tensor.dtype)
        message.inputs.add(name=name, datatype=datatype, shape=tensor.shape)
        if tensor.dtype == np.object_:
            content = tensor.item()
            message.raw_input_contents.append(struct.pack("<I", len(content)) + content)
        else:
            message.raw_input_contents.append(tensor.tobytes())
    return message


def set_queue_timeout(message: Any, seconds: float) -> None:  # noqa: ANN401
    """Tell the server how long the request may wait in preprocess' queue.

    What comes after is bounded by the deadline of the call.
    """
    message.parameters["timeout"].int64_param = max(1, int(seconds * 1_000_000))


def from_reply(reply: Any) -> Tensors:  # noqa: ANN401
    """Return every tensor of a ModelInferResponse by name.

    Raises:
        ServerError: its bytes do not make the tensors that it announces.
    """
    result = triton.InferResult(reply)
    try:
        return {output.name: result.as_numpy(output.name) for output in reply.outputs}
    except (ValueError, struct.error) as error:
        raise ServerError(f"the answer cannot be read: {error}") from error
