"""The generation options of one request: names, dtypes, defaults and ranges.

Options travel as tensors, one value a row, so that rows with different options share a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from ofa.errors import InvalidOptionError


@dataclass(frozen=True)
class GenerationOptions:
    """One row's options, all filled in.

    Attributes:
        num_captions: hypotheses wanted, best first.
        beam_size: hypotheses kept alive at every step.
        max_length: most tokens of an answer, EOS not counted.
        min_length: fewest tokens of an answer, EOS not counted.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        length_penalty: exponent on the length in tokens, EOS included, that divides the summed
            log-probability; 1 gives the mean, 0 the sum.
        temperature: divides the logits before the softmax.
    """

    num_captions: int
    beam_size: int
    max_length: int
    min_length: int
    no_repeat_ngram_size: int
    length_penalty: float
    temperature: float


#: Tensor dtype of every option, in the order of the generator's arguments.
OPTION_DTYPES: dict[str, type[np.generic]] = {
    field.name: np.int32 if field.type == "int" else np.float32
    for field in fields(GenerationOptions)
}

#: Bounds without a natural limit, wide enough for any use and far from float32's overflow.
_MAX_LENGTH_PENALTY = 10.0
_MIN_TEMPERATURE = 0.01
_MAX_TEMPERATURE = 100.0


@dataclass(frozen=True)
class OptionLimits:
    """What an exported generator is bounded by.

    Attributes:
        max_beam_size: largest `beam_size` a request may ask for.
        max_length: largest `max_length` a request may ask for.
    """

    max_beam_size: int
    max_length: int


def resolve_options(
    given: Mapping[str, int | float], defaults: GenerationOptions, limits: OptionLimits
) -> GenerationOptions:
    """Fill in what a request leaves out, and check every value.

    A default that a given value makes impossible gives way to it: `max_length` 4 lowers a default
    `min_length` of 8, `beam_size` 1 a default `num_captions` of 2.

    Raises:
        InvalidOptionError: an unknown name, or a value out of range.
    """
    unknown = sorted(set(given) - set(OPTION_DTYPES))
    if unknown:
        raise InvalidOptionError(
            f"unknown option {', '.join(unknown)}; known are {', '.join(OPTION_DTYPES)}"
        )

    def take(name: str, minimum: float, maximum: float) -> float:
        default: int | float = getattr(defaults, name)
        value = given.get(name)
        if value is None:
            value = min(max(default, minimum), maximum)
        if not (math.isfinite(value) and minimum <= value <= maximum):
            raise InvalidOptionError(f"{name} is {value:g}; allowed are {minimum:g} to {maximum:g}")
        return int(value) if isinstance(default, int) else float(value)

    # Longer n-grams than an answer bar nothing, yet a checkpoint may ask for them.
    longest_ngram = max(limits.max_length, defaults.no_repeat_ngram_size)
    beam_size = take("beam_size", 1, limits.max_beam_size)
    max_length = take("max_length", 1, limits.max_length)
    return GenerationOptions(
        num_captions=int(take("num_captions", 1, beam_size)),
        beam_size=int(beam_size),
        max_length=int(max_length),
        min_length=int(take("min_length", 0, max_length)),
        no_repeat_ngram_size=int(take("no_repeat_ngram_size", 0, longest_ngram)),
        length_penalty=take("length_penalty", -_MAX_LENGTH_PENALTY, _MAX_LENGTH_PENALTY),
        temperature=take("temperature", _MIN_TEMPERATURE, _MAX_TEMPERATURE),
    )
