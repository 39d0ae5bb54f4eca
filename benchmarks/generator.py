"""How fast is a caption, ours against ModelScope's own pipeline?

    .venv/bin/python -m benchmarks.generator                      the bundled checkpoint
    .venv/bin/python -m benchmarks.generator --size large         a made-up one of a published size
    .venv/bin/python -m benchmarks.generator --precision float32 bfloat16 --batch 1 8
    .venv/bin/python -m benchmarks.generator --device cuda --precision float16 --batch 1 8 32

Both sides caption the same pictures with the same weights, threads and number of decoding steps, in
turn in one run; the reference always in float32, on the CPU and one picture at a time. Where it is
not installed, `--without-reference` leaves it out; on a CUDA device it always is. Prints a table in
Markdown for each precision, and writes it and its numbers to
`build/benchmarks/generator-NAME-PRECISION.json` and `.md` (`gpu-` on a CUDA device).

The limit of a stage is its work by the machine's rates, measured in the same run (`limits.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.common import OUTPUT, ROOT, Result, format_table, progress, write_result
from benchmarks.exported import REPOSITORY, describe_commit, export, load_exported_task
from benchmarks.limits import ARITHMETIC, Arithmetic, step_bytes, time_limits
from benchmarks.machine import Ceilings, Machine, describe_machine, measure_ceilings
from benchmarks.pictures import SAMPLES, list_pictures
from benchmarks.work import count_step_numbers, count_work
from benchmarks.worker import (
    OUR_WARMUPS,
    Answered,
    Turn,
    Worker,
    our_side,
    reference_side,
    take_turns,
)
from ofa.lowering import PRECISIONS
from ofa.model import ModelConfig
from ofa_server.threads import usable_cores
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint

SIZES = ("tiny", "medium", "base", "large", "huge")
BUNDLED = ROOT / "checkpoints" / "ofa-emoji-tiny_en"


class Setting(NamedTuple):
    """What is asked of a run.

    Attributes:
        checkpoint: whose every caption has as many tokens.
        pictures: a turn each.
        repeats: captions of ours in a turn; the reference's is one.
        num_threads: of either side.
        device: of our side.
    """

    checkpoint: Path
    pictures: list[Path]
    repeats: int
    num_threads: int
    device: torch.device


def main() -> None:
    arguments = parse_arguments()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    source = build_checkpoint(arguments.size) if arguments.size else arguments.checkpoint
    setting = Setting(
        checkpoint=fix_num_steps(source.resolve(), arguments.steps),
        pictures=list_pictures(arguments.folder)[: arguments.pictures],
        repeats=arguments.repeats,
        num_threads=arguments.threads,
        device=torch.device(arguments.device),
    )
    with reference_of(setting, wanted=arguments.reference) as reference:
        # What the reference took to start is asked once.
        starting = reference.take_peak_memory() if reference else None
        for precision in arguments.precision:
            progress(f"exporting in {precision}")
            export(setting.checkpoint, setting.checkpoint.name, precision, setting.device.type)
            for batch_size in arguments.batch:
                result = measure(setting, precision, batch_size, reference, starting)
                write_result(arguments.results, name_of(result), result, format_report(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, default=BUNDLED, metavar="DIR")
    source.add_argument("--size", choices=SIZES, help="of a checkpoint with made-up weights")
    parser.add_argument("--folder", type=Path, default=SAMPLES, help="with pictures")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="of the folder")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="of ours for each of the reference's"
    )
    parser.add_argument("--steps", type=int, default=17, metavar="N", help="tokens, EOS counted")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=sorted({*PRECISIONS["cpu"], *PRECISIONS["cuda"]}),
        default=["float32"],
        help="of our side",
    )
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[1], metavar="N", help="pictures at once, our side"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of our side")
    parser.add_argument(
        "--without-reference", dest="reference", action="store_false", help="measure ours alone"
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), metavar="N")
    parser.add_argument("--results", type=Path, default=OUTPUT, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    others = set(arguments.precision) - set(PRECISIONS[arguments.device])
    if others:
        parser.error(f"there is no {', '.join(sorted(others))} for {arguments.device}")
    return arguments


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


@contextmanager
def reference_of(setting: Setting, *, wanted: bool) -> Iterator[Worker | None]:
    """The reference, warm, unless it is not wanted or our side runs where it does not."""
    if not wanted or setting.device.type != "cpu":
        yield None
        return
    arguments = [str(setting.checkpoint)]
    with reference_side(
        "generator", arguments, setting.pictures[0], setting.num_threads
    ) as reference:
        yield reference


def measure(
    setting: Setting,
    precision: str,
    batch_size: int,
    reference: Worker | None,
    reference_starting: int | None,
) -> Result:
    """Have both sides caption every picture, in turn, with what was exported last."""
    machine = describe_machine(setting.device)
    name, device = setting.checkpoint.name, setting.device
    ceilings, turns = Ceilings({}, {}), []
    arithmetic = ARITHMETIC[device.type][precision]
    arguments = [str(REPOSITORY), name, str(batch_size), str(device)]
    with our_side("generator", arguments, setting.pictures[0], setting.num_threads) as ours:
        starting = ours.take_peak_memory()
        # The calls that time the stages have first runs of their own.
        for _ in range(OUR_WARMUPS):
            ours.answer(setting.pictures[0])
        for turn in take_turns(ours, reference, setting.pictures, setting.repeats):
            turns.append(turn)
            dtypes = {arithmetic.source, arithmetic.step}
            measure_ceilings(ceilings, dtypes, {arithmetic.source}, device)
    return {
        "name": name,
        "precision": precision,
        "device": device.type,
        "batch_size": batch_size,
        "num_threads": setting.num_threads,
        "machine": asdict(machine),
        "commit": describe_commit(),
        "ceilings": asdict(ceilings),
        **bound(setting, arithmetic, batch_size, ceilings),
        "num_turns": len(turns),
        "repeats": setting.repeats,
        "ours": medians([answered for turn in turns for answered in turn.ours]),
        "reference": medians([turn.reference for turn in turns if turn.reference]),
        "wholes": [
            {
                "ours": [answered.seconds["whole"] for answered in turn.ours],
                "reference": turn.reference.seconds["whole"] if turn.reference else None,
            }
            for turn in turns
        ],
        "memory": {
            # Of a start and the first answers. Later peaks are of calls that time the stages.
            "ours": [starting],
            "reference": [reference_starting, reference.take_peak_memory()] if reference else [],
        },
        "others": differing_answers(turns),
    }


def bound(setting: Setting, arithmetic: Arithmetic, batch_size: int, ceilings: Ceilings) -> Result:
    """Work counted from the checkpoint, and the seconds that it takes at least."""
    checkpoint = setting.checkpoint
    config = ModelConfig.from_dict(json.loads((checkpoint / "config.json").read_text()))
    task = load_exported_task(REPOSITORY, checkpoint.name)
    defaults, image_size = task.settings.defaults, task.settings.patch_image_size
    source_ids = task.tokenizer.encode(task.settings.prompt, task.settings.max_source_length)
    num_steps = defaults.max_length + 1
    shape = (config, image_size, len(source_ids))
    work = count_work(*shape, num_steps, defaults.beam_size)
    num_bytes = step_bytes(count_step_numbers(*shape), arithmetic, batch_size)
    return {
        "beam_size": defaults.beam_size,
        "num_steps": num_steps,
        "image_size": image_size,
        "work": {stage: each.convolutions + each.products for stage, each in work.items()},
        "step_bytes": num_bytes,
        "limits": time_limits(
            *(work, num_bytes, num_steps, arithmetic, batch_size, ceilings, setting.device)
        ),
    }


def medians(results: Sequence[Answered]) -> dict[str, float]:
    """Median seconds by stage; nothing of no results."""
    stages = results[0].seconds if results else ()
    return {stage: median(result.seconds[stage] for result in results) for stage in stages}


def differing_answers(turns: list[Turn]) -> list[str]:
    """What both sides said where they did not say the same."""
    return [
        f"{turn.picture}: {turn.ours[0].answers}, the reference {turn.reference.answers}"
        for turn in turns
        if turn.reference and turn.ours[0].answers != turn.reference.answers
    ]


def name_of(result: Result) -> str:
    """What the result's files are called."""
    kind = "gpu" if result["device"] == "cuda" else "generator"
    batch = f"-batch-{result['batch_size']}" * (result["batch_size"] > 1)
    return f"{kind}-{result['name']}-{result['precision']}{batch}"


