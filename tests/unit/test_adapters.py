"""What every answer of preprocess and postprocess has in common, without a server."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ofa.errors import InvalidImageError, RequestError
from ofa.tensors import Tensors
from tests.unit.fake_triton import Request, Response, make_pb_utils


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", make_pb_utils(tmp_path))
    for module in ("ofa_server.adapters", "ofa_server.model_metrics"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module("ofa_server.adapters")


class Told:
    """What `answer_each` says about its requests."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def refused(self, error: RequestError) -> None:
        self.outcomes.append(f"refused: {type(error).__name__}")

    def failed(self) -> None:
        self.outcomes.append("failed")

    def cancelled(self) -> None:
        self.outcomes.append("cancelled")


def answer(tensors: Tensors) -> Tensors:
    """Doubles a number; 1 is refused and 2 is a fault."""
    number = tensors["number"].item()
    if number == 1:
        raise InvalidImageError("image is 4000 x 200 pixels; the limit is 3000 on a side")
    if number == 2:
        raise KeyError("/a/path/inside")
    return {"doubled": 2 * tensors["number"]}


def test_each_request_has_its_own_fate(adapters: ModuleType, tmp_path: Path) -> None:
    requests = [Request({"number": np.array([[n]])}, request_id=f"id-{n}") for n in range(4)]
    told = Told()
    first, refused, fault, last = adapters.answer_each(requests, answer, told)
    np.testing.assert_array_equal(first.outputs["doubled"], [[0]])
    np.testing.assert_array_equal(last.outputs["doubled"], [[6]])
    assert (refused.error.code, refused.error.message) == (
        "INVALID_ARG",
        "image is 4000 x 200 pixels; the limit is 3000 on a side",
    )
    assert (fault.error.code, fault.error.message) == (
        "INTERNAL",
        "internal error; the server's log says more",
    )
    assert told.outcomes == ["refused: InvalidImageError", "failed"]
    assert adapters.version_directory() == tmp_path


def test_what_gets_no_answer_is_in_the_log_by_its_id(adapters: ModuleType) -> None:
    log = sys.modules["triton_python_backend_utils"].log
    requests = [Request({"number": np.array([[n]])}, request_id=f"id-{n}") for n in range(3)]
    adapters.answer_each(requests, answer, Told())
    refused, fault = log
    assert refused == (
        "request 'id-1' was refused: image is 4000 x 200 pixels; the limit is 3000 on a side"
    )
    assert fault.startswith("request 'id-2' has failed: Traceback")
    assert "KeyError: '/a/path/inside'" in fault


def test_an_id_cannot_write_lines_of_its_own_into_the_log(adapters: ModuleType) -> None:
    request = Request({"number": np.array([[1]])}, request_id="\nE1122 all is lost" + "x" * 10_000)
    adapters.answer_each([request], answer, Told())
    [line] = sys.modules["triton_python_backend_utils"].log
    assert "\n" not in line
    assert line.startswith("request '\\nE1122 all is lostxxx")
    assert len(line) < 200


def test_a_cancelled_request_is_not_worked_on(adapters: ModuleType) -> None:
    def never(tensors: Tensors) -> Tensors:
        pytest.fail("worked on a cancelled request")

    told = Told()
    response: Response
    [response] = adapters.answer_each([Request({}, cancelled=True)], never, told)
    assert response.error is not None
    assert response.error.code == "CANCELLED"
    assert told.outcomes == ["cancelled"]


def test_what_pillow_says_of_broken_pictures_is_not_kept(adapters: ModuleType) -> None:
    kept: dict[Any, Any] = {}
    for number in range(3):
        text = f"Corrupt EXIF data. Expecting to read {number} bytes"
        warnings.warn_explicit(text, UserWarning, "file", 1, "PIL.TiffImagePlugin", kept)
    assert kept.keys() <= {"version"}
