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
from ofa.export import DTYPES as EXPORT_DTYPES

#: What `ofa export --precision` takes.
PRECISIONS = tuple(EXPORT_DTYPES)


class Arithmetic(NamedTuple):
    """What an export in some precision computes in, by the names of dtypes.

    Attributes:
        source: stem, encoder, and the keys and values of the source.
        decoder: the products of a decoder step.
        vocabulary: the projection onto the vocabulary.
    """

    source: str
    decoder: str
    vocabulary: str


#: By the name of the precision, as `ofa.lowering` makes it.
ARITHMETIC = {
    "float32": Arithmetic("float32", "float32", "float32"),
    "bfloat16": Arithmetic("bfloat16", "bfloat16", "float16"),
    "float16": Arithmetic("float16", "float16", "float16"),
    "int8": Arithmetic("bfloat16", "int8", "int8"),
}


def step_bytes(numbers: Mapping[str, int], precision: str, batch_size: int) -> int:
    """Bytes that a decoder step reads of `count_step_numbers`."""
    source, decoder, vocabulary = (DTYPES[name].itemsize for name in ARITHMETIC[precision])
    return (
        numbers["weights"] * decoder
        + numbers["vocabulary"] * vocabulary
        + batch_size * numbers["keys, values"] * source
    )


def time_limits(
    work: Mapping[str, Work],
    num_bytes: int,
    num_steps: int,
    precision: str,
    batch_size: int,
    ceilings: Ceilings,
    device: torch.device,
) -> dict[str, float]:
    """Seconds a picture by stage, and for their sum, the "generator".

    Args:
        work: by stage, of one picture.
        num_bytes: that every decoder step reads; if a cache holds them, then from memory once.
        num_steps: tokens of the answer, EOS counted.
        precision: of the export.
        batch_size: pictures at once.
        ceilings: the machine's.
        device: that computes.
    """
    arithmetic = ARITHMETIC[precision]
    convolution = ceilings.convolution[arithmetic.source]
    limits = {}
    for stage, (convolutions, products) in work.items():
        dtype = arithmetic.decoder if stage == "decoding" else arithmetic.source
        limits[stage] = (convolutions / convolution + products / ceilings.matrix[dtype]) / 1e9
    num_reads = num_steps if num_bytes > cache_bytes(device) else 1
    reading = num_reads * num_bytes / ceilings.memory / 1e9 / batch_size
    limits["decoding"] = max(limits["decoding"], reading)
    return {**limits, "generator": sum(limits.values())}
