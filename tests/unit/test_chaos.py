"""The pure parts of `chaos/`: figures, what is told from samples and outcomes, and the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from benchmarks.machine import Machine
from benchmarks.sections import END, begin
from chaos import __main__ as chaos
from chaos import report
from chaos.figures import Figure, at_least, at_most, growth, none, reported
from chaos.load import Outcome, between, failed, percentile_ms
from chaos.mixes import MIXES
from chaos.overload import Phase, recovery_figure
from chaos.processes import Usage, is_alive, shared_bytes, tree, usage
from chaos.servers import ChaosError

# Figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "within"),
    [
        (at_most("x", 5, 5, "s"), True),
        (at_most("x", 5.1, 5, "s"), False),
        (at_least("x", 95, 95), True),
        (at_least("x", 94.9, 95), False),
        (none("x", 0), True),
        (none("x", 1), False),
        (reported("x", 1e9), True),
    ],
)
def test_a_figure_knows_whether_it_is_within_its_bound(figure: Figure, within: bool) -> None:
    assert figure.within == within


def test_what_fills_in_the_first_sixth_is_no_growth() -> None:
    assert growth([*range(10), *[10.0] * 50]) == 0


@pytest.mark.parametrize("slope", [-1.0, 0.5])
def test_what_goes_on_is(slope: float) -> None:
    # From the middle of the second sixth to the middle of the last.
    assert growth([slope * at for at in range(60)]) == pytest.approx(40 * slope)


def test_what_comes_and_goes_evens_out() -> None:
    assert growth([at % 2 for at in range(60)]) == 0


def test_growth_is_not_told_from_too_little() -> None:
    with pytest.raises(ValueError, match="6 samples or more, not 5"):
        growth([0.0] * 5)


# Outcomes -----------------------------------------------------------------------------------------


def outcome(due: float = 0.0, seconds: float = 0.0, code: str = "OK") -> Outcome:
    return Outcome(due, due, due + seconds, code, "")


def test_waiting_counts_from_when_a_request_was_due() -> None:
    late = Outcome(due=10.0, sent=12.0, ended=13.0, code="OK", details="")
    assert late.seconds == 3.0


def test_percentiles_are_those_of_the_callers() -> None:
    outcomes = [outcome(seconds=seconds / 1000) for seconds in range(101)]
    assert percentile_ms(outcomes, 50) == pytest.approx(50)
    assert percentile_ms(outcomes, 99) == pytest.approx(99)
    with pytest.raises(ChaosError, match="nothing whose times"):
        percentile_ms([], 50)


def test_a_part_of_the_time_has_what_was_due_in_it() -> None:
    outcomes = [outcome(due) for due in (0.0, 1.0, 2.0, 3.0)]
    assert [each.due for each in between(outcomes, 1.0, 3.0)] == [1.0, 2.0]


@pytest.mark.parametrize(("seconds", "recovered"), [(0.1, True), (0.9, False)])
def test_a_server_whose_answers_stay_late_has_not_recovered(
    seconds: float, recovered: bool
) -> None:
    alone = Phase([outcome(float(at), 0.1) for at in range(5)], 0.0, 5.0, 0.1)
    flood = Phase([], 5.0, 20.0, 1.0)
    later = Phase([outcome(20.0 + at, seconds) for at in range(10)], 20.0, 30.0, 0.1)
    figure = recovery_figure(alone, flood, later)
    assert figure.within is recovered
    if recovered:
        assert figure.value == pytest.approx(seconds)


def test_a_refusal_that_was_called_for_is_no_failure() -> None:
    codes = ["OK", "EXPECTED", "UNAVAILABLE", "INVALID_ARGUMENT"]
    assert [each.code for each in failed(outcome(code=code) for code in codes)] == codes[2:]


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_is_of_requests(mix: str) -> None:
    for prepared in MIXES[mix]():
        request = service_pb2.ModelInferRequest.FromString(prepared.message)
        assert request.model_name
        assert len(request.inputs) == len(request.raw_input_contents) > 0
        assert {tuple(tensor.shape) for tensor in request.inputs} == {(1, 1)}
        if request.inputs[0].name == "image":
            assert request.raw_input_contents[0].endswith(prepared.picture)


# Processes ----------------------------------------------------------------------------------------


def test_a_tree_has_children_and_ends_with_them() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()
        [parent, child] = tree(shell.pid)
        assert parent == shell.pid
        assert is_alive(child)
        assert usage(child).threads == 1
        os.kill(child, signal.SIGKILL)
    for pid in (parent, child):
        assert not is_alive(pid)
        assert tree(pid) == []
        assert usage(pid) == Usage()


def test_handles_are_counted() -> None:
    before = usage(os.getpid())
    read, write = os.pipe()
    after = usage(os.getpid())
    os.close(read)
    os.close(write)
    assert after.handles == before.handles + 2
    assert before.rss > 1e6


def test_usages_add_up() -> None:
    assert sum([Usage(1, 2, 3), Usage(10, 20, 30)], Usage()) == Usage(11, 22, 33)


def test_regions_count_what_they_take(tmp_path: Path) -> None:
    region = tmp_path / "region"
    region.write_bytes(b"x" * 100_000)
    with region.open("r+b") as file:
        file.truncate(10**9)
    assert 100_000 <= shared_bytes({region, tmp_path / "gone"}) < 10**6


# The report ---------------------------------------------------------------------------------------

MACHINE = Machine("EPYC", 2, ["avx2"], "", "2.13", 0.5)


def test_a_section_says_where_it_was_measured_and_what_was_not_kept() -> None:
    figures = [at_most("time to recover", 6.54321, 5, "s", "a | b"), none("failed calls", 0)]
    entry = json.loads(json.dumps(report.make_entry(MACHINE, "abc1234", 1.26, figures)))
    assert report.render(entry).splitlines() == [
        f"{MACHINE}; commit abc1234; 1.3 minutes.",
        "",
        "| what | measured | bound | seen with it |",
        "| --- | --- | --- | --- |",
        "| time to recover | 6.54 s | at most 5 s: **not kept** | a \\| b |",
        "| failed calls | 0 | 0 |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.0, "12,345"), (1234.5, "1,234"), (0.01234, "0.0123"), (99.94, "99.9")],
)
def test_values_have_three_digits_and_counts_all(value: float, text: str) -> None:
    assert report.format_value(value) == text


# The command --------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns the exit status, and the names of what was recorded."""
    monkeypatch.setattr(chaos, "RECORD", tmp_path / "measured.json")
    monkeypatch.setattr(report, "RECORD", tmp_path / "measured.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(
        "".join(begin(report.command(name)) + END for name in chaos.SCENARIOS)
    )

    def scenario(name: str) -> Any:
        def run(repository: Path, quick: bool) -> list[Figure]:
            if name == "chaos.kills":
                raise ChaosError("it did not start")
            return [none("failed calls", int(name == "chaos.overload"))]

        return SimpleNamespace(__doc__="Why?", run=run)

    monkeypatch.setattr(chaos.importlib, "import_module", scenario)

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
        status = chaos.main()
        record = tmp_path / "measured.json"
        return status, sorted(json.loads(record.read_text())) if record.exists() else []

    return run


def test_what_is_within_its_bounds_is_recorded(run: Run) -> None:
    assert run("misfortunes") == (0, ["misfortunes"])
    # The others' figures stay.
    assert run("rolling_restart") == (0, ["misfortunes", "rolling_restart"])


def test_a_bound_that_is_not_kept_is_recorded_and_told(run: Run) -> None:
    assert run("overload") == (1, ["overload"])


def test_a_scenario_that_cannot_go_on_does_not_stop_the_others(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("kills", "misfortunes") == (1, ["misfortunes"])
    assert "kills: it did not start" in capsys.readouterr().err


def test_all_but_the_hour_are_run(run: Run) -> None:
    status, recorded = run()
    assert status == 1
    assert set(recorded) == set(chaos.SCENARIOS) - {"kills", "soak"}


def test_a_quick_run_records_nothing(run: Run) -> None:
    assert run("--quick", "misfortunes") == (0, [])


def test_an_unknown_scenario_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("fire")
    assert "there is no scenario 'fire'" in capsys.readouterr().err
