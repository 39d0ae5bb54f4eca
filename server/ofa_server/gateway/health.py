"""Whether the gateway lives, whether it can answer, and with which models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from ofa_server.gateway.catalogue import ServedModel
from ofa_server.gateway.chat import AUTOMATIC, CHAT_ROUTE
from ofa_server.gateway.errors import RETRY_AFTER_S, ApiError
from ofa_server.gateway.gateway import Gateway
from ofa_server.gateway.tasks import ROUTES

_PATHS = {"chat": CHAT_ROUTE} | {route.task: route.path for route in ROUTES}


class Status(BaseModel):
    """An answer to a probe."""

    status: Literal["live", "ready"]


class Model(BaseModel):
    """A model as OpenAI lists it, and what it does.

    Attributes:
        id: its name.
        created: when the gateway first saw it ready, in seconds since 1970.
        task: what it does; `chat` for the one that chooses among others.
        language: `en` or `zh`, by the end of its name.
        path: where it answers.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ofa-triton"] = "ofa-triton"
    task: str
    language: str
    path: str


class ModelList(BaseModel):
    """The models that are ready."""

    object: Literal["list"] = "list"
    data: list[Model]


def health_router(gateway: Gateway) -> APIRouter:
    """Returns the routes of probes and of the list of models."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the gateway lives")
    async def live() -> Status:
        return Status(status="live")

    @router.get("/readyz", summary="Whether the model server and all its models are ready")
    async def ready() -> Status:
        if not (await gateway.catalogue.is_ready() and await gateway.catalogue.models()):
            message = "the model server or one of its models is not ready"
            raise ApiError(503, "not_ready", message, retry_after=RETRY_AFTER_S)
        return Status(status="ready")

    @router.get("/v1/models", summary="The models that are ready")
    async def models() -> ModelList:
        return ModelList(data=_listed(await gateway.catalogue.models()))

    @router.get("/v1/models/{name}", summary="One of the models that are ready")
    async def model(name: str) -> Model:
        for listed in _listed(await gateway.catalogue.models()):
            if listed.id == name:
                return listed
        raise ApiError(404, "model_not_found", f"there is no model {name!r} here")

    return router


def _listed(models: Sequence[ServedModel]) -> list[Model]:
    listed = [
        Model(
            id=model.name,
            created=model.ready_since,
            task=model.task,
            language=model.language,
            path=_PATHS[model.task],
        )
        for model in models
    ]
    chatting = [model for model in listed if model.task in ("caption", "vqa")]
    if chatting:
        created = min(model.created for model in chatting)
        listed.append(
            Model(id=AUTOMATIC, created=created, task="chat", language="en", path=CHAT_ROUTE)
        )
    return listed
