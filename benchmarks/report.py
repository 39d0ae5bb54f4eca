"""Writes what was measured into README.md and docs/precision.md.

    .venv/bin/python -m benchmarks.report           again, from `measured.json`
    .venv/bin/python -m benchmarks.report FOLDER    with results that another machine has written

`measured.json` holds the results that are published, by name, as `python -m benchmarks` found them.
The texts between the markers of the two files are a function of it and of nothing else; a test
renders them again and compares.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import OUTPUT, ROOT, Result, format_table, progress
from benchmarks.sections import replace_section

RECORD = Path(__file__).with_name("measured.json")
COMMAND = "make bench"

#: Characters in a line of the pages.
_WIDTH = 108
# The order of rows.
_SIZES = ("tiny", "medium", "base", "large", "huge")
_PRECISIONS = ("float32", "bfloat16", "float16", "int8")

#: Results by their name.
Record = Mapping[str, Result]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="with results to be added")
    folder = parser.parse_args().folder
    publish(json.loads(RECORD.read_text()) | (read_results(folder) if folder else {}))


def read_results(folder: Path) -> dict[str, Result]:
    """What benchmarks have written to a folder."""
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def publish(record: Record) -> None:
    """Write the record, the texts that follow from it, and their plots."""
    # Only who publishes needs a library for plots.
    from benchmarks.plots import draw_loads, draw_stages

    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    for file, section in render(record).items():
        page = ROOT / file
        page.write_text(replace_section(page.read_text("utf-8"), COMMAND, section), "utf-8")
        progress(f"wrote the section of {file}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = OUTPUT / "report.md"
    report.write_text("\n\n".join(render(record).values()) + "\n", "utf-8")
    draw_stages(generators(record, "cpu"), OUTPUT / "stages.svg")
    draw_loads(select(record, "serving"), OUTPUT / "loads.svg")
    progress(f"wrote {report}, and stages.svg and loads.svg beside it")


def render(record: Record) -> dict[str, str]:
    """The generated texts by the file that they belong to."""
    return {
        "README.md": "\n\n".join(_readme(record)),
        "docs/precision.md": "\n\n".join(_precision_page(record)),
    }


def select(record: Record, part: str) -> list[Result]:
    """The results of one benchmark by name."""
    return [result for name, result in sorted(record.items()) if name.startswith(f"{part}-")]


def generators(record: Record, device: str) -> list[Result]:
    """The generator's results on one device: by size, batch and precision."""
    return sorted(
        select(record, "gpu" if device == "cuda" else "generator"),
        key=lambda result: (
            _index(_SIZES, result["name"]),
            result["batch_size"],
            _index(_PRECISIONS, result["precision"]),
        ),
    )


def _index(order: Sequence[str], name: str) -> int:
    """Where a name stands; unknown ones come last."""
    return order.index(name) if name in order else len(order)


def _readme(record: Record) -> Iterator[str]:
    on_cpu, on_gpu = (generators(record, device) for device in ("cpu", "cuda"))
    labels, servers = select(record, "labels"), select(record, "serving")
    if on_cpu:
        yield _where(on_cpu)
        yield _setting(on_cpu)
        yield _generator_table(on_cpu)
    if on_gpu:
        yield _where(on_gpu)
        yield "The same on a GPU, without a server; decoding and resizing are not counted:"
        yield _gpu_table(on_gpu)
    for results, describe in ((labels, _labels), (servers, _serving)):
        if results:
            if _where(results) != _where(on_cpu):
                yield _where(results)
            yield from describe(results)


def _where(results: Sequence[Result]) -> str:
    """The machines and commits of some results: one of each, if all goes well."""
    machines = dict.fromkeys(_machine_name(result) for result in results)
    # Empty where there was no git.
    commits = dict.fromkeys(result["commit"] for result in results if result["commit"])
    measured = f"; commit {', '.join(commits)}" if commits else ""
    return _paragraph(f"{'; '.join(machines)}{measured}.")


