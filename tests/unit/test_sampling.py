"""Nucleus sampling against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa.generation.sampling import draw, nucleus

PROBS = [0.05, 0.4, 0.2, 0.25, 0.1]


def log_probs_of(probs: list[float]) -> torch.Tensor:
    return torch.tensor(probs).log()


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.3, [1]), (0.41, [1, 3]), (0.8, [1, 3, 2]), (0.9, [1, 3, 2, 4]), (2.0, [1, 3, 2, 4, 0])],
)
def test_the_likeliest_tokens_are_kept_until_their_mass_suffices(
    top_p: float, kept: list[int]
) -> None:
    probs, tokens = nucleus(log_probs_of(PROBS), top_p)
    assert tokens[: len(kept)].tolist() == kept
    torch.testing.assert_close(probs[: len(kept)], torch.tensor([PROBS[t] for t in kept]))
    assert not probs[len(kept) :].any()


@given(
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=20),
    st.floats(0.01, 1.0),
    st.floats(0.05, 1.0),
)
def test_a_nucleus_is_the_smallest_set_with_enough_mass(
    weights: list[float], top_p: float, total: float
) -> None:
    probs = torch.tensor(weights)
    log_probs = (probs / probs.sum() * total).log()
    kept = nucleus(log_probs, top_p)[0]
    kept = kept[kept > 0]
    if len(kept) < len(weights):
        assert float(kept.sum()) >= top_p - 1e-5
    assert float(kept[:-1].sum()) < top_p + 1e-5


@pytest.mark.parametrize(
    ("uniform", "token"),
    [
        *((0.0, 1), (0.46, 1), (0.48, 3), (0.76, 3), (0.77, 2), (0.9999999, 2)),
        (1 - 2**-53, 2),
    ],
)
def test_a_number_picks_the_token_whose_share_it_falls_into(uniform: float, token: int) -> None:
    """Of the mass 0.85 of tokens 1, 3 and 2, the shares end at 0.471, 0.765 and 1."""
    drawn = draw(log_probs_of(PROBS), 0.8, torch.tensor(uniform, dtype=torch.float64))
    assert int(drawn) == token


def test_tokens_come_as_often_as_they_are_likely() -> None:
    count = 20_000
    numbers = (torch.arange(count) + 0.5).double() / count
    drawn = draw(log_probs_of(PROBS).expand(count, -1), 0.9, numbers)
    frequency = torch.bincount(drawn, minlength=5) / count
    expected = torch.tensor([0.0, 0.4, 0.2, 0.25, 0.1]) / 0.95
    torch.testing.assert_close(frequency, expected, rtol=0, atol=2 / count)


def test_rows_are_drawn_on_their_own() -> None:
    log_probs = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    numbers = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)).double()
    together = draw(log_probs, 0.9, numbers)
    alone = [[int(draw(log_probs[b, k], 0.9, numbers[b, k])) for k in range(4)] for b in range(3)]
    assert together.tolist() == alone
