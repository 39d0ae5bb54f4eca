"""`benchmarks.serving --sweep`: which settings suit this machine and this model?

Five settings are measured: processes that decode pictures (instances of preprocess), instances of
the generator and threads in each, its largest batch, and how long a batch may gather. A grid of
them would take hours. They hardly depend on one another if taken in this order, each with the best
of what went before:

1. how the cores are shared out: instances of the generator by threads, never more than there are;
2. instances of preprocess;
3. the largest batch;
4. the delay.

Every candidate is a server of its own over a copy of the repository's configurations, asked by one
client and by 16. It replaces the best so far if it gives over 3 % more answers at 16 clients, and
lets a single client wait at most 5 % longer than the fastest so far does; so noise moves nothing.
The settings of the repository as it is come first, and twice more at the end, around two more runs
of the best: only what is better in every pair of these as well is recommended.

The whole keeps to `--minutes`: what is left is shared out among the candidates that are left. A
load of less than 3 seconds says nothing, so if time is short the last candidates are not measured;
the report says which.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from google.protobuf import text_format

from benchmarks.clients import WARMUP_SHARE, measure_load
from benchmarks.common import Result, format_table, progress
from benchmarks.exported import describe_commit
from benchmarks.machine import Machine, describe_machine
from benchmarks.serving import linked, serving
from ofa.tensors import Tensors
from ofa_server.admission import MAX_WAITING_PARAMETERS
from ofa_server.model_configs import ModelConfig, num_instances, read_configs

#: Clients that saturate a server.
NUM_CLIENTS = 16
#: More answers a second that count as more, and longer waiting that is too long.
LEAST_GAIN = 0.03
MOST_WAITING = 0.05
BATCH_SIZES = (1, 4, 8, 16)
DELAYS_US = (0, 2000, 5000, 20000)
#: Shorter measurements say nothing.
LEAST_SECONDS = 3.0
_THREADS = "INTRA_OP_THREAD_COUNT"
#: Runs at the end, of the best and of the settings as they are.
_CONFIRMING = 4


@dataclass(frozen=True)
class Settings:
    """What is varied.

    Attributes:
        preprocess_instances: processes that decode and resize.
        generator_instances: networks in memory.
        threads: in each of them.
        max_batch_size: rows that a network gets at once.
        delay_us: microseconds that a batch may gather while nothing runs.
    """

    preprocess_instances: int
    generator_instances: int
    threads: int
    max_batch_size: int
    delay_us: int


@dataclass(frozen=True)
class Candidate:
    """Settings and what they gave.

    Attributes:
        settings: of the server.
        per_second: answers for 16 clients.
        p50_ms: half of these waited at most as long.
        alone_ms: the same for a single client.
        start_seconds: until the server was ready.
    """

    settings: Settings
    per_second: float
    p50_ms: float
    alone_ms: float
    start_seconds: float


#: Takes the place of a first candidate: nobody knows yet how long a server takes to start.
_NOTHING = Candidate(Settings(0, 0, 0, 0, 0), 0, 0, 0, start_seconds=0)


class _Sweep:
    """Measures candidates until the time is over."""

    def __init__(
        self, repository: Path, name: str, requests: Sequence[Tensors], minutes: float
    ) -> None:
        self._repository = repository
        self._name = name
        self._requests = requests
        self._deadline = time.monotonic() + 60 * minutes
        self.candidates: list[Candidate] = []
        self.left_out: list[Settings] = []

    def shipped(self, num_threads: int) -> Settings:
        """The settings of the repository as it is.

        Args:
            num_threads: that the instances of a generator share which is told no number.
        """
        configs = read_configs(self._repository)
        generator = configs[f"{self._name}_generator"]
        # Looked up in a copy, because asking a map of protobuf's for a key puts it in.
        parameters = dict(generator.parameters)
        shared = max(1, num_threads // num_instances(generator))
        own = int(parameters[_THREADS].string_value) if _THREADS in parameters else shared
        return Settings(
            preprocess_instances=num_instances(configs[f"{self._name}_preprocess"]),
            generator_instances=num_instances(generator),
            threads=own,
            max_batch_size=generator.max_batch_size,
            delay_us=generator.dynamic_batching.max_queue_delay_microseconds,
        )

    def try_out(self, settings: Settings, num_left: int, num_reserved: int) -> Candidate | None:
        """Measure settings, unless the time does not do.

        Args:
            settings: of the server.
            num_left: candidates that share the time which is left, this one counted.
            num_reserved: of them, for which the shortest time is kept free.
        """
        left = self._deadline - time.monotonic()
        starting = median(each.start_seconds for each in self.candidates or [_NOTHING])
        # Two loads, each with a warm-up.
        loading = 2 * (1 + WARMUP_SHARE)
        seconds = max(LEAST_SECONDS, (left / num_left - starting) / loading)
        reserved = num_reserved * (starting + LEAST_SECONDS * loading)
        if starting + seconds * loading + reserved > left:
            self.left_out.append(settings)
            return None
        progress(f"{settings}, {num_left} to go at most")
        start = time.monotonic()
        with linked(self._repository, self._name) as copy:
            _configure(copy, self._name, settings)
            with serving(copy) as server:
                start_seconds = time.monotonic() - start
                alone, many = (
                    measure_load(server, self._name, self._requests, num_clients, seconds)
                    for num_clients in (1, NUM_CLIENTS)
                )
        candidate = Candidate(
            settings=settings,
            per_second=many.per_second,
            p50_ms=many.latencies_ms["p50"],
            alone_ms=alone.latencies_ms["p50"],
            start_seconds=start_seconds,
        )
        progress(f"{candidate.per_second:.2f} answers/s, {candidate.alone_ms:.1f} ms alone")
        self.candidates.append(candidate)
        return candidate


def measure(
    repository: Path, name: str, requests: Sequence[Tensors], num_threads: int, minutes: float
) -> Result:
    """Narrow the settings down, one kind after the other."""
    machine = describe_machine()
    sweep = _Sweep(repository, name, requests, minutes)
    shipped = sweep.shipped(num_threads)
    # Nothing was measured yet; the shipped settings and the best come twice more at the end.
    first = sweep.try_out(
        shipped, _count_left(0, shipped, num_threads) + 1 + _CONFIRMING, _CONFIRMING
    )
    if first is None:
        raise SystemExit(f"{minutes:g} minutes do not do for a single server; give it more")
    best = first
    for stage in range(len(_STAGES)):
        after = _count_left(stage + 1, best.settings, num_threads) + _CONFIRMING
        alternatives = _alternatives(stage, best.settings, num_threads)
        for number, settings in enumerate(alternatives):
            tried = sweep.try_out(settings, len(alternatives) - number + after, _CONFIRMING)
            if tried is not None and _is_better(tried, best, sweep.candidates):
                best = tried
    confirmed: list[Candidate] = []
    if best is not first:
        # What drifts meanwhile favours neither.
        for number, settings in enumerate((shipped, best.settings, best.settings, shipped)):
            again = sweep.try_out(settings, _CONFIRMING - number, _CONFIRMING - 1 - number)
            confirmed += [again] if again else []
    return {
        "name": name,
        "num_threads": num_threads,
        "minutes": minutes,
        "machine": asdict(machine),
        "commit": describe_commit(),
        "shipped": asdict(shipped),
        "best": asdict(best.settings),
        "is_confirmed": len(confirmed) == _CONFIRMING
        and all(
            _is_better(tried, against, confirmed)
            for tried in confirmed[1:3]
            for against in (confirmed[0], confirmed[3])
        ),
        "candidates": [asdict(each) for each in sweep.candidates],
        "left_out": [asdict(each) for each in sweep.left_out],
        "confirmed": [asdict(each) for each in confirmed],
    }


def _share_cores(num_threads: int) -> list[dict[str, int]]:
    counts = [count for count in (1, 2, 4, num_threads) if count <= num_threads]
    return [
        {"generator_instances": count, "threads": num_threads // count}
        for count in dict.fromkeys(counts)
    ]


def _preprocess(num_threads: int) -> list[dict[str, int]]:
    return [{"preprocess_instances": n} for n in sorted({1, num_threads, 2 * num_threads})]


def _batches(_: int) -> list[dict[str, int]]:
    return [{"max_batch_size": size} for size in BATCH_SIZES]


def _delays(_: int) -> list[dict[str, int]]:
    return [{"delay_us": delay} for delay in DELAYS_US]


#: What is varied, in this order, by the number of threads that the cores can run.
_STAGES = (_share_cores, _preprocess, _batches, _delays)


def _alternatives(stage: int, best: Settings, num_threads: int) -> list[Settings]:
    """The stage's settings, but for the best so far."""
    variants = [replace(best, **changed) for changed in _STAGES[stage](num_threads)]
    return [variant for variant in variants if variant != best]


