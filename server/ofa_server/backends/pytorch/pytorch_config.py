"""Reads a model configuration as Triton's C++ PyTorch backend does, or refuses it in its words.

Half of the stand-in: what can be said before anything runs. It knows neither Triton nor the model's
weights, only the configuration (as Triton hands it over, JSON) and the signature of `forward`.

Source of every rule and message: the behaviour of the PyTorch backend of Triton 24.10. What that
backend takes and OFA's models do not use (strings, dictionaries, ragged batches, sequences) is
refused here by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

TORCH_DTYPES = {
    "TYPE_BOOL": torch.bool,
    "TYPE_UINT8": torch.uint8,
    "TYPE_INT8": torch.int8,
    "TYPE_INT16": torch.int16,
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
    "TYPE_FP16": torch.float16,
    "TYPE_FP32": torch.float32,
    "TYPE_FP64": torch.float64,
}
_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_SWITCHES = (
    "INFERENCE_MODE",
    "DISABLE_OPTIMIZED_EXECUTION",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_WEIGHT_SHARING",
    "DISABLE_CUDNN",
    "ENABLE_CACHE_CLEANING",
)
_COUNTS = ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")


class ConfigError(Exception):
    """The configuration does not fit the model, or asks for what the stand-in does not do."""


@dataclass(frozen=True)
class Output:
    """One output of config.pbtxt.

    Attributes:
        name: its name.
        data_type: as config.pbtxt spells it, `TYPE_FP32`.
        index: its place in the tuple that `forward` returns.
    """

    name: str
    data_type: str
    index: int


@dataclass(frozen=True)
class PytorchConfig:
    """What the stand-in needs of a model configuration.

    Attributes:
        name: of the model, for messages.
        max_batch_size: 0 if requests are not joined.
        inputs: input names in the order of `forward`'s arguments.
        outputs: in bytewise order of their names, which is the order of an answer.
        switches: the boolean parameters that are set.
        thread_counts: the thread parameters that are set and positive.
    """

    name: str
    max_batch_size: int
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    switches: Mapping[str, bool]
    thread_counts: Mapping[str, int]


def read_config(config: Mapping[str, Any], arguments: Sequence[tuple[str, str]]) -> PytorchConfig:
    """Checks a configuration against a signature.

    Args:
        config: the model configuration as Triton's JSON.
        arguments: name and TorchScript type of `forward`'s arguments, `self` left out.

    Returns:
        What to run with.

    Raises:
        ConfigError: if the C++ backend refuses it, or the stand-in does not support it.
    """
    name = config["name"]
    _refuse_unsupported(config)
    _check_data_types(config, name)
    input_names = [tensor["name"] for tensor in config["input"]]
    positions = _input_positions(input_names, _tensor_arguments(arguments), name)
    output_names = [tensor["name"] for tensor in config["output"]]
    outputs = [
        Output(tensor["name"], tensor["data_type"], index)
        for tensor, index in zip(config["output"], output_indices(output_names), strict=True)
    ]
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    return PytorchConfig(
        name=name,
        max_batch_size=config["max_batch_size"],
        inputs=tuple(sorted(input_names, key=lambda given: positions[given])),
        outputs=tuple(sorted(outputs, key=lambda output: output.name.encode())),
        switches=_read_switches(parameters),
        thread_counts=_read_thread_counts(parameters),
    )


def output_indices(names: Sequence[str]) -> list[int]:
    """Finds each output's place in the returned tuple.

    Args:
        names: output names in the order of config.pbtxt.

    Returns:
        The numbers in the names if all have one (`OUTPUT__1`), else their order.
    """
    numbers = _numbers_in(names)
    return list(range(len(names))) if numbers is None else numbers


def _input_positions(
    names: Sequence[str], arguments: Sequence[str], model_name: str
) -> Mapping[str, int]:
    """Maps input names to argument positions by the one rule that fits all of them."""
    if len(names) != len(arguments):
        raise ConfigError(
            f"unable to load model '{model_name}', configuration expects {len(names)} inputs, "
            f"model provides {len(arguments)}"
        )
    if all(name in arguments for name in names):
        positions = [arguments.index(name) for name in names]
    else:
        numbers = _numbers_in(names)
        positions = list(range(len(names))) if numbers is None else numbers
    # The C++ backend fails every request or crashes the server here.
    if sorted(positions) != list(range(len(arguments))):
        raise ConfigError(
            f"unable to load model '{model_name}', inputs {', '.join(names)} stand for arguments "
            f"{', '.join(map(str, positions))}; each of 0 to {len(arguments) - 1} is needed once"
        )
    return dict(zip(names, positions, strict=True))


def _numbers_in(names: Sequence[str]) -> list[int] | None:
    """The number after each name's first double underscore, or None if a name has none."""
    numbers = []
    for name in names:
        _, mark, digits = name.partition("__")
        if not mark or not (digits == "" or (digits.isascii() and digits.isdigit())):
            return None
        numbers.append(int(digits or 0))
    return numbers


def _tensor_arguments(arguments: Sequence[tuple[str, str]]) -> list[str]:
    for _, kind in arguments:
        if kind != "Tensor":
            raise ConfigError(
                f"An input of type '{kind}' was detected in the model. "
                "Only input(s) of type Tensor are supported."
            )
    return [name for name, _ in arguments]


def _check_data_types(config: Mapping[str, Any], model_name: str) -> None:
    for direction in ("input", "output"):
        for tensor in config[direction]:
            if tensor["data_type"] not in TORCH_DTYPES:
                raise ConfigError(
                    f"unsupported datatype {tensor['data_type']} for {direction} "
                    f"'{tensor['name']}' for model '{model_name}'"
                )


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    for tensor in config["input"]:
        if tensor.get("optional"):
            raise ConfigError(
                f"'optional' is set to true for input '{tensor['name']}' while the backend model "
                "doesn't support optional input"
            )
        if tensor.get("allow_ragged_batch"):
            raise ConfigError(f"the stand-in does not join ragged input '{tensor['name']}'")
    for section in ("batch_input", "batch_output", "sequence_batching"):
        if config.get(section):
            raise ConfigError(f"the stand-in does not support {section}")


def _read_switches(parameters: Mapping[str, str]) -> Mapping[str, bool]:
    switches = {}
    for key in _SWITCHES:
        if key in parameters:
            if parameters[key].lower() not in _BOOLEANS:
                raise ConfigError(f"failed to convert '{parameters[key]}' to boolean")
            switches[key] = _BOOLEANS[parameters[key].lower()]
    if switches.get("ENABLE_WEIGHT_SHARING"):
        raise ConfigError(
            "the stand-in does not support ENABLE_WEIGHT_SHARING: each instance is a process"
        )
    return switches


def _read_thread_counts(parameters: Mapping[str, str]) -> Mapping[str, int]:
    counts = {}
    for key in _COUNTS:
        if key in parameters:
            try:
                count = int(parameters[key])
            except ValueError:
                raise ConfigError(
                    f"failed to convert '{parameters[key]}' to integral number"
                ) from None
            if count > 0:
                counts[key] = count
    return counts
