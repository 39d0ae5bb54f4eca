"""One gRPC channel to one Triton server: the only code that touches tritonclient.

tritonclient has no types, so what enters and leaves this module is numpy, numbers and text.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from ofa_client._errors import ServerError
from ofa_client._tensors import Tensors


class StatusError(Exception):
    """A call that ended with a gRPC status other than OK.

    Attributes:
        code: the status code by name, such as "UNAVAILABLE".
        details: the text that came with it.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


class Transport:
    """A channel that connects at the first call. It may be shared between threads."""

    def __init__(self, server: str) -> None:
        self._triton = triton.InferenceServerClient(server)

    def infer(self, model: str, inputs: Tensors, timeout: float) -> Tensors:
        """Run the model once.

        Args:
            model: the model's name in the server's repository.
            inputs: tensors by name; bytes as object arrays.
            timeout: the gRPC deadline in seconds from now; at or below 0 it has passed already.

        Returns:
            Every output tensor by name.

        Raises:
            StatusError: the call failed.
            ServerError: the answer's bytes do not make the tensors that it announces.
        """
        # gRPC takes a deadline that is only just over for one that is still to come.
        if timeout <= 0:
            raise StatusError("DEADLINE_EXCEEDED", "the deadline has passed before the call")
        try:
            result = self._triton.infer(
                model,
                [_infer_input(name, tensor) for name, tensor in inputs.items()],
                client_timeout=timeout,
            )
        except InferenceServerException as error:
            code = str(error.status()).removeprefix("StatusCode.")
            raise StatusError(code, error.message()) from error
        try:
            return {
                output.name: result.as_numpy(output.name)
                for output in result.get_response().outputs
            }
        except (ValueError, struct.error) as error:
            raise ServerError(f"the answer cannot be read: {error}") from error

    def close(self) -> None:
        """Close the channel; calls still running in other threads are cancelled."""
        self._triton.close()


def _infer_input(name: str, tensor: npt.NDArray[Any]) -> triton.InferInput:
    infer_input = triton.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype))
    infer_input.set_data_from_numpy(tensor)
    return infer_input
