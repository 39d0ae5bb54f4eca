"""What the gateway makes of what Triton says about its models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

import pytest

from ofa.tasks import TASKS, Task
from ofa_server.gateway import catalogue
from ofa_server.gateway.catalogue import Catalogue, ServedModel, choose_model, task_of
from ofa_server.gateway.errors import ApiError
from tests.unit import tiny
from tests.unit.listing_triton import CAPTION, VQA, Listed, ListingTriton, running


@pytest.fixture
def triton() -> Iterator[ListingTriton]:
    triton = ListingTriton()
    with running(triton):
        yield triton


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


def test_what_is_ready_and_public_and_ours_is_listed(triton: ListingTriton) -> None:
    triton.listed = {
        "vqa": VQA,
        "mine_zh": CAPTION,
        "caption_postprocess": CAPTION._replace(platform=""),
        "broken": CAPTION._replace(is_ready=False),
        "resnet": Listed(("data",), ("labels",)),
    }

    async def listed() -> Sequence[ServedModel]:
        async with aclosing(Catalogue([triton.address])) as models:
            first = await models.models()
            num_described = triton.num_described
            assert await models.models() == first
            assert triton.num_described == num_described, "what is known is not asked for again"
            triton.listed["vqa"] = VQA._replace(is_ready=False)
            assert [model.name for model in await models.models()] == ["mine_zh"]
            triton.listed["vqa"] = CAPTION
            assert [model.task for model in await models.models()] == ["caption"] * 2
            return first

    first = asyncio.run(listed())
    assert [(model.name, model.task, model.language) for model in first] == [
        ("mine_zh", "caption", "zh"),
        ("vqa", "vqa", "en"),
    ]


def test_a_server_that_does_not_answer_is_passed_over(triton: ListingTriton) -> None:
    triton.listed = {"vqa": VQA}

    async def scenario() -> None:
        # Nobody can listen on port 0.
        async with aclosing(Catalogue(["127.0.0.1:0", triton.address])) as models:
            assert [model.name for model in await models.models()] == ["vqa"]
            assert await models.is_ready()
            triton.ready = False
            assert not await models.is_ready()
        async with aclosing(Catalogue(["127.0.0.1:0"])) as models:
            assert not await models.is_ready()
            with pytest.raises(ApiError) as caught:
                await models.models()
            assert caught.value.code == "unavailable"

    asyncio.run(scenario())


def test_that_nobody_answers_is_not_asked_for_by_every_request(
    triton: ListingTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_FRESH_S", 3600.0)
    num_asked = 0

    async def scenario() -> None:
        async with aclosing(Catalogue([triton.address])) as models:

            async def read() -> None:
                nonlocal num_asked
                num_asked += 1

            monkeypatch.setattr(models, "_read", read)
            outcomes = await asyncio.gather(
                *(models.models() for _ in range(10)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {ApiError}

    asyncio.run(scenario())
    assert num_asked == 1


def test_the_model_that_is_named_for_its_task_comes_first() -> None:
    served = [ServedModel(name, "caption", 0) for name in ("a", "caption", "caption_zh", "z")]
    assert choose_model(served, {"caption"}).name == "caption"
    assert choose_model(served, {"caption"}, language="zh").name == "caption_zh"
    assert choose_model(served[:1], {"caption"}, language="zh").name == "a"
    assert choose_model(served, {"caption"}, "z").name == "z"