def _count_left(stage: int, best: Settings, num_threads: int) -> int:
    """Candidates of a stage and those behind it."""
    stages = range(stage, len(_STAGES))
    return sum(len(_alternatives(each, best, num_threads)) for each in stages)


def _is_better(tried: Candidate, best: Candidate, all_tried: Sequence[Candidate]) -> bool:
    least_waiting = min(each.alone_ms for each in all_tried)
    return _gives_more(tried, best) and tried.alone_ms <= (1 + MOST_WAITING) * least_waiting


def _gives_more(tried: Candidate, best: Candidate) -> bool:
    return tried.per_second > (1 + LEAST_GAIN) * best.per_second


def _configure(repository: Path, name: str, settings: Settings) -> None:
    """Give an ensemble's models in a repository other settings; links are replaced by files."""
    configs = read_configs(repository)
    preprocess, generator = configs[f"{name}_preprocess"], configs[f"{name}_generator"]
    _set_instances(preprocess, settings.preprocess_instances)
    _set_instances(generator, settings.generator_instances)
    generator.max_batch_size = settings.max_batch_size
    generator.dynamic_batching.max_queue_delay_microseconds = settings.delay_us
    generator.parameters[_THREADS].string_value = str(settings.threads)
    waiting = preprocess.parameters[MAX_WAITING_PARAMETERS["cpu"]]
    waiting.string_value = str(_max_waiting_rows(settings))
    for member, config in (("preprocess", preprocess), ("generator", generator)):
        file = repository / f"{name}_{member}" / "config.pbtxt"
        file.unlink()
        file.write_text(text_format.MessageToString(config))


