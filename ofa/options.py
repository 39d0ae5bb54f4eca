"""The generation options of one request: names, dtypes, defaults and ranges.

Options travel as tensors, one value a row, so that rows with different options share a batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

import numpy as np

from ofa.errors import InvalidOptionError


@dataclass(frozen=True)
class GenerationOptions:
    """One row's options, all filled in.

    Attributes:
        num_hypotheses: how many are wanted, best first. A request calls it by what its task
            finds: `num_captions`, `num_boxes`, ...
        beam_size: hypotheses kept alive at every step.
        max_length: most tokens of an answer, EOS not counted.
        min_length: fewest tokens of an answer, EOS not counted.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        length_penalty: exponent on the length in tokens, EOS included, that divides the summed
            log-probability; 1 gives the mean, 0 the sum.
        temperature: divides the logits before the softmax.
    """

    num_hypotheses: int
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

#: The option whose name in a request depends on the task.
COUNT_OPTION = "num_hypotheses"

#: Bounds without a natural limit, wide enough for any use and far from float32's overflow.
_MAX_LENGTH_PENALTY = 10.0
_MIN_TEMPERATURE = float(np.float32(0.01))  # what an FP32 tensor holds of it
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


def request_options(count_option: str) -> dict[str, type[np.generic]]:
    """The options of a request and their tensor dtypes, with the count under its own name."""
    return {
        count_option if name == COUNT_OPTION else name: dtype
        for name, dtype in OPTION_DTYPES.items()
    }


def resolve_options(
    given: Mapping[str, int | float],
    defaults: GenerationOptions,
    limits: OptionLimits,
    count_option: str = COUNT_OPTION,
) -> GenerationOptions:
    """Fill in what a request leaves out, and check every value.

    A default that a given value makes impossible gives way to it: `max_length` 4 lowers a default
    `min_length` of 8, `beam_size` 1 a default `num_hypotheses` of 2.

    Args:
        given: what the request names.
        defaults: for what it does not name.
        limits: of the exported generator.
        count_option: what the request calls `num_hypotheses`.

    Raises:
        InvalidOptionError: an unknown name, or a value out of range.
    """
    check_known(given, request_options(count_option))

    def take(name: str, minimum: float, maximum: float) -> float:
        default: int | float = getattr(defaults, name)
        asked_as = count_option if name == COUNT_OPTION else name
        value = given.get(asked_as)
        if value is None:
            value = min(max(default, minimum), maximum)
        check_range(asked_as, value, minimum, maximum)
        return int(value) if isinstance(default, int) else float(value)

    # Longer n-grams than an answer bar nothing, yet a checkpoint may ask for them.
    longest_ngram = max(limits.max_length, defaults.no_repeat_ngram_size)
    beam_size = take("beam_size", 1, limits.max_beam_size)
    max_length = take("max_length", 1, limits.max_length)
    return GenerationOptions(
        num_hypotheses=int(take(COUNT_OPTION, 1, beam_size)),
        beam_size=int(beam_size),
        max_length=int(max_length),
        min_length=int(take("min_length", 0, max_length)),
        no_repeat_ngram_size=int(take("no_repeat_ngram_size", 0, longest_ngram)),
        length_penalty=take("length_penalty", -_MAX_LENGTH_PENALTY, _MAX_LENGTH_PENALTY),
        temperature=take("temperature", _MIN_TEMPERATURE, _MAX_TEMPERATURE),
    )


def check_known(given: Collection[str], known: Collection[str]) -> None:
    """Refuse options that a task does not have.

    Raises:
        InvalidOptionError: naming them and those that it has.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidOptionError(
            f"unknown option {', '.join(unknown)}; known are {', '.join(known)}"
        )


def check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    """Refuse an option's value out of range.

    Raises:
        InvalidOptionError: naming the option, the value and its range.
    """
    if not (math.isfinite(value) and minimum <= value <= maximum):
        raise InvalidOptionError(f"{name} is {value:g}; allowed are {minimum:g} to {maximum:g}")
