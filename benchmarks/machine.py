"""What the machine is and how fast it computes and reads, for the head of every table.

The rates are ceilings: the best that torch's own kernels reach on shapes that suit them. They are
measured on the device that is benchmarked, a CPU or a CUDA device.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import progress

#: Load average from which on others take part noticeably.
_BUSY = 0.5
#: By the name that tables and JSON have for them.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
#: Instruction sets that decide which kernels run, as /proc/cpuinfo names them.
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
#: Side of the matrices: large enough for the full rate, small enough for a tenth of a second.
_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
#: (in, out, side of the kernel) of the convolutions that most of a deep ResNet stem consists of.
_CONVOLUTIONS = ((256, 256, 3), (1024, 256, 1), (256, 1024, 1))
#: Side of their input, as pictures of 480 pixels have it, and pictures at once.
_CONVOLUTION_SIDE = 30
_CONVOLUTION_BATCH = {"cpu": 1, "cuda": 32}
#: What is read to measure memory, and the width of its rows.
_READ_BYTES = 2**30
_READ_WIDTH = 1024
_REPEATS = 10


@dataclass(frozen=True)
class Machine:
    """One machine at one moment.

    Attributes:
        cpu: the processor's name.
        num_cores: that the system offers.
        instruction_sets: those of interest that the processor has.
        gpu: the device's name; empty if a CPU was measured.
        torch_version: of the environment that asks.
        load_average: runnable processes over the last minute; near 0 on a quiet machine.
    """

    cpu: str
    num_cores: int
    instruction_sets: list[str]
    gpu: str
    torch_version: str
    load_average: float

    @property
    def name(self) -> str:
        """What does not change from moment to moment, for people."""
        gpu = f"{self.gpu}; " if self.gpu else ""
        sets = ", ".join(self.instruction_sets)
        return f"{gpu}{self.cpu}, {self.num_cores} cores ({sets}), torch {self.torch_version}"

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.name}, load average {self.load_average:.2f} at the start"


@dataclass
class Ceilings:
    """The best rates that were seen so far.

    Attributes:
        matrix: of products of matrices in GFLOP/s (int8: GOP/s), by the name of the dtype.
        convolution: of convolutions, likewise.
        memory: that is read, in GB/s.
    """

    matrix: dict[str, float]
    convolution: dict[str, float]
    memory: float = 0.0


def describe_machine(device: torch.device | None = None) -> Machine:
    """This machine now (Linux only).

    Args:
        device: that is measured; a CPU if None.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    flags = facts.get("flags", "").split()
    if os.getloadavg()[0] > _BUSY:
        progress(f"other programs run (load average {os.getloadavg()[0]:.1f}): figures will suffer")
    is_gpu = device is not None and device.type == "cuda"
    return Machine(
        cpu=facts.get("model name", "unknown processor"),
        num_cores=len(os.sched_getaffinity(0)),
        instruction_sets=[name for name in _INSTRUCTION_SETS if name in flags],
        gpu=torch.cuda.get_device_name(device) if is_gpu else "",
        torch_version=torch.__version__,
        load_average=os.getloadavg()[0],
    )


def cache_bytes(device: torch.device) -> int:
    """Size of the device's largest cache; of a CPU its first core's, 0 if the system is silent."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    # Such as "32768K".
    return max((int(cache.read_text().strip()[:-1]) * 1024 for cache in caches), default=0)


def synchronize(device: torch.device) -> None:
    """Wait for what was started on a CUDA device; a CPU has always ended."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_ceilings(
    ceilings: Ceilings,
    matrix_dtypes: Iterable[str],
    convolution_dtypes: Iterable[str],
    device: torch.device,
) -> None:
    """Measure once more, and raise what is faster than before."""
    for name in matrix_dtypes:
        rate = _measure(_matrix_products(DTYPES[name], device), device)
        ceilings.matrix[name] = max(ceilings.matrix.get(name, 0), rate / 1e9)
    for name in convolution_dtypes:
        rate = _measure(_convolutions(DTYPES[name], device), device)
        ceilings.convolution[name] = max(ceilings.convolution.get(name, 0), rate / 1e9)
    ceilings.memory = max(ceilings.memory, _measure(_reads(device), device) / 1e9)


