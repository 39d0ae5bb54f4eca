"""What the machine is and how fast it multiplies matrices, for the head of every table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

#: Instruction sets that decide which kernels run, as /proc/cpuinfo names them.
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
#: Side of the matrices: large enough for the full rate, small enough for a tenth of a second.
_GEMM_SIZE = 2048
#: What is read to measure memory, and the width of its rows.
_READ_BYTES = 2**30
_READ_WIDTH = 1024
_REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """One machine at one moment.

    Attributes:
        cpu: the processor's name.
        num_cores: that the system offers.
        instruction_sets: those of interest that the processor has.
        torch_version: of the environment that asks.
        load_average: runnable processes over the last minute; near 0 on a quiet machine.
    """

    cpu: str
    num_cores: int
    instruction_sets: list[str]
    torch_version: str
    load_average: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.cpu}, {self.num_cores} cores ({', '.join(self.instruction_sets)}), "
            f"torch {self.torch_version}, load average {self.load_average:.2f} at the start"
        )


def describe_machine() -> Machine:
    """This machine now (Linux only)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    flags = facts.get("flags", "").split()
    return Machine(
        cpu=facts.get("model name", "unknown processor"),
        num_cores=len(os.sched_getaffinity(0)),
        instruction_sets=[name for name in _INSTRUCTION_SETS if name in flags],
        torch_version=torch.__version__,
        load_average=os.getloadavg()[0],
    )


def cache_bytes() -> int:
    """Size of the first core's largest cache (Linux only); 0 if the system does not tell."""
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    # Such as "32768K".
    return max((int(cache.read_text().strip()[:-1]) * 1024 for cache in caches), default=0)


def measure_gemm_rate(num_threads: int, dtype: torch.dtype = torch.float32) -> float:
    """The matrix-multiply rate of the faster of torch's two libraries, in GFLOP/s.

    `torch.mm` calls MKL, which keeps its fastest kernels for Intel's processors; oneDNN does not.
    """
    torch.set_num_threads(num_threads)
    left, right = (torch.rand(_GEMM_SIZE, _GEMM_SIZE).to(dtype) for _ in range(2))
    products: list[Callable[[], Tensor]] = [lambda: left @ right]
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(right, _GEMM_SIZE)
        products.append(
            lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
        )
    seconds = min(_time(product) for product in products for _ in range(_REPEATS))
    return 2 * _GEMM_SIZE**3 / seconds / 1e9


def measure_read_rate(num_threads: int) -> float:
    """How fast memory is read, in GB/s: a product of few rows with a matrix that no cache holds."""
    torch.set_num_threads(num_threads)
    rows, matrix = (
        torch.rand(2, _READ_WIDTH),
        torch.rand(_READ_BYTES // 4 // _READ_WIDTH, _READ_WIDTH),
    )
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix, len(rows))
    seconds = min(
        _time(lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], ""))
        for _ in range(_REPEATS)
    )
    return _READ_BYTES / seconds / 1e9


def _time(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
