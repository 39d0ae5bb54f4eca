"""The least seconds that a machine needs for the counted work: its roofline, stage by stage.

A stage takes its convolutions and products at the rates of their dtype, or, for decoding, the
reading of weights, keys and values from memory at every step, whichever is longer. Norms, softmax
and the search count nothing: the limit is out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from benchmarks.machine import DTYPES, Ceilings, cache_bytes
from benchmarks.work import Work


class Arithmetic(NamedTuple):
    """What an export in some precision computes in, by the names of dtypes.

    Attributes:
        source: of stem, encoder, and the keys and values of the source.
        step: of the products of a decoder step.
        step_weights: of what these read.
        vocabulary_weights: of the projection onto the vocabulary.
    """

    source: str
    step: str
    step_weights: str
    vocabulary_weights: str


#: By device and precision, as `ofa.lowering` makes it.
ARITHMETIC = {
    "cpu": {
        "float32": Arithmetic("float32", "float32", "float32", "float32"),
        "bfloat16": Arithmetic("bfloat16", "bfloat16", "bfloat16", "float16"),
        "float16": Arithmetic("float32", "float32", "float16", "float16"),
        "int8": Arithmetic("bfloat16", "int8", "int8", "float16"),
    },
    "cuda": {
        "float32": Arithmetic("float32", "float32", "float32", "float32"),
        "bfloat16": Arithmetic("bfloat16", "bfloat16", "bfloat16", "float32"),
        "float16": Arithmetic("float16", "float16", "float16", "float32"),
    },
}


def step_bytes(numbers: Mapping[str, int], arithmetic: Arithmetic, batch_size: int) -> int:
    """Bytes that a decoder step reads of `count_step_numbers`."""
    source, _, weights, vocabulary = (DTYPES[name].itemsize for name in arithmetic)
    return (
        numbers["weights"] * weights
        + numbers["vocabulary"] * vocabulary
        + batch_size * numbers["keys, values"] * source
    )


def time_limits(
    work: Mapping[str, Work],
    num_bytes: int,
    num_steps: int,
    arithmetic: Arithmetic,
    batch_size: int,
    ceilings: Ceilings,
    device: torch.device,
) -> dict[str, float]:
    """Seconds a picture by stage, and for their sum, the "generator".

    Args:
        work: by stage, of one picture.
        num_bytes: that every decoder step reads; if a cache holds them, then from memory once.
        num_steps: tokens of the answer, EOS counted.
        arithmetic: of the export.
        batch_size: pictures at once.
        ceilings: the machine's.
        device: that computes.
    """
    convolution = ceilings.convolution[arithmetic.source]
    limits = {}
    for stage, (convolutions, products) in work.items():
        dtype = arithmetic.step if stage == "decoding" else arithmetic.source
        limits[stage] = (convolutions / convolution + products / ceilings.matrix[dtype]) / 1e9
    num_reads = num_steps if num_bytes > cache_bytes(device) else 1
    reading = num_reads * num_bytes / ceilings.memory / 1e9 / batch_size
    limits["decoding"] = max(limits["decoding"], reading)
    return {**limits, "generator": sum(limits.values())}
