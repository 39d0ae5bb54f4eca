"""How fast is a caption, ours against ModelScope's own pipeline?

    .venv/bin/python -m benchmarks.generator                      the bundled checkpoint
    .venv/bin/python -m benchmarks.generator --size large         a made-up one of a published size
    .venv/bin/python -m benchmarks.generator --precision bfloat16

Both sides caption the same pictures with the same weights, threads and number of decoding steps, in
turn in one run; the reference always in float32. Prints a table in Markdown, and writes every
single time to `build/benchmarks/generator-NAME-PRECISION.json`.

The limit of a stage is its work by the machine's rates, measured in the same run (`work.py`).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import OUTPUT, ROOT, progress
from benchmarks.exported import SAMPLES, export, list_pictures, load_exported_task
from benchmarks.machine import (
    Machine,
    cache_bytes,
    describe_machine,
    measure_gemm_rate,
    measure_read_rate,
)
from benchmarks.work import count_step_numbers, count_work
from benchmarks.worker import Answered, Turn, both_sides
from ofa.export import DTYPES
from ofa.model import ModelConfig
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint

SIZES = ("tiny", "medium", "base", "large", "huge")


@dataclass(frozen=True)
class PeakMemory:
    """Most bytes that a side's process held.

    Attributes:
        starting: until it was warm, loading included.
        captioning: from then on.
    """

    starting: int
    captioning: int


@dataclass(frozen=True)
class Measurement:
    """One run.

    Attributes:
        name: of the checkpoint.
        setting: what was asked of both sides.
        machine: where.
        precision: of our side.
        gemm_rate: the machine's rate in that precision in GFLOP/s, the best of one measurement a
            turn.
        read_rate: of its memory in GB/s, likewise.
        limits: seconds that a picture takes at these rates, by stage.
        our_memory: of our process.
        reference_memory: of the reference's process.
        turns: every time that was taken.
    """

    name: str
    setting: str
    machine: Machine
    precision: str
    gemm_rate: float
    read_rate: float
    limits: dict[str, float]
    our_memory: PeakMemory
    reference_memory: PeakMemory
    turns: list[Turn]


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    source = build_checkpoint(arguments.size) if arguments.size else arguments.checkpoint
    checkpoint = fix_num_steps(source.resolve(), arguments.steps)
    pictures = list_pictures(arguments.folder)[: arguments.pictures] * arguments.repeats
    measurement = measure(checkpoint, pictures, arguments.threads, arguments.precision)
    report = OUTPUT / f"generator-{measurement.name}-{measurement.precision}.json"
    report.write_text(json.dumps(asdict(measurement), indent=1))
    print(format_report(measurement))
    progress(f"every time: {report}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--checkpoint", type=Path, default=ROOT / "checkpoints" / "ofa-emoji-tiny_en", metavar="DIR"
    )
    source.add_argument("--size", choices=SIZES, help="of a checkpoint with made-up weights")
    parser.add_argument("--folder", type=Path, default=SAMPLES, help="with pictures")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="of the folder")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of every picture")
    parser.add_argument("--steps", type=int, default=17, metavar="N", help="tokens, EOS counted")
    parser.add_argument("--precision", choices=DTYPES, default="float32", help="of our side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    return parser.parse_args()


def build_checkpoint(size: str) -> Path:
    """The folder of a made-up checkpoint."""
    progress(f"building a made-up checkpoint of size {size}")
    folder = OUTPUT / "checkpoints" / size
    write_checkpoint(folder, RECIPES[size], Calibration.load(RECIPES[size]), {})
    return folder


def fix_num_steps(source: Path, num_steps: int) -> Path:
    """A folder with the files of `source` whose every caption takes `num_steps` tokens with EOS.

    Seconds of captions can only be compared if all have the same length.
    """
    folder = OUTPUT / f"{num_steps}-steps" / source.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        link = folder / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    settings = folder / "configuration.json"
    configuration = json.loads(settings.read_text())
    beam_search = configuration["model"].setdefault("beam_search", {})
    beam_search.update(min_len=num_steps - 1, max_len_b=num_steps - 1)
    settings.unlink()
    settings.write_text(json.dumps(configuration, indent=1))
    return folder


def measure(
    checkpoint: Path, pictures: list[Path], num_threads: int, precision: str
) -> Measurement:
    """Have both sides caption every picture, in turn."""
    machine = describe_machine()
    name = checkpoint.name
    progress("exporting")
    repository = export(checkpoint, name, precision)
    task = load_exported_task(repository, name)
    defaults, image_size = task.settings.defaults, task.settings.patch_image_size
    source_ids = task.tokenizer.encode(task.settings.prompt, task.settings.max_source_length)
    num_steps = defaults.max_length + 1
    turns, gemm_rates, read_rates = [], [], []
    with both_sides(
        "generator", [str(repository), name], [str(checkpoint)], pictures[0], num_threads
    ) as sides:
        starting = [side.take_peak_memory() for side in (sides.ours, sides.reference)]
        for turn in sides.take_turns(pictures):
            turns.append(turn)
            gemm_rates.append(measure_gemm_rate(num_threads, DTYPES[precision]))
            read_rates.append(measure_read_rate(num_threads))
        captioning = [side.take_peak_memory() for side in (sides.ours, sides.reference)]
    config = ModelConfig.from_dict(json.loads((checkpoint / "config.json").read_text()))
    shape = (config, image_size, len(source_ids))
    return Measurement(
        name=name,
        setting=(
            f"{precision}, {num_threads} threads, batch 1, beam {defaults.beam_size}, "
            f"{num_steps} steps, {image_size} px"
        ),
        machine=machine,
        precision=precision,
        gemm_rate=max(gemm_rates),
        read_rate=max(read_rates),
        limits=time_limits(
            count_work(*shape, num_steps, defaults.beam_size),
            count_step_bytes(*shape, precision),
            num_steps,
            max(gemm_rates),
            max(read_rates),
        ),
        our_memory=PeakMemory(starting[0], captioning[0]),
        reference_memory=PeakMemory(starting[1], captioning[1]),
        turns=turns,
    )


def count_step_bytes(
    config: ModelConfig, image_size: int, prompt_length: int, precision: str
) -> int:
    """Bytes that a decoder step reads; the vocabulary's are always float32."""
    numbers = count_step_numbers(config, image_size, prompt_length)
    return numbers["layers"] * DTYPES[precision].itemsize + numbers["vocabulary"] * 4


