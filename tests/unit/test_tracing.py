"""Where traces are sent."""

from __future__ import annotations

import argparse

import pytest

from ofa_server.tracing import otlp_endpoint, tracing_arguments


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4318/v1/traces", "https://collector.example.com/v1/traces"]
)
def test_a_collector_is_told_to_triton(url: str) -> None:
    assert f"--trace-config=opentelemetry,url={url}" in tracing_arguments(otlp_endpoint(url))


def test_without_a_collector_nothing_is_traced() -> None:
    assert tracing_arguments(None) == []


@pytest.mark.parametrize("text", ["", "collector:4317", "grpc://collector:4317", "http:///v1"])
def test_what_is_no_collector_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="one looks like http://HOST:4318"):
        otlp_endpoint(text)
