"""Who may import whom: the rules that keep the house in rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ofa", "server", "client", "model_repository")
SOURCES = [
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*.py")
    if "build" not in file.parts
]


def imported_packages(file: Path) -> Iterator[str]:
    """Top-level packages that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0]


IMPORTS = {file.relative_to(ROOT): set(imported_packages(file)) for file in SOURCES}


def importers_of(*packages: str) -> set[Path]:
    return {file for file, imported in IMPORTS.items() if imported & set(packages)}


def files_in(*folders: str) -> set[Path]:
    return {file for file in IMPORTS if str(file).startswith(folders)}


def test_the_library_knows_nothing_of_triton() -> None:
    assert not files_in("ofa/") & importers_of(
        "tritonclient", "triton_python_backend_utils", "ofa_server", "ofa_client"
    )


def test_the_client_knows_neither_the_library_nor_torch() -> None:
    assert not files_in("client/") & importers_of("ofa", "ofa_server", "torch", "transformers")


def test_only_adapters_metrics_and_the_stand_in_touch_pb_utils() -> None:
    assert importers_of("triton_python_backend_utils") == {
        Path("server/ofa_server/adapters.py"),
        Path("server/ofa_server/backends/pytorch/model.py"),
        Path("server/ofa_server/model_metrics.py"),
    }


def test_the_stand_in_is_self_contained() -> None:
    stand_in = files_in("server/ofa_server/backends/")
    assert stand_in
    assert not stand_in & importers_of("ofa", "ofa_server", "ofa_client")


def test_what_is_installed_or_served_imports_no_tests() -> None:
    assert not files_in("ofa/", "server/", "client/", "model_repository/") & importers_of("tests")


@pytest.mark.parametrize("model", ["preprocess", "postprocess"])
def test_what_an_adapter_imports_needs_no_torch(model: str) -> None:
    """NVIDIA's image need not have Python's torch, and a stub that imports it is slow and large."""
    program = (
        "import runpy, sys, types\n"
        "sys.modules['triton_python_backend_utils'] = types.ModuleType('pb_utils')\n"
        "for heavy in ('torch', 'transformers', 'modelscope', 'tritonclient', 'grpc'):\n"
        "    sys.modules[heavy] = None\n"
        f"runpy.run_path({str(ROOT / 'model_repository' / model / '1' / 'model.py')!r})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_serving_imports_no_torch() -> None:
    program = "import sys\nsys.modules['torch'] = None\nimport ofa_server.cli, ofa_server.serve\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_the_gateway_speaks_http() -> None:
    """Its packages are an extra: every other verb must run without them."""
    assert {
        file.parent for file in importers_of("fastapi", "starlette", "pydantic", "uvicorn")
    } == {Path("server/ofa_server/gateway")}
    program = (
        "import sys\n"
        "for extra in ('fastapi', 'starlette', 'pydantic', 'uvicorn', 'prometheus_client'):\n"
        "    sys.modules[extra] = None\n"
        "from ofa_server import cli\n"
        "try:\n"
        "    cli.main(['--help'])\n"
        "except SystemExit as end:\n"
        "    sys.exit(end.code)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
