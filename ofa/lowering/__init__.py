"""The network as it is exported: the same results from fewer and faster operations.

Models are read, trained and understood as `ofa.model` has them. An export replaces what is slow
there, module by module; each replacement says in its docstring what it stands for.
"""

from __future__ import annotations

from torch import nn

from ofa.lowering.for_cpu import CPU_PRECISIONS, lower_for_cpu
from ofa.lowering.for_cuda import CUDA_PRECISIONS, lower_for_cuda

__all__ = ["PORTABLE_PRECISIONS", "PRECISIONS", "lower", "lower_portably"]

#: What can be exported for a device, by its name.
PRECISIONS = {"cpu": tuple(CPU_PRECISIONS), "cuda": tuple(CUDA_PRECISIONS)}
#: What can be exported with PyTorch's own operators only. On CPUs float16 and int8 are FBGEMM's and
#: oneDNN's.
PORTABLE_PRECISIONS = {"cpu": ("float32", "bfloat16"), "cuda": PRECISIONS["cuda"]}


def lower(
    generator: nn.Module, image_size: int, precision: str = "float32", device: str = "cpu"
) -> nn.Module:
    """A generator for one kind of device, made from one as checkpoints give it.

    In every precision, what layers are added to, norms of that sum, logits and scores are float32,
    and on a CPU so are position biases.

    Args:
        generator: is not changed.
        image_size: side in pixels of the pictures that it will get.
        precision: one of `PRECISIONS[device]`.
        device: that it will run on.
    """
    if device == "cuda":
        return lower_for_cuda(generator, CUDA_PRECISIONS[precision])
    return lower_for_cpu(generator, image_size, CPU_PRECISIONS[precision])


def lower_portably(generator: nn.Module, precision: str = "float32") -> nn.Module:
    """As `lower`, with PyTorch's own operators only (`aten::`), which every build of it has.

    On a CPU, an answer's last bits can depend on its neighbours in the batch.

    Args:
        generator: is not changed.
        precision: one of `PORTABLE_PRECISIONS` for the device that it will run on.
    """
    # What is made for GPUs has no others, and runs wherever the dtype does.
    return lower_for_cuda(generator, CUDA_PRECISIONS[precision])