def _machine_name(result: Result) -> str:
    machine = result["machine"]
    device = f"{machine['gpu']}, " if machine["gpu"] else ""
    sets = ", ".join(machine["instruction_sets"])
    return (
        f"{device}{machine['cpu']} with {machine['num_cores']} cores ({sets}), "
        f"torch {machine['torch_version']}, {result['num_threads']} threads"
    )


def _setting(results: Sequence[Result]) -> str:
    result = results[0]
    # Only float32 has to say what the reference says.
    compared = [each for each in results if each["precision"] == "float32" and each["reference"]]
    num_turns = sum(each["num_turns"] for each in compared)
    num_same = num_turns - sum(len(each["others"]) for each in compared)
    memory_rates = [each["ceilings"]["memory"] for each in results]
    return _paragraph(
        f"One caption at {result['image_size']} px, beam {result['beam_size']}, "
        f"{result['num_steps']} decoder steps, made-up weights of the published shapes. Both sides "
        "answered in turn in one run, ModelScope's pipeline always in float32 and one picture at a "
        f"time, ours as the exported `model.pt`; in float32 they said the same in {num_same} of "
        f"{num_turns} turns. Seconds a picture from file to text, medians. The "
        "limit is what the machine's rates for convolutions, matrices and memory, measured in the "
        f"same run, allow for the counted work; memory's was {min(memory_rates):.0f} to "
        f"{max(memory_rates):.0f} GB/s from row to row, so shares of unlike rows compare roughly "
        "(`python -m benchmarks.generator`):"
    )


def _generator_table(results: Sequence[Result]) -> str:
    header = (
        *("size", "precision", "batch", "ModelScope, s", "here, s", "ratio"),
        *("share of the limit", "peak memory there, here"),
    )
    rows = []
    for result in results:
        ours, reference = result["ours"], result["reference"]
        memory = [max(result["memory"][side]) for side in ("reference", "ours") if reference]
        rows.append(
            (
                result["name"],
                result["precision"],
                str(result["batch_size"]),
                _digits(reference["whole"]) if reference else "",
                _digits(ours["whole"]),
                f"{reference['whole'] / ours['whole']:.1f}" if reference else "",
                f"{result['limits']['generator'] / ours['generator']:.0%}",
                ", ".join(f"{peak / 1e9:.1f} GB" for peak in memory),
            )
        )
    return format_table(header, rows)


def _gpu_table(results: Sequence[Result]) -> str:
    header = ("size", "precision", "batch", "ms a picture", "pictures/s", "share of the limit")
    rows = []
    for result in results:
        seconds = result["ours"]["generator"]
        rows.append(
            (
                result["name"],
                result["precision"],
                str(result["batch_size"]),
                f"{1000 * seconds:.2f}",
                f"{1 / seconds:.0f}",
                f"{result['limits']['generator'] / seconds:.0%}",
            )
        )
    return format_table(header, rows)


def _labels(results: Sequence[Result]) -> Iterator[str]:
    [result] = results
    rows, num_same = [], 0
    measured = [each for comparison in result["comparisons"] for each in comparison]
    for each in measured:
        theirs, ours = median(each["reference"]), median(each["ours"])
        labels = f"{each['num_labels']:,}" if each["num_labels"] else ""
        rows.append((each["search"], labels, _digits(theirs), _digits(ours), _ratio(theirs, ours)))
        num_same += each["num_same"]
    yield _paragraph(
        f"A list of answers or labels costs about as much as a caption (made-up weights, size "
        f"{result['size']}, float32, the same answers in {num_same} of "
        f"{len(measured) * result['num_turns']} turns; `python -m benchmarks.labels`):"
    )
    yield format_table(("answer", "out of", "ModelScope, s", "here, s", "ratio"), rows)


def _serving(results: Sequence[Result]) -> Iterator[str]:
    yield _paragraph(
        f"Through Triton, server and clients on the same cores, in {_precisions(results)}: the "
        "bundled checkpoint "
        "(96 px), and made-up weights of published sizes (480 px). The best is what the cores do "
        "without a server, decoding and resizing counted "
        f"({'; '.join(map(_best, results))}; medians of turns, shares too; "
        "`python -m benchmarks.serving`):"
    )
    header = ("served", "clients", "pictures/s", "share of the best", "p50, ms", "p90, ms")
    rows = [
        (
            _served(result),
            str(load["num_clients"]),
            _digits(load["per_second"]),
            f"{load['share']:.0%}",
            *(f"{load['latencies_ms'][key]:,.0f}" for key in ("p50", "p90")),
        )
        for result in results
        for load in result["loads"]
    ]
    yield format_table(header, rows)


