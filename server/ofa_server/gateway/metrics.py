"""Figures for Prometheus: how many requests of which outcome, how long they took, how many run."""

from __future__ import annotations

import time

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Upper ends in seconds: from a cached health check to the default timeout.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ofa_gateway_requests",
            "Requests by route and outcome: ok, or the code of the error.",
            ["route", "outcome"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ofa_gateway_request_seconds",
            "Time from a request's head to the end of its answer, by route.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._running = Gauge(
            "ofa_gateway_requests_in_progress",
            "Requests that have not been answered yet.",
            registry=self._registry,
        )

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Returns the application with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            # The handlers of errors leave their code here, through `request.state`.
            state = scope.setdefault("state", {})
            status = 500
            start = time.monotonic()

            async def noting_status(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            with self._running.track_inprogress():
                try:
                    await app(scope, receive, noting_status)
                finally:
                    route = getattr(scope.get("route"), "path", "other")
                    outcome = "ok" if status < 400 else state.get("outcome", "http_error")
                    self._requests.labels(route, outcome).inc()
                    self._seconds.labels(route).observe(time.monotonic() - start)

        return counted

    def router(self) -> APIRouter:
        """Returns the route that Prometheus asks."""
        router = APIRouter(tags=["health"])

        @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
        async def metrics() -> Response:
            return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

        return router
