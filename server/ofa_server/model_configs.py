"""Reads the models of a repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

from ofa_server.errors import ServerError

#: A ModelConfig message; the generated module carries no types.
ModelConfig = Any


def read_configs(repository: Path) -> Mapping[str, ModelConfig]:
    """Reads every model's config.pbtxt and checks that Triton will find what it names.

    Returns:
        Configurations by model name, sorted.

    Raises:
        ServerError: a folder that Triton would stumble over, or no ensemble at all.
    """
    if not repository.is_dir():
        raise ServerError(f"there is no model repository {repository}; `ofa export` writes one")
    folders = sorted(folder for folder in repository.iterdir() if folder.is_dir())
    configs = {folder.name: _read_complete(folder) for folder in folders}
    if not any(is_ensemble(config) for config in configs.values()):
        raise ServerError(f"{repository} holds no ensemble to serve; `ofa export` writes one")
    for name, config in configs.items():
        for step in config.ensemble_scheduling.step:
            if step.model_name not in configs:
                raise ServerError(f"{name} needs the model {step.model_name}, which is missing")
            version = repository / step.model_name / str(step.model_version)
            # -1 stands for the latest, whatever its number.
            if step.model_version > 0 and not version.is_dir():
                raise ServerError(
                    f"{name} needs version {version.name} of {step.model_name}, which is missing"
                )
    return configs


def is_ensemble(config: ModelConfig) -> bool:
    """Whether a model is a chain of others."""
    return bool(config.HasField("ensemble_scheduling"))


def num_instances(config: ModelConfig) -> int:
    """How many instances of a model run."""
    return sum(group.count or 1 for group in config.instance_group) or 1


def network_file(config: ModelConfig) -> str:
    """Name of the file in a version that the PyTorch backend loads."""
    return config.default_model_filename or "model.pt"


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """The numpy dtype of a `data_type` of config.pbtxt; object for TYPE_STRING."""
    name = model_config_pb2.DataType.Name(data_type).removeprefix("TYPE_")
    return np.dtype(triton_to_np_dtype("BYTES" if name == "STRING" else name))


def read_config(folder: Path) -> ModelConfig:
    """Reads a model's config.pbtxt.

    Raises:
        ServerError: it is missing or cannot be parsed.
    """
    file = folder / "config.pbtxt"
    if not file.is_file():
        raise ServerError(f"{folder} has no config.pbtxt, and Triton starts with no such folder")
    try:
        return text_format.Parse(file.read_text("utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServerError(
            f"{file} cannot be parsed: {error}; mend it or run `ofa export` again"
        ) from error
    except OSError as error:
        raise ServerError(f"{file} cannot be read: {error.strerror}") from error


def _read_complete(folder: Path) -> ModelConfig:
    config = read_config(folder)
    versions = [version for version in folder.iterdir() if version.name.isdecimal()]
    if not versions:
        raise ServerError(f"{folder} has no version of the model in it")
    needed = {"python": "model.py", "pytorch": network_file(config)}
    for version in versions:
        name = needed.get(config.backend)
        if name is not None and not (version / name).is_file():
            raise ServerError(f"{version} has no {name}; run `ofa export` again")
    return config
