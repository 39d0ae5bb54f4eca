"""Ready means: Triton says so, and every ensemble has answered a request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    np_to_triton_dtype,
)

from ofa_server.errors import ServerError
from ofa_server.model_configs import ModelConfig, numpy_dtype
from ofa_server.triton_process import TritonProcess
from ofa_server.warmup import read_warmup_files

_POLL_INTERVAL_S = 0.1
#: Triton's words.
_QUEUE_IS_FULL = "Exceeds maximum queue size"


def wait_until_ready(
    triton: TritonProcess,
    address: str,
    warmups: Mapping[str, list[grpcclient.InferInput]],
    deadline_s: float,
) -> dict[int, str]:
    """Waits for every model, then for an answer of every ensemble.

    Args:
        triton: the process, which may end meanwhile.
        address: HOST:PORT of its gRPC port.
        warmups: the request that each ensemble is tried with, by name.
        deadline_s: seconds that all of this may take.

    Returns:
        Model instances by the process ids of their stubs.

    Raises:
        ServerError: Triton has ended, an ensemble has failed, or the time is over.
    """
    deadline = time.monotonic() + deadline_s
    # A proxy that the environment names is not meant for our own server.
    no_proxy = [("grpc.enable_http_proxy", 0)]
    with grpcclient.InferenceServerClient(address, channel_args=no_proxy) as client:
        while not _is_ready(client):
            if triton.exit_status is not None:
                raise ServerError(
                    f"Triton ended with status {triton.exit_status} before it was ready; "
                    "see its log"
                )
            if time.monotonic() > deadline:
                raise ServerError(f"Triton was not ready within {deadline_s:g} s; see its log")
            time.sleep(_POLL_INTERVAL_S)
        stubs = triton.stubs()
        for name, inputs in warmups.items():
            _try_ensemble(client, name, inputs, deadline)
    return stubs


def _try_ensemble(
    client: grpcclient.InferenceServerClient,
    name: str,
    inputs: list[grpcclient.InferInput],
    deadline: float,
) -> None:
    while True:
        try:
            client.infer(name, inputs, client_timeout=max(1.0, deadline - time.monotonic()))
        except InferenceServerException as error:
            reason = error.message().splitlines()[0]
            # Clients that did not wait for the server to be ready keep its queue full: busy, not
            # broken.
            if _QUEUE_IS_FULL not in reason or time.monotonic() > deadline:
                raise ServerError(f"the warm-up of {name} failed: {reason}") from error
            time.sleep(_POLL_INTERVAL_S)
        else:
            return


def _is_ready(client: grpcclient.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=1.0))
    except InferenceServerException:
        return False


def read_warmup(model: Path, config: ModelConfig) -> list[grpcclient.InferInput]:
    """Reads the request that an ensemble is tried with.

    Args:
        model: folder of the ensemble.
        config: its configuration.

    Raises:
        ServerError: there is none, or it has an input that the ensemble has not.
    """
    dtypes = {tensor.name: numpy_dtype(tensor.data_type) for tensor in config.input}
    dims = {tensor.name: list(tensor.dims) for tensor in config.input}
    inputs = []
    for name, raw in read_warmup_files(model).items():
        if name not in dtypes:
            raise ServerError(f"{model.name} has a warm-up for {name}, which is none of its inputs")
        is_text = dtypes[name] == np.object_
        values = deserialize_bytes_tensor(raw) if is_text else np.frombuffer(raw, dtypes[name])
        tensor = values.reshape([1, *dims[name]])
        inputs.append(grpcclient.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype)))
        inputs[-1].set_data_from_numpy(tensor)
    if not inputs:
        raise ServerError(f"{model} has no warm-up to try it with; run `ofa export` again")
    return inputs
