"""A small gRPC server that says of its models what a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import NamedTuple

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


class Listed(NamedTuple):
    """A model as Triton lists and describes it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    platform: str = "ensemble"
    is_ready: bool = True


CAPTION = Listed(("image", "num_captions"), ("captions", "scores"))
VQA = Listed(("image", "text"), ("answers", "scores"))


class ListingTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Lists and describes `listed`, by name, and counts how often it described one."""

    def __init__(self) -> None:
        self.address = ""
        self.listed: dict[str, Listed] = {}
        self.ready = True
        self.num_described = 0

    def ModelStatistics(  # noqa: N802 - the names are the protocol's
        self, request: object, context: object
    ) -> service_pb2.ModelStatisticsResponse:
        response = service_pb2.ModelStatisticsResponse()
        for name, model in self.listed.items():
            if model.is_ready:
                response.model_stats.add(name=name, version="1")
        return response

    def ModelMetadata(  # noqa: N802
        self, request: service_pb2.ModelMetadataRequest, context: object
    ) -> service_pb2.ModelMetadataResponse:
        self.num_described += 1
        model = self.listed[request.name]
        response = service_pb2.ModelMetadataResponse(name=request.name, platform=model.platform)
        for tensor in model.inputs:
            response.inputs.add(name=tensor)
        for tensor in model.outputs:
            response.outputs.add(name=tensor)
        return response

    def ServerReady(  # noqa: N802
        self, request: object, context: object
    ) -> service_pb2.ServerReadyResponse:
        return service_pb2.ServerReadyResponse(ready=self.ready)


@contextmanager
def running(triton: ListingTriton) -> Iterator[None]:
    """Lets it serve on a free port of the loopback interface."""
    with futures.ThreadPoolExecutor(max_workers=4) as workers:
        server = grpc.server(workers)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        triton.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait(timeout=5)
