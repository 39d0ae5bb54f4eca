"""The gateway has a route for each verb of the client, and the page knows what the gateway has."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ofa.image import MAX_IMAGE_BYTES, MAX_IMAGE_SIDE
from ofa.tasks import TASKS
from ofa_client import AsyncOFAClient, SearchOptions
from ofa_server.gateway.bodies import MAX_BODY_BYTES
from ofa_server.gateway.gateway import MAX_REQUESTS
from ofa_server.gateway.page import SAMPLES
from ofa_server.gateway.tasks import ROUTES, TaskRoute

ROOT = Path(__file__).parents[2]
HTML = (ROOT / "server/ofa_server/gateway/page.html").read_text("utf-8")
DOCS = (ROOT / "docs" / "gateway.md").read_text("utf-8")
PAGE_TASKS = dict(
    re.findall(r"^  (\w+): \{ name: (.*) \},$", HTML[HTML.index("const TASKS") :], re.MULTILINE)
)


def test_every_task_has_a_route_and_a_place_on_the_page() -> None:
    ensembles = {task.ensemble for task in TASKS.values()}
    assert {route.task for route in ROUTES} == ensembles
    assert PAGE_TASKS.keys() == ensembles


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.verb)
def test_a_route_takes_what_its_verb_takes(route: TaskRoute) -> None:
    parameters = inspect.signature(getattr(AsyncOFAClient, route.verb)).parameters.values()
    names = {
        parameter.name: parameter.default is parameter.empty
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names |= dict.fromkeys(SearchOptions.__annotations__, False)
    for ours in ("self", "timeout"):
        del names[ours]
    fields = route.request.model_fields
    assert {name: field.is_required() for name, field in fields.items()} == names


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.verb)
def test_the_page_sends_fields_that_the_route_has(route: TaskRoute) -> None:
    described: Any = PAGE_TASKS[route.task]
    texts = json.loads(re.search(r"texts: (\[.*\]), count", described)[1])
    count = re.search(r'count: "(\w+)"', described)[1]
    fields = route.request.model_fields
    assert {count, *(name for name, _, _ in texts)} <= fields.keys()
    needs_picture = fields["image"].is_required() if "image" in fields else None
    picture = {True: "needed", False: "optional", None: "none"}[needs_picture]
    assert f'picture: "{picture}"' in described
    for name, label, _ in texts:
        assert fields[name].is_required() != label.endswith("(optional)")


def test_the_samples_of_the_page_are_there() -> None:
    names = re.findall(r'\{ file: "([^"]+)"', HTML)
    assert names
    assert set(names) <= {file.name for file in SAMPLES.iterdir()}


def test_the_page_has_the_limits_of_the_library() -> None:
    assert f"const MAX_BYTES = {MAX_IMAGE_BYTES};" in HTML
    assert f"const MAX_SIDE = {MAX_IMAGE_SIDE};" in HTML


def test_the_page_names_no_other_server() -> None:
    addresses = set(re.findall(r"https?://[^\s'\"`]+", HTML))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_the_page_of_the_docs_has_the_limits() -> None:
    for limit in (MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_BODY_BYTES):
        assert f"{limit:,}" in DOCS
    assert f"At most {MAX_REQUESTS} requests are under way" in DOCS


def test_the_page_of_the_docs_names_every_error() -> None:
    sources = (ROOT / "server/ofa_server/gateway").glob("*.py")
    raised = {
        found
        for source in sources
        for found in re.findall(r'ApiError\(\s*(\d{3}),\s*"(\w+)"', source.read_text("utf-8"))
    }
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", DOCS, re.MULTILINE)
    told = {(status, code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert raised <= told
    assert told - raised == {("404", "not_found"), ("405", "method_not_allowed")}


def test_the_page_of_the_docs_names_every_route() -> None:
    rows = dict(re.findall(r"^\| `POST (/v1/[\w-]+)` \| `(\w+)`", DOCS, re.MULTILINE))
    assert rows == {route.path: route.verb for route in ROUTES}
