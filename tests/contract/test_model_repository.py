"""The committed configurations, the adapters, the library and the client mean the same tensors."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ofa.generation import Generator
from ofa.options import OPTION_DTYPES, GenerationOptions
from ofa.tasks.captioning import GeneratorInputs
from ofa_client import _answers, _requests
from ofa_server.installation import STAND_INS
from ofa_server.model_configs import numpy_dtype
from ofa_server.repository import ENSEMBLE, MEMBERS
from ofa_server.tensors import generator_tensors, options_in

REPOSITORY = Path(__file__).parents[2] / "model_repository"


class Shape(NamedTuple):
    data_type: int
    dims: tuple[int, ...]


def read(model: str) -> Any:
    text = (REPOSITORY / model / "config.pbtxt").read_text("utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


CONFIGS = {model: read(model) for model in (ENSEMBLE, *MEMBERS)}


def shapes(tensors: Any) -> dict[str, Shape]:
    return {tensor.name: Shape(tensor.data_type, tuple(tensor.dims)) for tensor in tensors}


def test_the_four_models_are_there_and_nothing_else() -> None:
    assert {folder.name for folder in REPOSITORY.iterdir()} == set(CONFIGS)
    assert [step.model_name for step in CONFIGS[ENSEMBLE].ensemble_scheduling.step] == list(MEMBERS)


def test_every_ensemble_tensor_has_one_meaning() -> None:
    """One producer a name; every consumer takes just its type and shape."""
    ensemble = CONFIGS[ENSEMBLE]
    scope = shapes(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        member = CONFIGS[step.model_name]
        inputs, outputs = shapes(member.input), shapes(member.output)
        assert set(step.input_map) == set(inputs)
        assert set(step.output_map) == set(outputs)
        for name, tensor in step.input_map.items():
            assert scope[tensor] == inputs[name], (step.model_name, name)
        for name, tensor in step.output_map.items():
            assert tensor not in scope, f"{tensor} would stand for two tensors"
            scope[tensor] = outputs[name]
    for name, shape in shapes(ensemble.output).items():
        assert scope[name] == shape


@pytest.mark.parametrize("model", [ENSEMBLE, "preprocess"])
def test_options_are_optional_inputs_of_the_library_s_types(model: str) -> None:
    options = {t.name: t for t in CONFIGS[model].input if t.name != "image"}
    assert list(options) == list(OPTION_DTYPES)
    for name, tensor in options.items():
        assert tensor.optional
        assert numpy_dtype(tensor.data_type) == OPTION_DTYPES[name]
        assert list(tensor.dims) == [1]


def test_only_the_ensemble_and_preprocess_have_optional_inputs() -> None:
    for model in ("generator", "postprocess"):
        assert not any(tensor.optional for tensor in CONFIGS[model].input)


def test_the_client_sends_and_reads_what_the_ensemble_has() -> None:
    options = dict.fromkeys(OPTION_DTYPES, 1)
    sent = _requests.build_inputs({"image": b"picture"}, options)
    inputs = shapes(CONFIGS[ENSEMBLE].input)
    assert sent.keys() == inputs.keys()
    for name, value in sent.items():
        assert value.dtype == numpy_dtype(inputs[name].data_type)
        assert value.shape == (1, *inputs[name].dims)
    answer = {
        name: np.zeros([1, *(2 for _ in shape.dims)], numpy_dtype(shape.data_type))
        for name, shape in shapes(CONFIGS[ENSEMBLE].output).items()
    }
    answer["captions"][:] = b"a caption"
    assert len(_answers.parse_captions(answer).captions) == 2


def test_preprocess_gives_what_its_configuration_says() -> None:
    row = GeneratorInputs(
        np.zeros([3, 8, 8], np.uint8),
        np.zeros([4], np.int64),
        GenerationOptions(1, 2, 3, 0, 0, 1.0, 1.0),
    )
    given, configured = generator_tensors(row), shapes(CONFIGS["preprocess"].output)
    assert list(given) == list(configured)
    for name, value in given.items():
        assert value.dtype == numpy_dtype(configured[name].data_type)
        assert len(value.shape) == len(configured[name].dims)
        assert all(
            d in (-1, size) for d, size in zip(configured[name].dims, value.shape, strict=True)
        )
    assert GenerationOptions(**options_in(given)) == row.options


def test_the_generator_takes_the_arguments_of_forward_in_their_order() -> None:
    arguments = list(inspect.signature(Generator.forward).parameters)[1:]
    assert [tensor.name for tensor in CONFIGS["generator"].input] == arguments
    assert list(shapes(CONFIGS["preprocess"].output)) == arguments


# Nothing reaches postprocess but what has passed these two.
@pytest.mark.parametrize("model", ["preprocess", "generator"])
def test_queues_are_bounded(model: str) -> None:
    policy = CONFIGS[model].dynamic_batching.default_queue_policy
    assert 0 < policy.max_queue_size <= 256
    assert policy.default_timeout_microseconds > 0


def test_the_generator_batches_and_one_picture_is_a_request_elsewhere() -> None:
    sizes = {model: config.max_batch_size for model, config in CONFIGS.items()}
    assert sizes.pop("generator") >= 4
    assert set(sizes.values()) == {1}


def test_no_configuration_holds_a_value_of_a_checkpoint() -> None:
    for config in CONFIGS.values():
        assert not config.parameters
        assert not config.name


def test_adapters_are_thin() -> None:
    for model in ("preprocess", "postprocess"):
        lines = (REPOSITORY / model / "1" / "model.py").read_text("utf-8").splitlines()
        assert len(lines) <= 40
    assert not list((REPOSITORY / "generator").rglob("*.py"))
    assert (STAND_INS / CONFIGS["generator"].backend / "model.py").is_file()
