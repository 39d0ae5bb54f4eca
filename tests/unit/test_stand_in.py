"""Every rule of the stand-in for the PyTorch backend, without a server.

Source of the expectations: the behaviour of the C++ backend of Triton 24.10.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from ofa_server.installation import STAND_INS
from tests.server.stand_in_models import ALL_TYPES, write_model
from tests.unit.fake_triton import Request, Response, TritonModelException, make_pb_utils


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """An instance of one of the models, loaded by the stand-in."""
    version = write_model(tmp_path, name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", make_pb_utils(version))
    monkeypatch.syspath_prepend(STAND_INS / "pytorch")
    spec = importlib.util.spec_from_file_location("stand_in", STAND_INS / "pytorch" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = text_format.Parse(
        (version.parent / "config.pbtxt").read_text(), model_config_pb2.ModelConfig(name=name)
    )
    as_json = json_format.MessageToJson(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": as_json,
            "model_instance_name": f"{name}_0_0",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
    )
    return model


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array([values], np.float32)


ACCEPTED = {
    "InputsByName": ({"a": floats(5, 7), "b": floats(1, 2)}, {"y": floats(4, 5)}),
    "InputsAndOutputsByIndex": (
        {"INPUT__1": floats(1), "any_prefix__0": floats(5)},
        {"OUTPUT__1": floats(4)},
    ),
    "InputsByOrder": ({"b": floats(5), "INPUT__0": floats(1)}, {"y": floats(4)}),
    "OutputsByOrder": ({"x": floats(1)}, {"a__x": floats(-1), "z": floats(1)}),
    "NamedTupleOut": ({"x": floats(1)}, {"y": floats(1), "z": floats(2)}),
    "KeepsItsMode": ({"x": floats(1, 2)}, {"y": floats(0, 0)}),
    "NotBatching": ({"x": floats(1, 2, 3)[0]}, {"y": floats(2, 3)[0]}),
    "WithoutParameters": ({"x": floats(1)}, {"is_inference": np.array([[1]])}),
    "AnotherFile": ({"x": floats(1)}, {"y": floats(3)}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_serves_what_the_backend_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inputs, expected = ACCEPTED[name]
    model = load(tmp_path, monkeypatch, name)
    [response] = model.execute([Request(inputs, list(expected))])
    assert response.error is None
    assert list(response.outputs) == list(expected)  # in the order of the names' bytes
    for output, value in expected.items():
        np.testing.assert_array_equal(response.outputs[output], value)


def test_an_output_that_is_not_asked_for_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tmp_path, monkeypatch, "OutputsByOrder")
    [response] = model.execute([Request({"x": floats(1)}, ["z"])])
    assert list(response.outputs) == ["z"]


def test_every_type_passes_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = ["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
    inputs = {
        f"i{kind}__{index}": np.array([[0, 1, 1]]).astype(dtype)
        for index, (kind, dtype) in enumerate(zip(ALL_TYPES, dtypes, strict=True))
    }
    outputs = ["o" + name[1:] for name in inputs]
    model = load(tmp_path, monkeypatch, "EveryType")
    [response] = model.execute([Request(inputs, outputs)])
    for output, value in zip(outputs, inputs.values(), strict=True):
        assert response.outputs[output].dtype == value.dtype
        np.testing.assert_array_equal(response.outputs[output], value)


def test_rows_are_joined_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path, monkeypatch, "Batched")
    rows = [np.full([n, 2], n, np.float32) for n in (1, 3, 2)]
    responses: list[Response] = model.execute(
        [Request({"x": x}, ["doubled", "num_rows"]) for x in rows]
    )
    for x, response in zip(rows, responses, strict=True):
        np.testing.assert_array_equal(response.outputs["doubled"], 2 * x)
        np.testing.assert_array_equal(response.outputs["num_rows"], np.full([len(x), 1], 6))


def test_without_batching_requests_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tmp_path, monkeypatch, "NotBatching")
    requests = [Request({"x": np.arange(n, dtype=np.float32)}, ["y"]) for n in (2, 4)]
    assert [len(response.outputs["y"]) for response in model.execute(requests)] == [1, 3]


REFUSED_REQUESTS = {
    "WrongType": (
        "INVALID_ARG",
        "configuration expects datatype TYPE_INT64 for output 'y', model provides TYPE_FP32",
    ),
    "IndexPastTheEnd": (
        "INVALID_ARG",
        (
            "The output OUTPUT__5 in the model configuration refers to an output index which "
            "doesn't exist. This model has 2 outputs"
        ),
    ),
    "ScalarOut": ("INVALID_ARG", "output 'y' is a scalar which is not supported."),
    "RowsLost": (
        "UNSUPPORTED",
        (
            "failed to split the output tensor 'y' in responses: expected batch size of at least 2 "
            "in model output, got 1"
        ),
    ),
    "DictionaryOut": (
        "INTERNAL",
        (
            "PyTorch execute failure: output must be of type Tensor, List[str] or Tuple containing "
            "one of these two types. It should not be a List / Dictionary of Tensors or a Scalar"
        ),
    ),
    "ListOut": (
        "INTERNAL",
        (
            "PyTorch execute failure: output must be of type Tensor or List[str], "
            "received List[Tensor]"
        ),
    ),
    "IntegerBesideATensor": ("INTERNAL", "PyTorch execute failure: Expected Tensor but got Int"),
    "Raises": (
        "INTERNAL",
        (
            "PyTorch execute failure: The following operation failed in the TorchScript "
            "interpreter. builtins.ValueError: too big"
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED_REQUESTS)
def test_it_fails_a_whole_batch_in_the_words_of_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = load(tmp_path, monkeypatch, name)
    for response in model.execute([Request({"x": floats(n)}, ["y"]) for n in (1, 11)]):
        assert (response.error.code, response.error.message) == REFUSED_REQUESTS[name]


def test_a_model_that_has_raised_goes_on_and_the_log_has_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tmp_path, monkeypatch, "Raises")
    model.execute([Request({"x": floats(11)}, ["y"])])
    [response] = model.execute([Request({"x": floats(9)}, ["y"])])
    assert response.outputs["y"] == 9
    [logged] = sys.modules["triton_python_backend_utils"].log
    assert "Traceback of TorchScript" in logged


REFUSED_MODELS = {
    "TwoArguments": (
        "unable to load model 'TwoArguments', configuration expects 1 inputs, model provides 2"
    ),
    "IntegerArgument": "An input of type 'int' was detected in the model.",
    "TensorOrNone": "An input of type 'Tensor?' was detected in the model.",
    "DictionaryIn": "An input of type 'Dict(str, Tensor)' was detected in the model.",
    "NoForward": "the model has no method forward",
    "DuplicateIndex": "inputs a__0, b__0 stand for arguments 0, 0",
    "OneBasedIndex": "inputs INPUT__1 stand for arguments 1; each of 0 to 0 is needed once",
    "OptionalInput": (
        "'optional' is set to true for input 'x' while the backend model doesn't support optional"
    ),
    "UnsignedInput": "unsupported datatype TYPE_UINT16 for input 'x' for model 'UnsignedInput'",
    "BFloat16Output": "unsupported datatype TYPE_BF16 for output 'y' for model 'BFloat16Output'",
    "StringInput": "unsupported datatype TYPE_STRING for input 'x' for model 'StringInput'",
    "NoBoolean": "failed to convert 'nope' to boolean",
    "NoNumber": "failed to convert 'abc' to integral number",
    "SharedWeights": "does not support ENABLE_WEIGHT_SHARING",
    "Sequences": "does not support sequence_batching",
    "Ragged": "does not join ragged input 'x'",
    "BatchInput": "does not support batch_input",
    "Missing": "unable to find '",
    "StateDict": (
        "failed to load model 'StateDict': PytorchStreamReader failed locating file constants.pkl"
    ),
}


@pytest.mark.parametrize("name", REFUSED_MODELS)
def test_it_refuses_a_model_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(TritonModelException) as caught:
        load(tmp_path, monkeypatch, name)
    assert REFUSED_MODELS[name] in str(caught.value)
