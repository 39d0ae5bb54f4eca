"""The distributions: what the wheel carries, and that every installed version is a pinned one."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("model_repository", "ofa", "samples", "server"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=MADE)
    for name in ("LICENSE", "NOTICE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder, source],
        check=True,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_carries_the_model_repository(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    for folder, prefix in (
        ("model_repository", "ofa_server/model_repository"),
        ("server/ofa_server/backends", "ofa_server/backends"),
    ):
        files = [
            file.relative_to(ROOT / folder)
            for pattern in ("*.py", "*.pbtxt")
            for file in (ROOT / folder).rglob(pattern)
        ]
        assert files
        assert {f"{prefix}/{file}" for file in files} <= carried
    assert {"ofa/py.typed", "ofa_server/py.typed", "ofa_server/gateway/page.html"} <= carried
    samples = {f"ofa_server/gateway/samples/{file.name}" for file in (ROOT / "samples").iterdir()}
    assert samples <= carried
    assert not any(name.startswith(("tests/", "training/", "client/")) for name in carried)


def test_the_wheel_alone_imports_without_torch(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import sys; sys.modules['torch'] = None; import ofa.tasks, ofa_server.cli; "
        "print(ofa.tasks.__file__)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith(str(tmp_path))


def test_every_installed_version_is_pinned() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pinned = {canonical(name): version for name, version in pins.items()}
    installed = {
        canonical(distribution.name): distribution.version.partition("+")[0]
        for distribution in importlib.metadata.distributions()
    }
    for own in ("ofa-triton", "ofa-client"):
        del installed[own]
    assert {name: pinned.get(name) for name in installed} == installed


def test_there_is_one_version() -> None:
    versions = {
        "pyproject.toml": r'^version = "(.+)"$',
        "client/pyproject.toml": r'^version = "(.+)"$',
        "docker/compose.yaml": r"image: ofa-triton:(.+)$",
        "kubernetes/ofa-triton/Chart.yaml": r'^appVersion: "(.+)"$',
    }
    found = {
        version
        for file, pattern in versions.items()
        for version in re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE) or [file]
    }
    assert found == {importlib.metadata.version("ofa-triton")}
