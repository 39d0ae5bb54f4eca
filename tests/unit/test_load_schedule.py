from itertools import islice, pairwise
from statistics import mean, stdev

import pytest

from load_tests.plan import Stage
from load_tests.schedule import arrivals, borders, share, slot_seconds, stage_at

STAGES = [Stage(10, rate=4), Stage(5), Stage(20, rate=0.5)]


def test_stages_follow_one_another() -> None:
    assert borders(STAGES) == [0, 10, 15, 35]
    assert [stage_at(STAGES, at) for at in (0, 9.99, 10, 14.9, 15, 34.9, 35, 99)] == [
        0, 0, 1, 1, 2, 2, None, None,
    ]  # fmt: skip


def test_even_arrivals_keep_the_rate_of_each_stage() -> None:
    times = list(arrivals(STAGES, "even", seed=0))
    assert [sum(stage_at(STAGES, at) == number for at in times) for number in range(3)] == [
        40, 0, 10,
    ]  # fmt: skip
    gaps = [after - before for before, after in pairwise(times[:40])]
    assert gaps == pytest.approx([0.25] * 39)


def test_a_slow_rate_adds_up_over_the_stages() -> None:
    halves = [Stage(1, rate=0.5)] * 8
    assert list(arrivals(halves, "even", seed=0)) == pytest.approx([1, 3, 5, 7])


def test_poisson_arrivals_are_those_of_independent_callers() -> None:
    rate, seconds = 50, 400
    times = list(arrivals([Stage(seconds, rate=rate)], "poisson", seed=1))
    gaps = [after - before for before, after in pairwise(times)]
    # The gaps of a Poisson process have a mean and a standard deviation of 1 / rate.
    assert mean(gaps) == pytest.approx(1 / rate, rel=0.03)
    assert stdev(gaps) == pytest.approx(1 / rate, rel=0.03)
    counts = [sum(second <= at < second + 1 for at in times) for second in range(seconds)]
    assert stdev(counts) ** 2 == pytest.approx(mean(counts), rel=0.25)


def test_a_seed_gives_the_same_schedule_again() -> None:
    first, again, other = (list(arrivals(STAGES, "poisson", seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(first)


@pytest.mark.parametrize("kind", ["even", "poisson"])
def test_the_shares_of_all_processes_are_the_schedule(kind: str) -> None:
    whole = list(arrivals(STAGES, kind, seed=3))
    shares = [list(share(arrivals(STAGES, kind, seed=3), index, 3)) for index in range(3)]
    assert sorted(at for own in shares for at in own) == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_hour_is_not_made_beforehand() -> None:
    assert len(list(islice(arrivals([Stage(10**9, rate=10**6)], "poisson", seed=0), 5))) == 5


def test_a_course_has_at_most_120_slots() -> None:
    assert slot_seconds(30) == 1
    assert slot_seconds(3600) == 30
