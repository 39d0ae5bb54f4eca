"""Triton's traces, sent to a collector by OpenTelemetry's protocol."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

SERVICE_NAME = "ofa-triton"
#: Of requests without a `traceparent`, one in so many is traced; one with it always is, by Triton's
#: own rule. So callers choose what is traced.
RATE = 1000


def otlp_endpoint(text: str) -> str:
    """The URL of a collector.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no URL of a collector; one looks like http://HOST:4318/v1/traces"
        )
    return text


def tracing_arguments(endpoint: str | None) -> list[str]:
    """What Triton has to be told to send its traces to `endpoint`, None for nowhere."""
    if endpoint is None:
        return []
    return [
        f"--trace-config={setting}"
        for setting in (
            "mode=opentelemetry",
            "level=TIMESTAMPS",
            f"rate={RATE}",
            f"opentelemetry,url={endpoint}",
            f"opentelemetry,resource=service.name={SERVICE_NAME}",
        )
    ]