def _precisions(results: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(result["precision"] for result in results))


def _best(result: Result) -> str:
    overhead = result["overhead_ms"]
    best = f"{_served(result)}: {_digits(result['best_per_second'])} pictures/s"
    if overhead is None:
        return best
    # A machine that was faster when the server had its turn makes it negative.
    waits = f"{overhead:.1f} ms longer than" if overhead >= 0 else "no longer than"
    return f"{best}, and a single client waits {waits} its picture takes there"


def _served(result: Result) -> str:
    return "bundled" if result["name"] == "caption" else result["name"]


def _precision_page(record: Record) -> Iterator[str]:
    compared = select(record, "precision")
    if compared:
        yield _where(compared)
    for result in compared:
        yield _paragraph(
            f"The checkpoint {result['name']} on {result['num_pictures']} pictures "
            f"({result['pictures']}); scores are compared where the captions are the same "
            "(`python -m benchmarks.precision`):"
        )
        yield _changes_table(result)
    results = [each for each in generators(record, "cpu") if each["batch_size"] == 1]
    if results:
        if _where(results) != _where(compared):
            yield _where(results)
        yield _paragraph(
            "Seconds a picture by size, one at a time, and times ModelScope's speed in brackets "
            "(the rest of the setting is the README's):"
        )
        yield _seconds_table(results)
        yield _paragraph(
            "Where they go, and in brackets the share of the limit that a stage reaches; batch 8 "
            "in seconds a picture:"
        )
        yield _stages_table(generators(record, "cpu"))


def _changes_table(result: Result) -> str:
    header = ("precision", "same captions", "score drift, median", "largest", "speed")
    rows = [
        (
            precision,
            f"{changed['num_same'] / result['num_pictures']:.1%}",
            *(
                "" if changed[drift] is None else f"{changed[drift]:.0e}"
                for drift in ("median_drift", "largest_drift")
            ),
            f"{changed['speed']:.2f} x float32's",
        )
        for precision, changed in result["precisions"].items()
    ]
    return format_table(header, rows)


def _seconds_table(results: Sequence[Result]) -> str:
    """A row for each size, a column for each precision."""
    precisions = list(dict.fromkeys(result["precision"] for result in results))
    cells: dict[str, dict[str, str]] = {}
    for result in results:
        ours, reference = result["ours"]["whole"], result["reference"]
        ratio = f" ({_ratio(reference['whole'], ours)})" if reference else ""
        cells.setdefault(result["name"], {})[result["precision"]] = f"{_digits(ours)}{ratio}"
    rows = [(size, *(own.get(each, "") for each in precisions)) for size, own in cells.items()]
    return format_table(("size", *precisions), rows)


def _stages_table(results: Sequence[Result]) -> str:
    """A row for each measurement, a column for each stage that has a limit of its own."""
    stages = [stage for stage in results[0]["limits"] if stage != "generator"]
    rows = []
    for result in results:
        ours, limits = result["ours"], result["limits"]
        cells = [f"{_digits(ours[each])} ({limits[each] / ours[each]:.0%})" for each in stages]
        rows.append((result["name"], result["precision"], str(result["batch_size"]), *cells))
    return format_table(("size", "precision", "batch", *stages), rows)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _digits(number: float) -> str:
    """Three digits that count, as people write them: 0.216, 2.05, 29.3."""
    for limit, format_spec in ((1, ".3f"), (10, ".2f")):
        if number < limit:
            return format(number, format_spec)
    return f"{number:.1f}"


def _ratio(theirs: float, ours: float) -> str:
    """Two digits at least."""
    ratio = theirs / ours
    return f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


if __name__ == "__main__":
    main()
