"""A collector of traces: what Triton sends by OTLP over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Collector:
    """Every span that has come so far, as the JSON that it came in: its ids are hexadecimal."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)

    def trace(self, trace_id: str) -> dict[str, list[dict[str, Any]]]:
        """The spans of one trace, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for span in list(self.spans):
            if span["traceId"] == trace_id:
                found.setdefault(span["name"], []).append(span)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free loopback port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in body["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    collector.spans.extend(scope["spans"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
