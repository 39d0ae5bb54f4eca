"""The configurations of every task, the adapters and the library mean the same tensors."""

from __future__ import annotations

import gzip
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf import text_format
from torch import nn
from tritonclient.grpc import model_config_pb2

from ofa.clip_tokenizer import CLIPTokenizer
from ofa.generation import Generator, LabelScorer, TextGenerator, TextLabelScorer
from ofa.generation.image_generator import ImageGenerator
from ofa.tasks import TASKS, Task, TaskSettings
from ofa.tasks.captioning import CaptioningTask
from ofa_server import config_writer
from ofa_server.admission import GENERATOR_PARAMETER, MAX_WAITING_PARAMETERS
from ofa_server.installation import STAND_INS
from ofa_server.model_configs import num_instances, numpy_dtype
from ofa_server.repository import ENSEMBLE, MEMBERS
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
PLAIN_NAMES = {member: member for member in MEMBERS}
#: By kind of search, with a picture and without.
GENERATORS: dict[tuple[str, bool], type[nn.Module]] = {
    ("beam", True): Generator,
    ("beam", False): TextGenerator,
    ("traverse", True): LabelScorer,
    ("traverse", False): TextLabelScorer,
    ("sampling", False): ImageGenerator,
}


class Variant(NamedTuple):
    """A task with all that changes its tensors."""

    task: type[Task]
    settings: TaskSettings

    def __str__(self) -> str:
        return f"{self.task.ensemble}-{self.settings.search}-{self.settings.prompt_type}"


def variants() -> Iterator[Variant]:
    for task in TASKS.values():
        for search in {
            task.search("generation"): "generation",
            task.search("traverse"): "traverse",
        }:
            for prompt_type in ("none", "prev_output"):
                labels = ("yes", "no") if search == "traverse" else ()
                yield Variant(
                    task,
                    tiny.make_settings(task, search=search, prompt_type=prompt_type, labels=labels),
                )


class Shape(NamedTuple):
    data_type: int
    dims: tuple[int, ...]


def shapes(tensors: Any) -> dict[str, Shape]:
    return {tensor.name: Shape(tensor.data_type, tuple(tensor.dims)) for tensor in tensors}


