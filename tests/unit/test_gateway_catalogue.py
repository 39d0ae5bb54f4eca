"""What the gateway makes of what Triton says about its models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import aclosing

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ofa.tasks import TASKS, Task
from ofa_server.gateway import catalogue
from ofa_server.gateway.catalogue import Catalogue, ServedModel, choose_model, task_of
from ofa_server.gateway.errors import ApiError
from tests.unit import tiny

CAPTION = (["image", "num_captions"], ["captions", "scores"])
VQA = (["image", "text"], ["answers", "scores"])


class Index(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A Triton of which only the list of models works.

    Attributes:
        models: by name: state, platform, inputs and outputs.
        num_described: how often a model was asked about.
    """

    def __init__(self) -> None:
        self.models: dict[str, tuple[str, str, list[str], list[str]]] = {}
        self.ready = True
        self.num_described = 0

    def RepositoryIndex(  # noqa: N802 - the names are the protocol's
        self, request: object, context: object
    ) -> service_pb2.RepositoryIndexResponse:
        response = service_pb2.RepositoryIndexResponse()
        for name, (state, *_) in self.models.items():
            response.models.add(name=name, version="1", state=state)
        return response

    def ModelMetadata(  # noqa: N802
        self, request: service_pb2.ModelMetadataRequest, context: object
    ) -> service_pb2.ModelMetadataResponse:
        self.num_described += 1
        _, platform, inputs, outputs = self.models[request.name]
        response = service_pb2.ModelMetadataResponse(name=request.name, platform=platform)
        for tensor in inputs:
            response.inputs.add(name=tensor)
        for tensor in outputs:
            response.outputs.add(name=tensor)
        return response

    def ServerReady(  # noqa: N802
        self, request: object, context: object
    ) -> service_pb2.ServerReadyResponse:
        return service_pb2.ServerReadyResponse(ready=self.ready)


@pytest.fixture
def index() -> Iterator[Index]:
    with futures.ThreadPoolExecutor(max_workers=2) as workers:
        server = grpc.server(workers)
        index = Index()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(index, server)
        index.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield index
        server.stop(grace=None).wait(timeout=5)


@pytest.fixture(autouse=True)
def never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_FRESH_S", -1.0)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.ensemble)
def test_a_task_is_known_by_its_tensors(task: type[Task]) -> None:
    for search in {task.search("generation"), task.search("traverse")}:
        tensors = task.tensors_for(tiny.make_settings(task, search=search))
        found = task_of(
            (spec.name for spec in tensors.request), (spec.name for spec in tensors.answer)
        )
        assert found == task.ensemble


def test_what_is_ready_and_public_and_ours_is_listed(index: Index) -> None:
    index.models = {
        "vqa": ("READY", "ensemble", *VQA),
        "mine_zh": ("READY", "ensemble", *CAPTION),
        "caption_postprocess": ("READY", "", *CAPTION),
        "broken": ("UNAVAILABLE", "ensemble", *CAPTION),
        "resnet": ("READY", "ensemble", ["data"], ["labels"]),
    }

    async def listed() -> Sequence[ServedModel]:
        async with aclosing(Catalogue([index.address])) as models:
            first = await models.models()
            num_described = index.num_described
            assert await models.models() == first
            assert index.num_described == num_described, "what is known is not asked for again"
            index.models["vqa"] = ("UNAVAILABLE", "ensemble", *VQA)
            assert [model.name for model in await models.models()] == ["mine_zh"]
            index.models["vqa"] = ("READY", "ensemble", *CAPTION)
            assert [model.task for model in await models.models()] == ["caption"] * 2
            return first

    first = asyncio.run(listed())
    assert [(model.name, model.task, model.language) for model in first] == [
        ("mine_zh", "caption", "zh"),
        ("vqa", "vqa", "en"),
    ]


def test_a_server_that_does_not_answer_is_passed_over(index: Index) -> None:
    index.models = {"vqa": ("READY", "ensemble", *VQA)}

    async def scenario() -> None:
        # Nobody can listen on port 0.
        async with aclosing(Catalogue(["127.0.0.1:0", index.address])) as models:
            assert [model.name for model in await models.models()] == ["vqa"]
            assert await models.is_ready()
            index.ready = False
            assert not await models.is_ready()
        async with aclosing(Catalogue(["127.0.0.1:0"])) as models:
            assert not await models.is_ready()
            with pytest.raises(ApiError) as caught:
                await models.models()
            assert caught.value.code == "unavailable"

    asyncio.run(scenario())


def test_the_model_that_is_named_for_its_task_comes_first() -> None:
    served = [ServedModel(name, "caption", 0) for name in ("a", "caption", "caption_zh", "z")]
    assert choose_model(served, {"caption"}).name == "caption"
    assert choose_model(served, {"caption"}, language="zh").name == "caption_zh"
    assert choose_model(served[:1], {"caption"}, language="zh").name == "a"
    assert choose_model(served, {"caption"}, "z").name == "z"
