"""One route for each task: the verbs of the client over HTTP."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from ofa_server.gateway import answers, requests
from ofa_server.gateway.catalogue import choose_model
from ofa_server.gateway.errors import REQUEST_ID
from ofa_server.gateway.gateway import Gateway
from ofa_server.gateway.openapi import form_or_json_body


@dataclass(frozen=True)
class TaskRoute:
    """How a task is asked over HTTP.

    Attributes:
        task: by the name that an export of it has by default.
        path: the verb's noun, in the plural.
        verb: the method of the client.
        request: fields of the body, by the names of the verb's arguments.
        answer: what comes back.
        summary: for the OpenAPI page.
    """

    task: str
    path: str
    verb: str
    request: type[requests.TaskRequest]
    answer: type[answers.TaskAnswer]
    summary: str


ROUTES = (
    TaskRoute(
        "caption",
        "/v1/captions",
        "caption",
        requests.CaptionRequest,
        answers.CaptionsAnswer,
        "Caption a picture",
    ),
    TaskRoute(
        "vqa",
        "/v1/answers",
        "answer",
        requests.AnswerRequest,
        answers.AnswersAnswer,
        "Answer a question about a picture",
    ),
    TaskRoute(
        "grounding",
        "/v1/groundings",
        "ground",
        requests.GroundRequest,
        answers.BoxesAnswer,
        "Find what a text names",
    ),
    TaskRoute(
        "entailment",
        "/v1/entailments",
        "entail",
        requests.EntailRequest,
        answers.LabelsAnswer,
        "Say whether a picture implies a statement",
    ),
    TaskRoute(
        "classification",
        "/v1/classifications",
        "classify",
        requests.ClassifyRequest,
        answers.LabelsAnswer,
        "Say what a picture shows",
    ),
    TaskRoute(
        "ocr",
        "/v1/readings",
        "read_text",
        requests.ReadTextRequest,
        answers.TextsAnswer,
        "Read what is written in a picture",
    ),
    TaskRoute(
        "summarization",
        "/v1/summaries",
        "summarize",
        requests.SummarizeRequest,
        answers.TextsAnswer,
        "Summarize an article",
    ),
    TaskRoute(
        "text_classification",
        "/v1/text-classifications",
        "classify_text",
        requests.ClassifyTextRequest,
        answers.LabelsAnswer,
        "Say how two texts relate",
    ),
    TaskRoute(
        "generate",
        "/v1/generations",
        "generate",
        requests.GenerateRequest,
        answers.TextsAnswer,
        "Ask a pretrained checkpoint any prompt",
    ),
    TaskRoute(
        "text_to_image",
        "/v1/drawings",
        "draw",
        requests.DrawRequest,
        answers.ImagesAnswer,
        "Draw pictures to a text",
    ),
)


def task_router(gateway: Gateway) -> APIRouter:
    """Returns the routes of all tasks."""
    router = APIRouter(tags=["tasks"])
    for route in ROUTES:
        router.add_api_route(
            route.path,
            _endpoint(gateway, route),
            methods=["POST"],
            response_model=route.answer,
            summary=route.summary,
            description=route.request.__doc__,
            name=route.verb,
            openapi_extra=form_or_json_body(route.request),
        )
    return router


def _endpoint(
    gateway: Gateway, route: TaskRoute
) -> Callable[[Request, Response], Awaitable[answers.TaskAnswer]]:
    async def ask(request: Request, response: Response) -> answers.TaskAnswer:
        with gateway.place() as deadline:
            body = await gateway.read(request, route.request, deadline)
            start = time.monotonic()
            model = choose_model(await gateway.catalogue.models(), {route.task}, body.model)
            arguments = body.model_dump(exclude={"model"}, exclude_none=True)
            result = await gateway.ask(request, route.verb, arguments, model.name, deadline)
            response.headers[REQUEST_ID] = result.call.request_id
            return answers.to_answer(result, model.name, time.monotonic() - start)

    return ask
