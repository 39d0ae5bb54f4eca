"""The application: the routes around one client and one catalogue."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from ofa_client import AsyncOFAClient
from ofa_server.gateway.callers import ask_for_token
from ofa_server.gateway.chat import chat_router
from ofa_server.gateway.errors import ErrorAnswer, add_error_handlers
from ofa_server.gateway.gateway import Gateway, Models
from ofa_server.gateway.health import health_router
from ofa_server.gateway.metrics import Metrics
from ofa_server.gateway.page import add_page
from ofa_server.gateway.tasks import task_router

_DESCRIPTION = "OFA's tasks over HTTP: pictures as files in a form or as base64 in JSON."


def make_app(
    client: AsyncOFAClient,
    catalogue: Models,
    *,
    timeout: float,
    callers_token_file: Path | None = None,
) -> ASGIApp:
    """Returns the application.

    Args:
        client: of the model server.
        catalogue: of its models.
        timeout: seconds for a request, from its first byte to the answer.
        callers_token_file: tokens that callers need one of, as `ask_for_token` reads them; None
            lets everyone in.

    Raises:
        ServerError: there is no token in the file.
    """
    gateway = Gateway(client, catalogue, timeout)
    # Swagger's page comes with the package, where FastAPI's own loads it from a CDN.
    app: FastAPI = FastAPIOffline(
        redoc_url=None,
        title="OFA gateway",
        description=_DESCRIPTION,
        responses={"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}},
        version=importlib.metadata.version("ofa-triton"),
    )
    metrics = Metrics()
    add_error_handlers(app)
    app.include_router(task_router(gateway))
    app.include_router(chat_router(gateway))
    app.include_router(health_router(gateway))
    app.include_router(metrics.router())
    add_page(app)
    guarded = app if callers_token_file is None else ask_for_token(app, callers_token_file)
    return metrics.wrap(guarded)