#: Work of one kind, an operation or a byte each, and what does it.
_Task = tuple[int, Callable[[], Any]]


def _measure(tasks: Iterable[_Task], device: torch.device) -> float:
    """Work a second of the fastest task at its best; the first of its runs is not counted."""
    rates = []
    for work, call in tasks:
        seconds = []
        for _ in range(1 + _REPEATS):
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            seconds.append(time.perf_counter() - start)
        rates.append(work / min(seconds[1:]))
    return max(rates)


def _matrix_products(dtype: torch.dtype, device: torch.device) -> Iterator[_Task]:
    """The same product by each library that torch has for it.

    `torch.mm` calls MKL on a CPU, which keeps its fastest kernels for Intel's processors; oneDNN
    does not.
    """
    size = _MATRIX_SIZE[device.type]
    work = 2 * size**3
    if dtype == torch.int8:
        left, right = (
            torch.randint(-127, 128, (size, size), dtype=torch.int8, device=device)
            for _ in range(2)
        )
        yield work, partial(torch._int_mm, left, right)
        if device.type == "cpu":
            yield work, _quantized_product(left, right)
        return
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    yield work, partial(torch.mm, left, right)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(right, size)
        multiply = torch.ops.mkldnn._linear_pointwise
        yield work, partial(multiply, left, packed, None, "none", [], "")


def _quantized_product(left: Tensor, right: Tensor) -> Callable[[], Any]:
    """A product of int8 matrices by oneDNN, with one scale a column and float32 sums."""
    columns = right.size(1)
    packed = torch.ops.onednn.qlinear_prepack(right, list(left.shape))
    return partial(
        torch.ops.onednn.qlinear_pointwise,
        *(left.to(torch.uint8), 1.0, 0, packed),
        *(torch.ones(columns), torch.zeros(columns, dtype=torch.int64), None),
        *(1.0, 0, torch.float32, "none", [], ""),
    )


def _convolutions(dtype: torch.dtype, device: torch.device) -> Iterator[_Task]:
    """Convolutions of a ResNet's shapes, with weights packed where torch can."""
    batch_size, side = _CONVOLUTION_BATCH[device.type], _CONVOLUTION_SIDE
    for channels_in, channels_out, kernel in _CONVOLUTIONS:
        x = torch.rand(batch_size, channels_in, side, side, device=device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.rand(channels_out, channels_in, kernel, kernel, device=device).to(dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        padding = [kernel // 2] * 2
        work = 2 * batch_size * side**2 * channels_out * channels_in * kernel**2
        if device.type == "cpu" and torch.backends.mkldnn.is_available():
            # Stride, dilation and groups are 1.
            layout = (padding, [1, 1], [1, 1], 1)
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *layout, list(x.shape))
            convolve = torch.ops.mkldnn._convolution_pointwise
            yield work, partial(convolve, x, packed, None, *layout, "none", [], "")
        else:
            yield work, partial(torch.conv2d, x, weight, padding=padding)


def _reads(device: torch.device) -> Iterator[_Task]:
    """A product of few rows with a matrix that no cache holds, or a copy on a CUDA device."""
    matrix = torch.rand(_READ_BYTES // 4 // _READ_WIDTH, _READ_WIDTH, device=device)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        rows = torch.rand(2, _READ_WIDTH)
        packed = torch.ops.mkldnn._reorder_linear_weight(matrix, len(rows))
        multiply = torch.ops.mkldnn._linear_pointwise
        yield _READ_BYTES, partial(multiply, rows, packed, None, "none", [], "")
    else:
        copy = torch.empty_like(matrix)
        # What is written passes the same wires.
        yield 2 * _READ_BYTES, partial(copy.copy_, matrix)
