from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.unit.scripted_triton import ScriptedTriton


@pytest.fixture
def scripted_triton() -> Iterator[ScriptedTriton]:
    """A scripted server on a free port of the loopback interface."""
    with futures.ThreadPoolExecutor(max_workers=8) as workers:
        server = grpc.server(workers, options=[("grpc.max_receive_message_length", -1)])
        triton = ScriptedTriton()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        triton.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield triton
        server.stop(grace=None).wait(timeout=5)
