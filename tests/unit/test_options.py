from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import InvalidOptionError
from ofa.options import OPTION_DTYPES, GenerationOptions, OptionLimits, resolve_options

DEFAULTS = GenerationOptions(
    num_hypotheses=2,
    beam_size=5,
    max_length=16,
    min_length=4,
    no_repeat_ngram_size=3,
    length_penalty=1.0,
    temperature=1.0,
)
LIMITS = OptionLimits(max_beam_size=8, max_length=32)

RANGES = [
    ("num_hypotheses", 1, 5),
    ("beam_size", 1, 8),
    ("max_length", 1, 32),
    ("min_length", 0, 16),
    ("no_repeat_ngram_size", 0, 32),
    ("length_penalty", -10, 10),
    ("temperature", 0.01, 100),
]


def test_dtypes_are_in_the_order_of_the_generators_arguments() -> None:
    assert list(OPTION_DTYPES.items()) == [
        ("num_hypotheses", np.int32),
        ("beam_size", np.int32),
        ("max_length", np.int32),
        ("min_length", np.int32),
        ("no_repeat_ngram_size", np.int32),
        ("length_penalty", np.float32),
        ("temperature", np.float32),
    ]


def test_nothing_given_gives_the_defaults() -> None:
    assert resolve_options({}, DEFAULTS, LIMITS) == DEFAULTS


@pytest.mark.parametrize(("name", "minimum", "maximum"), RANGES)
def test_both_ends_of_a_range_are_allowed(name: str, minimum: float, maximum: float) -> None:
    for bound in (minimum, maximum):
        value = OPTION_DTYPES[name](bound).item()  # as a tensor holds it
        resolved = resolve_options({name: value}, DEFAULTS, LIMITS)
        assert getattr(resolved, name) == value


@pytest.mark.parametrize(("name", "minimum", "maximum"), RANGES)
def test_values_outside_are_refused(name: str, minimum: float, maximum: float) -> None:
    step = 1 if OPTION_DTYPES[name] is np.int32 else 0.001
    for value in (minimum - step, maximum + step, -(2**31), 2**31 - 1):
        with pytest.raises(InvalidOptionError) as caught:
            resolve_options({name: value}, DEFAULTS, LIMITS)
        assert str(caught.value) == f"{name} is {value:g}; allowed are {minimum:g} to {maximum:g}"


@pytest.mark.parametrize("name", ["length_penalty", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidOptionError, match=f"^{name} is"):
        resolve_options({name: value}, DEFAULTS, LIMITS)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        resolve_options({"zoom": 1, "beam_size": 5, "best_of": 2}, DEFAULTS, LIMITS)
    assert str(caught.value) == (
        "unknown option best_of, zoom; known are num_hypotheses, beam_size, max_length, "
        "min_length, no_repeat_ngram_size, length_penalty, temperature"
    )


@pytest.mark.parametrize(
    ("asked", "name", "value"),
    [
        ({"beam_size": 1}, "num_hypotheses", 1),
        ({"max_length": 3}, "min_length", 3),
        ({"max_length": 3, "min_length": 2}, "min_length", 2),
        ({"beam_size": 1, "num_hypotheses": 1}, "num_hypotheses", 1),
    ],
    ids=str,
)
def test_a_default_gives_way_to_a_given_bound(
    asked: dict[str, float], name: str, value: float
) -> None:
    assert getattr(resolve_options(asked, DEFAULTS, LIMITS), name) == value


def test_a_given_value_does_not_give_way() -> None:
    with pytest.raises(InvalidOptionError, match="min_length is 4; allowed are 0 to 3"):
        resolve_options({"max_length": 3, "min_length": 4}, DEFAULTS, LIMITS)
    with pytest.raises(InvalidOptionError, match="num_hypotheses is 2; allowed are 1 to 1"):
        resolve_options({"beam_size": 1, "num_hypotheses": 2}, DEFAULTS, LIMITS)


def test_a_checkpoints_own_ngram_size_may_exceed_the_length() -> None:
    defaults = replace(DEFAULTS, no_repeat_ngram_size=40)
    assert resolve_options({}, defaults, LIMITS) == defaults


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: (
                st.integers(-2, 40)
                if dtype is np.int32
                else st.floats(-20, 120, allow_nan=False, width=32)
            )
            for name, dtype in OPTION_DTYPES.items()
        },
    )
)
def test_what_is_accepted_can_be_searched(asked: dict[str, float]) -> None:
    """Nothing unchecked reaches the generator, and nothing asked for is quietly changed."""
    try:
        resolved = resolve_options(asked, DEFAULTS, LIMITS)
    except InvalidOptionError:
        return
    assert asdict(resolved) | asked == asdict(resolved)
    assert 1 <= resolved.num_hypotheses <= resolved.beam_size <= LIMITS.max_beam_size
    assert 0 <= resolved.min_length <= resolved.max_length <= LIMITS.max_length
    assert resolved.max_length >= 1
    assert resolved.no_repeat_ngram_size >= 0
    assert resolved.temperature > 0
    for name, dtype in OPTION_DTYPES.items():
        assert type(getattr(resolved, name)) is (int if dtype is np.int32 else float)


def test_a_request_counts_what_its_task_finds() -> None:
    resolved = resolve_options({"num_boxes": 3}, DEFAULTS, LIMITS, "num_boxes")
    assert resolved.num_hypotheses == 3
    with pytest.raises(InvalidOptionError, match=r"^num_boxes is 9; allowed are 1 to 5$"):
        resolve_options({"num_boxes": 9}, DEFAULTS, LIMITS, "num_boxes")
    with pytest.raises(
        InvalidOptionError, match=r"^unknown option num_hypotheses; known are num_b"
    ):
        resolve_options({"num_hypotheses": 3}, DEFAULTS, LIMITS, "num_boxes")
