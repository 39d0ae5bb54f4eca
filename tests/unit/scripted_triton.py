"""A small gRPC server that speaks Triton's protocol and answers as a test tells it to."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

Tensors = dict[str, np.ndarray]


def bytes_tensor(*texts: str) -> np.ndarray:
    """Texts as the list of an answer."""
    return np.array([[text.encode() for text in texts]], dtype=np.object_)


def texts_answer(
    results: str, texts: list[str], scores: list[float], token_log_probs: list[list[float]]
) -> Tensors:
    """The tensors that an ensemble answers with whose list of texts is called `results`."""
    return {
        results: bytes_tensor(*texts),
        "scores": np.array([scores], dtype=np.float32),
        "token_log_probs": np.array([token_log_probs], dtype=np.float32),
    }


def captions_answer(
    texts: list[str], scores: list[float], token_log_probs: list[list[float]]
) -> Tensors:
    """The tensors that the captioning ensemble answers with."""
    return texts_answer("captions", texts, scores, token_log_probs)


CAPTIONS = captions_answer(["a red apple"], [-0.5], [[-0.25, -0.75]])

#: Has what the answer of every task has that is about pictures and is not about labels.
EVERY_ANSWER: Tensors = {
    "captions": bytes_tensor("a red apple"),
    "answers": bytes_tensor("two"),
    "boxes": np.array([[[1.5, 2, 30, 40]]], np.float32),
    "scores": np.array([[-0.5]], np.float32),
    "token_log_probs": np.full((1, 1, 4), -0.5, np.float32),
}


class ScriptedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Keeps the requests it gets; `answer` makes the reply, or ends the call by its context."""

    def __init__(self) -> None:
        self.address = ""
        self.models: list[str] = []
        self.requests: list[Tensors] = []
        self.dtypes: list[dict[str, str]] = []
        self.messages: list[service_pb2.ModelInferRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.answer: Callable[[Tensors, grpc.ServicerContext], Tensors] = lambda *_: CAPTIONS

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """Answer every request with this status from now on."""
        self.answer = lambda _, context: context.abort(code, details)

    def ModelInfer(  # noqa: N802 - the name is the protocol's
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        tensors = read_request(request)
        self.models.append(request.model_name)
        self.requests.append(tensors)
        self.dtypes.append({tensor.name: tensor.datatype for tensor in request.inputs})
        self.messages.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return make_response(self.answer(tensors, context), request.id)


class Held:
    """An answer that is held back until the server sees that the call is over."""

    def __init__(self, triton: ScriptedTriton) -> None:
        self.arrived, self.ended = threading.Event(), threading.Event()
        triton.answer = self

    def __call__(self, _: Tensors, context: grpc.ServicerContext) -> Tensors:
        context.add_callback(self.ended.set)
        self.arrived.set()
        assert self.ended.wait(timeout=30)
        return CAPTIONS


def read_request(request: service_pb2.ModelInferRequest) -> Tensors:
    """The tensors of a request by name."""
    tensors = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        flat = (
            deserialize_bytes_tensor(raw)
            if tensor.datatype == "BYTES"
            else np.frombuffer(raw, triton_to_np_dtype(tensor.datatype))
        )
        tensors[tensor.name] = flat.reshape(tuple(tensor.shape))
    return tensors


def make_response(outputs: Tensors, request_id: str = "") -> service_pb2.ModelInferResponse:
    """The message that carries the tensors."""
    response = service_pb2.ModelInferResponse(id=request_id, model_version="7")
    for name, tensor in outputs.items():
        datatype = np_to_triton_dtype(tensor.dtype)
        response.outputs.add(name=name, datatype=datatype, shape=tensor.shape)
        is_bytes = datatype == "BYTES" and tensor.size > 0
        raw = serialize_byte_tensor(tensor).item() if is_bytes else tensor.tobytes()
        response.raw_output_contents.append(raw)
    return response


@contextmanager
def scripted_server(
    credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> Iterator[ScriptedTriton]:
    """A scripted server on a free port of the loopback interface, with TLS if asked for."""
    triton = ScriptedTriton()
    with futures.ThreadPoolExecutor(max_workers=8) as workers:
        server = grpc.server(workers, options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
        # Of the standard health check: SERVING, in protobuf.
        check = grpc.unary_unary_rpc_method_handler(lambda *_: b"\x08\x01")
        health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        server.add_generic_rpc_handlers((health,))
        triton.address = f"127.0.0.1:{port}"
        server.start()
        try:
            yield triton
        finally:
            server.stop(grace=None).wait(timeout=5)


@pytest.fixture
def scripted_triton() -> Iterator[ScriptedTriton]:
    """A scripted server on a free port of the loopback interface."""
    with scripted_server() as triton:
        yield triton
