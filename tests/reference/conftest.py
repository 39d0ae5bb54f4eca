from collections.abc import Iterator

import pytest
import torch

from tests.reference.golden import NUM_THREADS


@pytest.fixture(scope="package", autouse=True)
def threads_of_the_recorder() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield
    torch.set_num_threads(num_threads)
