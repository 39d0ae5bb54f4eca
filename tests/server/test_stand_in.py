"""The stand-in for the PyTorch backend inside a real Triton, in a Python without ofa.

Its rules one by one: tests/unit/test_stand_in.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from ofa.checkpoint import load_checkpoint
from tests.server.processes import BareTriton, bare_triton
from tests.server.requests import encoded, picture, tensor
from tests.server.stand_in_models import ALL_TYPES, write_model


@pytest.fixture(scope="module")
def python_without_ofa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with torch and numpy, but not our packages.

    A path file lends it this environment's packages; path files of those, which is how an editable
    installation is found, are not followed.
    """
    folder = tmp_path_factory.mktemp("without_ofa") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    for module, importable in (("torch", True), ("ofa", False), ("ofa_server", False)):
        tried = subprocess.run(
            [folder / "bin" / "python3", "-I", "-c", f"import {module}"],
            capture_output=True,
            check=False,
        )
        assert (tried.returncode == 0) is importable
    return folder / "bin"


@pytest.fixture(scope="module")
def stand_in_server(
    repository: Path, python_without_ofa: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BareTriton]:
    folder = tmp_path_factory.mktemp("stand_in")
    for name in ("EveryType", "Batched", "WithParameters", "Raises", "TwoArguments"):
        write_model(folder / "models", name)
    shutil.copytree(repository / "caption_generator", folder / "models" / "caption_generator")
    with bare_triton(folder / "models", folder, python_without_ofa) as triton:
        yield triton


@pytest.fixture
def stand_in(stand_in_server: BareTriton) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(stand_in_server.address) as connected:
        yield connected


def infer(
    client: grpcclient.InferenceServerClient, model: str, **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """All outputs in the order of the answer."""
    result = client.infer(model, [tensor(n, v) for n, v in inputs.items()], client_timeout=60)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def floats(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_an_exported_generator_runs_without_ofa(
    stand_in: grpcclient.InferenceServerClient, checkpoint: Path, repository: Path
) -> None:
    loaded = load_checkpoint(checkpoint)
    task = loaded.build_task(loaded.default_limits())
    image = np.array([encoded(picture(5))], np.object_)
    row = task.preprocess({"image": image, "num_captions": np.array([2], np.int32)})
    inputs = {name: value[np.newaxis] for name, value in row.items()}
    served = infer(stand_in, "caption_generator", **inputs)
    module = torch.jit.load(repository / "caption_generator" / "1" / "model.pt")
    with torch.inference_mode():
        token_ids, scores, log_probs = module(**{n: torch.from_numpy(v) for n, v in inputs.items()})
    np.testing.assert_array_equal(served["token_ids"], token_ids)
    np.testing.assert_allclose(served["hypothesis_scores"], scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(served["hypothesis_log_probs"], log_probs, rtol=0, atol=1e-5)


def test_every_type_passes_unchanged(stand_in: grpcclient.InferenceServerClient) -> None:
    dtypes = ["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
    inputs = {
        f"i{kind}__{index}": np.array([[0, 1, 1]]).astype(dtype)
        for index, (kind, dtype) in enumerate(zip(ALL_TYPES, dtypes, strict=True))
    }
    outputs = infer(stand_in, "EveryType", **inputs)
    for name, value in inputs.items():
        output = outputs["o" + name[1:]]
        assert output.dtype == value.dtype
        np.testing.assert_array_equal(output, value)


def test_rows_of_several_requests_are_joined_and_split(stand_in_server: BareTriton) -> None:
    def ask(value: int) -> int:
        rows = np.full([1 + value % 2, 3], value, np.float32)
        with grpcclient.InferenceServerClient(stand_in_server.address) as own:
            outputs = infer(own, "Batched", x=rows)
        np.testing.assert_array_equal(outputs["doubled"], 2 * rows)
        return int(outputs["num_rows"].max())

    with ThreadPoolExecutor(5) as pool:
        assert max(pool.map(ask, range(5))) > 2


def test_parameters_are_applied(stand_in: grpcclient.InferenceServerClient) -> None:
    assert infer(stand_in, "WithParameters", x=floats(1))["is_inference"] == 0


def test_a_failed_request_is_reported_and_the_model_goes_on(
    stand_in: grpcclient.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        infer(stand_in, "Raises", x=floats(11))
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert caught.value.message() == (
        "PyTorch execute failure: The following operation failed in the TorchScript interpreter. "
        "builtins.ValueError: too big"
    )
    assert infer(stand_in, "Raises", x=floats(9))["y"] == 9


def test_a_refused_model_is_unavailable_and_says_why(
    stand_in: grpcclient.InferenceServerClient,
) -> None:
    models = {model.name: model for model in stand_in.get_model_repository_index().models}
    assert models["TwoArguments"].state == "UNAVAILABLE"
    assert "configuration expects 1 inputs, model provides 2" in models["TwoArguments"].reason