def format_report(result: Result) -> str:
    """The measurement in Markdown: medians over all turns."""
    ours, reference, limits = result["ours"], result["reference"], result["limits"]
    rows = []
    for stage, seconds in ours.items():
        theirs = reference.get(stage)
        # The reference projects the source's keys and values while it decodes, at every step.
        own = seconds + ours["cross keys, values"] if stage == "decoding" else seconds
        limit = limits.get(stage)
        work = result["work"].get(stage)
        no_reference = "in decoding" if reference else ""
        rows.append(
            (
                stage,
                no_reference if theirs is None else f"{theirs:.3f}",
                f"{seconds:.4f}",
                "" if theirs is None else f"{theirs / own:.1f}",
                "" if work is None else f"{work / 1e9:.1f}",
                "" if limit is None else f"{limit:.4f}",
                "" if limit is None else f"{limit / seconds:.0%}",
            )
        )
    header = ("stage", "ModelScope, s", "ours, s", "ratio", "GFLOP", "limit, s", "share of limit")
    title = (
        f"**{result['name']}**: {result['precision']} on {result['device']}, "
        f"{result['num_threads']} threads, batch {result['batch_size']}, beam "
        f"{result['beam_size']}, {result['num_steps']} steps, {result['image_size']} px; seconds a "
        f"picture, medians of {result['num_turns']} turns with {result['repeats']} of ours each"
    )
    lines = [
        title,
        "",
        f"{Machine(**result['machine'])}; commit {result['commit']}",
        "",
        format_ceilings(result["ceilings"]),
        "",
        format_table(header, rows),
        "",
        f"- A decoder step reads {result['step_bytes'] / 1e9:.3f} GB at least.",
        f"- Our peak memory: {format_memory(result['memory']['ours'])}.",
    ]
    if reference:
        same = result["num_turns"] - len(result["others"])
        lines += [
            f"- Turn by turn, ours is {format_range(ratios(result))} times as fast.",
            f"- The reference's decoder alone takes {reference['decoder alone']:.3f} s.",
            f"- The reference's peak memory: {format_memory(result['memory']['reference'])}.",
            f"- Same captions in {same} of {result['num_turns']} turns.",
            *(f"- {other}" for other in result["others"]),
        ]
    return "\n".join(lines)


def format_ceilings(ceilings: Result) -> str:
    """One line on the rates."""
    kinds = (("matrix products", ceilings["matrix"]), ("convolutions", ceilings["convolution"]))
    rates = [
        f"{kind} {rate:,.0f} {'GOP/s' if dtype == 'int8' else 'GFLOP/s'} in {dtype}"
        for kind, by_dtype in kinds
        for dtype, rate in sorted(by_dtype.items())
    ]
    return f"Ceilings: {', '.join(rates)}, memory {ceilings['memory']:,.0f} GB/s."


def ratios(result: Result) -> list[float]:
    """The reference's seconds by the median of ours, turn by turn."""
    return [turn["reference"] / median(turn["ours"]) for turn in result["wholes"]]


def format_range(numbers: list[float]) -> str:
    """Least and greatest."""
    return f"{min(numbers):.1f} to {max(numbers):.1f}"


def format_memory(peaks: list[int]) -> str:
    """The highest in gigabytes."""
    return f"{max(peaks) / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