def _max_waiting_rows(settings: Settings) -> int:
    """Two full batches for each instance of the generator, so that none runs out of rows."""
    return 2 * settings.generator_instances * settings.max_batch_size


def _set_instances(config: ModelConfig, count: int) -> None:
    """One group, of the kind that the first one has."""
    if not config.instance_group:
        config.instance_group.add().kind = config.instance_group.KIND_CPU
    del config.instance_group[1:]
    config.instance_group[0].count = count


def config_lines(name: str, settings: Settings) -> str:
    """What to set in the `config.pbtxt` of two models, in the blocks that are there."""
    return "\n".join(
        (
            f"# {name}_preprocess/config.pbtxt",
            f"count: {settings.preprocess_instances}  # in instance_group",
            _parameter(MAX_WAITING_PARAMETERS["cpu"], _max_waiting_rows(settings)),
            "",
            f"# {name}_generator/config.pbtxt",
            f"max_batch_size: {settings.max_batch_size}",
            f"count: {settings.generator_instances}  # in instance_group",
            _parameter(_THREADS, settings.threads),
            f"max_queue_delay_microseconds: {settings.delay_us}  # in dynamic_batching",
        )
    )


def _parameter(name: str, value: int) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'


def format_report(result: Result) -> str:
    """The table, and what to set."""
    machine = Machine(**result["machine"])
    header = (
        *("preprocess", "generators", "threads", "max. batch", "delay, ms"),
        *(f"{NUM_CLIENTS} clients, answers/s", "p50, ms", "1 client, p50, ms", ""),
    )
    rows = []
    for candidate in result["candidates"]:
        settings = candidate["settings"]
        marks = [mark for mark in ("shipped", "best") if settings == result[mark]]
        rows.append(
            (
                *_cells(settings),
                f"{candidate['per_second']:.2f}",
                f"{candidate['p50_ms']:.0f}",
                f"{candidate['alone_ms']:.1f}",
                ", ".join(marks),
            )
        )
    name, num_threads, minutes = result["name"], result["num_threads"], result["minutes"]
    lines = [
        f"**{name}**: settings on {num_threads} cores, within {minutes:g} minutes",
        "",
        f"{machine}; commit {result['commit']}",
        "",
        format_table(header, rows),
        "",
    ]
    if result["left_out"]:
        left_out = [f"({', '.join(_cells(settings))})" for settings in result["left_out"]]
        lines.append(f"Not measured for lack of time: {', '.join(left_out)}.\n")
    lines.append(_verdict(result))
    if result["is_confirmed"]:
        lines += ["", "```", config_lines(name, Settings(**result["best"])), "```"]
    return "\n".join(lines)


def _cells(settings: Mapping[str, int]) -> list[str]:
    *counts, delay_us = settings.values()
    return [*map(str, counts), f"{delay_us / 1000:g}"]


def _verdict(result: Result) -> str:
    if result["best"] == result["shipped"]:
        return "Nothing that was measured is better than the settings as they are."
    confirmed = result["confirmed"]
    if len(confirmed) < _CONFIRMING:
        return "The time did not do to measure the best once more: leave the settings as they are."
    shipped, best, *_ = confirmed
    advice = "To be set:" if result["is_confirmed"] else "Leave the settings as they are."
    return (
        f"Once more, beside one another: the best gives {best['per_second']:.2f} answers/s to "
        f"{NUM_CLIENTS} clients, the settings as they are {shipped['per_second']:.2f}; a single "
        f"client waits {best['alone_ms']:.1f} and {shipped['alone_ms']:.1f} ms. {advice}"
    )
