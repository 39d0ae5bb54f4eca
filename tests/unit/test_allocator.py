"""The stand-in's allocator settings, seen from the kernel's side."""

import subprocess
import sys

import pytest

#: Blocks of 16 MB, as a layer's weights; the first one that is freed would change glibc's mind.
PREPARATION = """
import resource
import torch
from ofa_server.backends.pytorch.allocator import keep_blocks_apart, pool_blocks

MEGABYTE = 2**20

def block():
    return torch.ones(16 * MEGABYTE, dtype=torch.uint8)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MEGABYTE

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

block()
"""
FREED = """
blocks = [block() for _ in range(10)]
before = resident()
del blocks[::2]
print(before - resident())
"""
MAPPED_ANEW = """
# What is freed is not at once fit for a block that is to start at a multiple of 64.
for _ in range(30):
    block()
before = faults()
for _ in range(10):
    block()
print(faults() - before)
"""


def measure(*lines: str) -> float:
    program = "\n".join((PREPARATION, *lines))
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return float(finished.stdout)


@pytest.mark.parametrize(("setting", "returned"), [("keep_blocks_apart()", True), ("", False)])
def test_blocks_kept_apart_are_given_back_one_by_one(setting: str, returned: bool) -> None:
    # As it comes, glibc leaves five holes in its heap.
    assert (measure(setting, FREED) > 70) == returned


def test_pooled_blocks_are_not_mapped_anew() -> None:
    anew = measure("keep_blocks_apart()", MAPPED_ANEW)
    assert measure("keep_blocks_apart()", "pool_blocks()", MAPPED_ANEW) < anew / 4
