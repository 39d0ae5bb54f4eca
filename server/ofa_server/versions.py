"""Several checkpoints under one name: which versions there are, and which one answers.

A version of an export is a folder of that number in each of its four models. The members load every
version they have; the ensemble is one version, whose steps name the members' versions of the same
number. So one file, the ensemble's config.pbtxt, decides who answers, and it is replaced in a
single step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ofa_server.errors import ServerError
from ofa_server.model_configs import ModelConfig, read_config

MANIFEST = "manifest.json"
#: In preprocess: the manifest's facts that are labels of `ofa_model_info`.
IDENTITY = "identity.json"
ENSEMBLE = "ensemble"
MEMBERS = ("preprocess", "generator", "postprocess")
#: The version of an export that names none.
FIRST_VERSION = 1
_ADAPTERS = Path(__file__).parent / "model_repository"

# As `config_writer` lays them out.
_STEP_VERSION = re.compile(r"^( *model_version:) \d+$", re.MULTILINE)
_POLICY = re.compile(
    r"^(version_policy: \{ specific \{ versions: \[) \d+ (\] \} \})$", re.MULTILINE
)

#: What a new version must share with the others: they have one config.pbtxt.
_SHARED_FIELDS = ("platform", "backend", "input", "output", "ensemble_scheduling")


def model_folders(repository: Path, name: str) -> dict[str, Path]:
    """Folder of the ensemble and of each member of an export."""
    members = {member: repository / f"{name}_{member}" for member in MEMBERS}
    return {ENSEMBLE: repository / name, **members}


def adapter_file(model: str) -> Path:
    """What this release exports as the model.py of `preprocess` or `postprocess`.

    The other models have none: no such file is there.
    """
    return _ADAPTERS / model / str(FIRST_VERSION) / "model.py"


def version_folders(model: Path) -> dict[int, Path]:
    """A model's versions, sorted by number."""
    if not model.is_dir():
        return {}
    folders = {int(f.name): f for f in model.iterdir() if f.name.isdecimal() and f.is_dir()}
    return dict(sorted(folders.items()))


def complete_versions(models: Mapping[str, Path]) -> list[int]:
    """Numbers of the versions that all four models of an export have, sorted."""
    return sorted(set.intersection(*(set(version_folders(model)) for model in models.values())))


def served_version(config: ModelConfig) -> int | None:
    """The version that an ensemble answers with; None if its steps do not say one."""
    named = {*config.version_policy.specific.versions}
    named |= {step.model_version for step in config.ensemble_scheduling.step}
    return named.pop() if len(named) == 1 and min(named) > 0 else None


def with_served_version(text: str, version: int) -> str:
    """An ensemble's config.pbtxt, comments and all, with another version that answers.

    Raises:
        ServerError: it was not written by `ofa export`, or by an earlier one.
    """
    text = _POLICY.sub(rf"\1 {version} \2", _STEP_VERSION.sub(rf"\1 {version}", text))
    if served_version(text_format.Parse(text, model_config_pb2.ModelConfig())) != version:
        raise ServerError(
            "its config.pbtxt is not as `ofa export` lays it out; run `ofa export` again"
        )
    return text


def find_export(repository: Path, name: str) -> dict[str, Path]:
    """The models of an export that is there.

    Raises:
        ServerError: there is none of that name.
    """
    models = model_folders(repository, name)
    if not any(models[ENSEMBLE].glob(f"*/{MANIFEST}")):
        raise ServerError(f"{repository} holds no export named {name}")
    return models


def check_takes_versions(models: Mapping[str, Path]) -> None:
    """Checks that a second version would not answer before it is switched to.

    Raises:
        ServerError: the configurations leave it to Triton, which takes the latest one that it has.
    """
    configs = {model: read_config(folder) for model, folder in models.items()}
    loads_all = all(configs[member].version_policy.HasField("all") for member in MEMBERS)
    if not loads_all or served_version(configs[ENSEMBLE]) is None:
        raise ServerError(
            f"{models[ENSEMBLE].name} was exported by an earlier release, which knew one version; "
            "export it again without --version first"
        )


def check_same_layout(staged: Mapping[str, Path], models: Mapping[str, Path]) -> None:
    """Checks that a new version can live under the configurations of those that are there.

    What can differ, and then stays as it is: instances, queues and batch sizes.

    Args:
        staged: folder of each new model.
        models: of each that is there.

    Raises:
        ServerError: it takes or gives other tensors, or is of another task, language or device.
    """
    for model, folder in staged.items():
        new, old = read_config(folder), read_config(models[model])
        for step in (*new.ensemble_scheduling.step, *old.ensemble_scheduling.step):
            step.model_version = 0
        for field in _SHARED_FIELDS:
            if getattr(new, field) != getattr(old, field):
                raise ServerError(
                    f"{folder.name} would differ from its earlier versions in {field}; "
                    "export it under another name"
                )
    new_facts, old_facts = (_facts(each[ENSEMBLE]) for each in (staged, models))
    for name, value in new_facts.items():
        if value != old_facts[name]:
            raise ServerError(
                f"its {name} is {value}, that of earlier versions {old_facts[name]}; export it "
                "under another name"
            )


def read_manifests(repository: Path, ensembles: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What all versions of all exports say of themselves, by "version 2 of caption".

    Those without a manifest that can be read are left out.
    """
    manifests = {}
    for name in ensembles:
        for file in sorted((repository / name).glob(f"*/{MANIFEST}")):
            with suppress(OSError, ValueError):
                values = json.loads(file.read_text("utf-8"))
                if isinstance(values, dict):
                    manifests[f"version {file.parent.name} of {name}"] = values
    return manifests


def _facts(ensemble: Path) -> dict[str, object]:
    """What the manifest of the latest version says of what all must share."""
    *_, latest = version_folders(ensemble).values()
    file = latest / MANIFEST
    try:
        manifest = json.loads(file.read_text("utf-8"))
        facts = {name: manifest[name] for name in ("task", "language", "device")}
        # The warm-up is the first version's, and it is of that size.
        return facts | {"picture size": manifest["input_shapes"].get("patch_images")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{file} is damaged; export that version again") from error
