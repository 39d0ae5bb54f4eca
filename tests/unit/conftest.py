from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from ofa.model import OFAModel
from tests.unit import tiny
from tests.unit.scripted_triton import scripted_triton  # noqa: F401 - a fixture

# The same examples in every run, however busy the machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are too small to share out, and the threads would fight for a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vocab.json` and `merges.txt` of a small byte-level BPE; not to be changed."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def chinese_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small `vocab.txt`; not to be changed."""
    folder = tmp_path_factory.mktemp("chinese_tokenizer")
    tiny.write_chinese_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> OFAModel:
    """A model of `tiny.make_config()`; not to be changed."""
    return tiny.make_model(tiny.make_config())


@pytest.fixture
def checkpoint_folder(tmp_path: Path, tiny_model: OFAModel, tokenizer_folder: Path) -> Path:
    """`tiny_model` in ModelScope's layout; a test's own, to break as it likes."""
    folder = tmp_path / "ofa_tiny"
    folder.mkdir()
    tiny.write_checkpoint(folder, tiny_model, tokenizer_folder)
    return folder
