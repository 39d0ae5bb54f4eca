"""Every public name of the client has a docstring, and its place in the reference."""

import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pdoc.doc
import pytest

import ofa_client
import ofa_client.modelscope

ROOT = Path(__file__).parents[2]
MODULES = [ofa_client, ofa_client.modelscope]
NAMES = [(module, name) for module in MODULES for name in module.__all__]
CLASSES = [value for module, name in NAMES if inspect.isclass(value := getattr(module, name))]


def members(cls: type) -> Iterator[str]:
    """The public methods and properties that a class itself defines."""
    for name, value in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_has_a_docstring(module: ModuleType, name: str) -> None:
    # pdoc knows the docstrings of constants, and which one a dataclass has made of its fields.
    assert pdoc.doc.Module(module).members[name].docstring


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_has_docstrings_of_its_own(cls: type) -> None:
    assert cls.__doc__ != cls.__mro__[1].__doc__
    for name in members(cls):
        assert getattr(cls, name).__doc__, name


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_that_lists_its_attributes_lists_them_all(cls: type) -> None:
    _, heading, listed = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    if heading:
        names = re.findall(r"^    (\w+): ", listed, re.MULTILINE)
        assert set(inspect.get_annotations(cls)) <= set(names)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` writes, without a warning."""
    folder = tmp_path_factory.mktemp("reference")
    command = ["make", "--silent", "--old-file=.venv/.setup-stamp", "docs", f"REFERENCE={folder}"]
    made = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_a_section_for_each_name(module: ModuleType, reference: Path) -> None:
    file = reference / f"{module.__name__.replace('.', '/')}.html"
    sections = set(re.findall(r'<section id="([^"]+)">', file.read_text("utf-8")))
    assert sections == set(module.__all__)
    anchors = set(re.findall(r'id="([^"]+)"', file.read_text("utf-8")))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            assert {f"{name}.{member}" for member in members(value)} <= anchors