def parse(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture(params=variants(), ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


@pytest.fixture(params=[1, 4], ids=["one generator", "four"])
def instances(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def configs(variant: Variant, instances: int) -> dict[str, Any]:
    tensors = variant.task.tensors_for(variant.settings)
    written = config_writer.write_configs(tensors, PLAIN_NAMES, instances=instances)
    return {model: parse(text) for model, text in written.items()}


def test_the_committed_files_are_those_of_captioning() -> None:
    tensors = CaptioningTask.tensors_for(tiny.make_settings(CaptioningTask))
    for model, text in config_writer.write_configs(tensors, PLAIN_NAMES).items():
        folder = REPOSITORY / ("caption" if model == ENSEMBLE else model)
        assert (folder / "config.pbtxt").read_text("utf-8") == text, config_writer.__doc__


def test_one_command_rewrites_the_committed_files(tmp_path: Path) -> None:
    folders = {folder.name for folder in REPOSITORY.iterdir()}
    assert folders == {CaptioningTask.ensemble, *MEMBERS}
    for folder in folders:
        (tmp_path / folder).mkdir()
    checkpoint = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
    config_writer.main([str(checkpoint), str(tmp_path)])
    for folder in folders:
        written = (tmp_path / folder / "config.pbtxt").read_text("utf-8")
        assert written == (REPOSITORY / folder / "config.pbtxt").read_text("utf-8")


def check_meanings(configs: dict[str, Any]) -> None:
    """One producer a name; every consumer takes just its type and shape."""
    ensemble = configs[ENSEMBLE]
    scope = shapes(ensemble.input)
    steps = ensemble.ensemble_scheduling.step
    assert [step.model_name for step in steps] == list(MEMBERS)
    for step in steps:
        member = configs[step.model_name]
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


def test_every_ensemble_tensor_has_one_meaning(configs: dict[str, Any]) -> None:
    check_meanings(configs)


def test_the_generator_may_use_a_name_of_the_answer() -> None:
    captioning = CaptioningTask.tensors_for(tiny.make_settings(CaptioningTask))
    tensors = replace(captioning, generator_outputs=captioning.answer[1:])
    written = config_writer.write_configs(tensors, PLAIN_NAMES)
    check_meanings({model: parse(text) for model, text in written.items()})


@pytest.mark.parametrize("model", [ENSEMBLE, "preprocess"])
def test_a_request_is_what_the_task_says(
    configs: dict[str, Any], variant: Variant, model: str
) -> None:
    request = variant.task.tensors_for(variant.settings).request
    for tensor, spec in zip(configs[model].input, request, strict=True):
        assert tensor.name == spec.name
        assert tensor.optional == spec.optional
        assert numpy_dtype(tensor.data_type) == spec.dtype
        assert list(tensor.dims) == [1]


@pytest.mark.parametrize("model", [ENSEMBLE, "postprocess"])
def test_an_answer_is_what_the_task_says(
    configs: dict[str, Any], variant: Variant, model: str
) -> None:
    answer = variant.task.tensors_for(variant.settings).answer
    assert answer[0].name == variant.task.results
    for tensor, spec in zip(configs[model].output, answer, strict=True):
        assert (tensor.name, tuple(tensor.dims)) == (spec.name, spec.dims)
        assert numpy_dtype(tensor.data_type) == spec.dtype
        assert tensor.dims[0] == -1


def test_only_the_ensemble_and_preprocess_have_optional_inputs(configs: dict[str, Any]) -> None:
    for model in ("generator", "postprocess"):
        assert not any(tensor.optional for tensor in configs[model].input)


def test_pictures_travel_only_where_a_task_has_one(
    configs: dict[str, Any], variant: Variant
) -> None:
    has_picture = "image" in [spec.name for spec in variant.task.inputs]
    for model in ("preprocess", "generator"):
        tensors = [*configs[model].input, *configs[model].output]
        assert ("patch_images" in shapes(tensors)) == has_picture


def test_the_generator_takes_the_arguments_of_forward_in_their_order(
    configs: dict[str, Any], variant: Variant
) -> None:
    inputs = shapes(configs["generator"].input)
    module = GENERATORS[variant.settings.search, "patch_images" in inputs]
    arguments = list(inspect.signature(module.forward).parameters)[1:]
    assert list(inputs) == arguments


def test_a_task_gives_and_takes_what_its_configurations_say(
    configs: dict[str, Any], variant: Variant, tmp_path: Path
) -> None:
    tiny.write_tokenizer(tmp_path)
    with gzip.open(tmp_path / CLIPTokenizer.files[0], "wt") as merges:
        merges.write("a header\nt h\n")
    task = variant.task(variant.settings, tmp_path)
    request = task.example_request()
    assert request.keys() <= shapes(configs["preprocess"].input).keys()
    row = task.preprocess(request)
    configured = shapes(configs["preprocess"].output)
    assert row.keys() == configured.keys()
    for name, value in row.items():
        assert value.dtype == numpy_dtype(configured[name].data_type)
        assert len(value.shape) == len(configured[name].dims)
        for size, dim in zip(value.shape, configured[name].dims, strict=True):
            assert dim in (-1, size)


# Nothing reaches the others but what has passed it.
def test_the_queue_of_preprocess_is_bounded(configs: dict[str, Any]) -> None:
    policy = configs["preprocess"].dynamic_batching.default_queue_policy
    assert 0 < policy.max_queue_size <= 256
    assert policy.default_timeout_microseconds > 0


def test_the_generator_may_take_up_its_next_batch_early(configs: dict[str, Any]) -> None:
    """Triton does not where the queue has a policy (`support_prefetching_` in its scheduler)."""
    generator = configs["generator"]
    assert generator.HasField("dynamic_batching")
    assert not generator.dynamic_batching.HasField("default_queue_policy")


def test_a_generator_has_the_instances_that_are_asked_for(
    configs: dict[str, Any], instances: int
) -> None:
    assert num_instances(configs["generator"]) == instances


def test_the_generator_never_starves(configs: dict[str, Any]) -> None:
    parameters = configs["preprocess"].parameters
    limit = int(parameters[MAX_WAITING_PARAMETERS["cpu"]].string_value)
    generator = configs["generator"]
    assert limit >= 2 * num_instances(generator) * generator.max_batch_size
    asked = [step.model_name for step in configs[ENSEMBLE].ensemble_scheduling.step]
    assert parameters[GENERATOR_PARAMETER].string_value == asked[1]


def test_each_gpu_has_an_instance_and_rows_that_wait_for_it() -> None:
    tensors = CaptioningTask.tensors_for(tiny.make_settings(CaptioningTask))
    written = config_writer.write_configs(tensors, PLAIN_NAMES, device="cuda")
    preprocess, generator = parse(written["preprocess"]), parse(written["generator"])
    [group] = generator.instance_group
    assert (group.kind, group.count, [*group.gpus]) == (group.KIND_GPU, 1, [])
    parameters = {name: value.string_value for name, value in preprocess.parameters.items()}
    rows = str(2 * generator.max_batch_size)
    assert parameters == {"generator": PLAIN_NAMES["generator"], "max_waiting_rows_per_gpu": rows}


def test_the_generator_batches_and_one_row_is_a_request_elsewhere(configs: dict[str, Any]) -> None:
    sizes = {model: config.max_batch_size for model, config in configs.items()}
    assert sizes.pop("generator") >= 4
    assert set(sizes.values()) == {1}


def test_no_configuration_holds_a_value_of_a_checkpoint(configs: dict[str, Any]) -> None:
    for model, config in configs.items():
        admission = (
            {GENERATOR_PARAMETER, MAX_WAITING_PARAMETERS["cpu"]} if model == "preprocess" else set()
        )
        assert set(config.parameters) == admission
        assert not config.name


def test_adapters_are_thin() -> None:
    for model in ("preprocess", "postprocess"):
        lines = (REPOSITORY / model / "1" / "model.py").read_text("utf-8").splitlines()
        assert len(lines) <= 40
    assert not list((REPOSITORY / "generator").rglob("*.py"))
    assert (STAND_INS / "pytorch" / "model.py").is_file()
