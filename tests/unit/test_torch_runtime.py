"""A server with an older PyTorch than the exporter's is refused."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import pytest
import torch

from ofa_server import torch_runtime
from ofa_server.errors import ServerError
from ofa_server.installation import Installation, find_installation

LIBTORCH = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"


def make_repository(folder: Path, **torch_by_version: str) -> Path:
    for version, number in torch_by_version.items():
        manifest = folder / "caption" / version.strip("v") / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"versions": {"torch": number}}))
    return folder


def check(installation: Installation, repository: Path) -> str | None:
    return torch_runtime.check_torch(installation, repository, {"caption": None})


def test_the_installed_torch_must_be_as_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_repository(tmp_path, v1="2.12.0", v2="2.13.0+cpu")
    installation = find_installation()
    assert not installation.has_pytorch
    for enough in ("2.13.0", "2.13.1+cu130", "2.14.0a0", "3.0.0", "2.100.0"):
        monkeypatch.setattr(importlib.metadata, "version", lambda _, number=enough: number)
        assert check(installation, repository) is None
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.9.1")
    reason = (
        r"^version 2 of caption was exported with torch 2\.13\.0\+cpu and this server runs "
        r"2\.9\.1; "
        "export it with that version, or serve with a newer one$"
    )
    with pytest.raises(ServerError, match=reason):
        check(installation, repository)


def test_a_missing_torch_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ServerError, match="torch for the stand-in is not installed"):
        check(find_installation(), make_repository(tmp_path, v1="2.13.0"))


def test_a_repository_without_manifests_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "caption" / "1").mkdir(parents=True)
    (tmp_path / "caption" / "1" / "manifest.json").write_text("by hand")
    assert check(find_installation(), tmp_path) is None


@pytest.fixture
def with_backend(tmp_path: Path) -> Installation:
    """An installation whose C++ backend has this machine's libtorch."""
    backend = tmp_path / "backends" / "pytorch"
    backend.mkdir(parents=True)
    (backend / "libtriton_pytorch.so").touch()
    for library in LIBTORCH.parent.glob("*.so*"):
        (backend / library.name).symlink_to(library)
    unused = tmp_path / "unused"
    return Installation(unused, backend.parent, unused, (), from_wheel=False)


def test_a_libtorch_says_its_version(with_backend: Installation, tmp_path: Path) -> None:
    own = ".".join(torch.__version__.split(".")[:2])
    assert torch_runtime.libtorch_version(LIBTORCH, os.environ) == own
    assert check(with_backend, make_repository(tmp_path / "now", v1=torch.__version__)) is None
    newer = make_repository(tmp_path / "newer", v1="9.1.0")
    with pytest.raises(ServerError, match=rf"torch 9\.1\.0 and this server runs {own}; "):
        check(with_backend, newer)


def test_a_libtorch_that_does_not_say_is_warned_of(
    with_backend: Installation, tmp_path: Path
) -> None:
    library = with_backend.backends / "pytorch" / "libtorch_cpu.so"
    library.unlink()
    library.write_bytes(b"not a library")
    warning = check(with_backend, make_repository(tmp_path, v1="2.13.0"))
    assert warning == (
        "the version of this server's libtorch cannot be found out; it must be at least 2.13.0, "
        "which version 1 of caption was exported with"
    )