def time_limits(
    work: dict[str, int], step_bytes: int, num_steps: int, gemm_rate: float, read_rate: float
) -> dict[str, float]:
    """Seconds by stage at the machine's rates, and for the "whole".

    Args:
        work: operations by stage.
        step_bytes: that every decoder step reads; if a cache holds them, then from memory once.
        num_steps: tokens of the answer, EOS counted.
        gemm_rate: in GFLOP/s.
        read_rate: in GB/s.
    """
    limits = {stage: operations / gemm_rate / 1e9 for stage, operations in work.items()}
    num_reads = num_steps if step_bytes > cache_bytes() else 1
    limits["decoding"] = max(limits["decoding"], num_reads * step_bytes / read_rate / 1e9)
    return {**limits, "whole": sum(limits.values())}


def format_report(measurement: Measurement) -> str:
    """The measurement in Markdown: medians over all turns."""
    turns, limits = measurement.turns, measurement.limits
    ours = medians([turn.ours for turn in turns])
    reference = medians([turn.reference for turn in turns])
    ceilings = (
        f"Ceilings: matrix products {measurement.gemm_rate:.0f} GFLOP/s, "
        f"memory {measurement.read_rate:.0f} GB/s."
    )
    lines = [
        f"**{measurement.name}**: {measurement.setting}; medians of {len(turns)} turns",
        "",
        f"{measurement.machine}",
        "",
        ceilings,
        "",
        "| stage | ModelScope, s | ours, s | ratio | limit, s | ours, share of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for stage, seconds in ours.items():
        theirs = reference.get(stage)
        # The reference projects the source's keys and values while it decodes, at every step.
        own = seconds + ours["cross keys, values"] if stage == "decoding" else seconds
        limit = limits.get(stage)
        cells = (
            stage,
            "in decoding" if theirs is None else f"{theirs:.3f}",
            f"{seconds:.3f}",
            "" if theirs is None else f"{theirs / own:.1f}",
            "" if limit is None else f"{limit:.3f}",
            "" if limit is None else f"{limit / seconds:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    ratios = [turn.reference.seconds["whole"] / turn.ours.seconds["whole"] for turn in turns]
    other = [turn for turn in turns if turn.ours.answers != turn.reference.answers]
    return "\n".join(
        (
            *lines,
            "",
            f"- Turn by turn, ours is {min(ratios):.1f} to {max(ratios):.1f} times as fast.",
            f"- The reference reaches {limits['whole'] / reference['whole']:.1%} of that limit.",
            f"- Its decoder alone takes {reference['decoder alone']:.3f} s.",
            f"- Our peak memory: {format_memory(measurement.our_memory)}.",
            f"- The reference's: {format_memory(measurement.reference_memory)}.",
            f"- Same captions in {len(turns) - len(other)} of {len(turns)} turns.",
            *(
                f"- {turn.picture}: {turn.ours.answers}, the reference {turn.reference.answers}"
                for turn in other
            ),
        )
    )


def medians(results: list[Answered]) -> dict[str, float]:
    """Median seconds by stage."""
    return {
        stage: median(result.seconds[stage] for result in results) for stage in results[0].seconds
    }


def format_memory(memory: PeakMemory) -> str:
    """Both peaks in gigabytes."""
    return f"{memory.captioning / 1e9:.2f} GB captioning, {memory.starting / 1e9:.2f} GB until warm"


if __name__ == "__main__":
    main()
