"""Asks the reference everything now and compares ours: `make parity-all`.

The tokenizers, every case of every size and text-to-image are recorded anew, in the oracle's
environment. Recording and comparing take one thread each, so both go on at once: a case is compared
when its file is there. When all agree, the measured table of docs/parity.md is written.
"""

import argparse
import contextlib
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tests.reference import text_to_image
from tests.reference.cases import CASES, ROOT, Case
from tests.reference.checkpoints import RECIPES
from tests.reference.compare import BOX, LOG_PROB, PROBABILITY, Gaps, check_case
from tests.reference.compare_drawing import (
    PAINTED,
    SIMILARITY,
    Recorded,
    check_drawing,
    check_unchanged,
)
from tests.reference.golden import FOLDER, NUM_THREADS, Recording

PAGE = ROOT / "docs" / "parity.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
KINDS = (LOG_PROB, PROBABILITY, BOX, PAINTED, SIMILARITY)
LANGUAGES = {"en": "English", "zh": "Chinese"}
TOKENS = "tokens"
TOKENS_TEST = "tests/reference/test_tokens.py"

Recorder = subprocess.Popen[bytes]


@dataclasses.dataclass(frozen=True)
class Compared:
    """One case that agrees.

    Attributes:
        task: Its name.
        variant: Language or layout.
        size: As `Case.size`.
        versions: What was recorded with.
        gaps: What was compared.
    """

    task: str
    variant: str
    size: str
    versions: dict[str, str]
    gaps: Gaps


@contextlib.contextmanager
def recorder(module: str, output: Path, *names: str) -> Iterator[Recorder]:
    """A recorder at work in the reference's environment, ended when nobody waits any more."""
    python = ROOT / ".venv-oracle" / "bin" / "python"
    command = [python, "-W", "ignore", "-m", f"tests.reference.oracle.{module}"]
    process = subprocess.Popen([*command, *names, "--output", output], cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(path: Path, process: Recorder) -> Path:
    """A file that a recorder writes, as soon as it is there."""
    while not path.exists():
        time.sleep(0.5)
        # It may have ended because the file is written.
        if process.poll() is not None and not path.exists():
            raise RuntimeError(f"the recorder ended ({process.returncode}) without {path.name}")
    return path


def compare_now(names: Sequence[str], output: Path) -> list[Compared]:
    """Record the named cases and compare ours with each."""
    with recorder("record", output, *names) as process:
        return compare_recorded(names, output, process)


def compare_recorded(names: Sequence[str], output: Path, process: Recorder) -> list[Compared]:
    """Compare ours with each of the named cases, which a recorder is recording."""
    compared = []
    for number, name in enumerate(names, start=1):
        case = CASES[name]
        recording = Recording.load(wait_for(output / f"{name}.json", process))
        print(f"comparing {name}, {number} of {len(names)}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            gaps = check_case(case, recording, Path(scratch))
        compared.append(Compared(case.task, variant(case), case.size, recording.versions, gaps))
    return compared


def draw_now(output: Path) -> Compared:
    """Record text-to-image, compare ours with it, and it with what `tests/golden` holds."""
    with recorder("text_to_image", output) as process:
        return compare_drawn(output, process)


def compare_drawn(output: Path, process: Recorder) -> Compared:
    """Compare ours with text-to-image, which a recorder is recording."""
    wait_for(output / text_to_image.RECORDING.name, process)
    print("comparing text-to-image", flush=True)
    now = Recorded.load(output)
    check_unchanged(now, Recorded.load(FOLDER))
    gaps = check_drawing(now)
    versions = now.values["versions"]
    return Compared("text-to-image-synthesis", LANGUAGES["en"], "small", versions, gaps)


def compare_tokens(output: Path, process: Recorder) -> None:
    """Require that the tokenizers do what `tests/golden` holds, and ours the same."""
    now = wait_for(output / f"{TOKENS}.json", process).read_text(encoding="utf-8")
    print(f"comparing {TOKENS}", flush=True)
    then = (FOLDER / f"{TOKENS}.json").read_text(encoding="utf-8")
    assert now == then, "the reference's tokenizers do something else now: record tokens again"
    subprocess.run([sys.executable, "-m", "pytest", "-q", TOKENS_TEST], cwd=ROOT, check=True)


def compare_everything(output: Path) -> list[Compared]:
    """Record and compare all there is."""
    with (
        recorder("text_to_image", output) as drawing,
        recorder("record", output, TOKENS, *CASES) as recording,
    ):
        compare_tokens(output, recording)
        drawn = compare_drawn(output, drawing)
        return [*compare_recorded(list(CASES), output, recording), drawn]


def variant(case: Case) -> str:
    """The layout, where it is not the usual one, else the language."""
    if case.checkpoint not in RECIPES:  # the names of shipped checkpoints end in their language
        return LANGUAGES[case.checkpoint.rpartition("_")[2]]
    recipe = RECIPES[case.checkpoint]
    return "ofasys" if recipe.full_config["use_ofasys"] else LANGUAGES[recipe.language]


def table(compared: Sequence[Compared]) -> str:
    """What was compared and how far apart it was, a line for each task and language or layout."""
    [versions] = {tuple(each.versions.items()) for each in compared}
    lines = [
        f"Reference: {', '.join(f'{name} {version}' for name, version in versions)}.",
        "",
        "| task | language or layout | sizes | cases | answers | hypotheses, labels or codes "
        "| largest difference: " + " | ".join(KINDS) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(KINDS),
    ]
    for task, kind_of in sorted({(each.task, each.variant) for each in compared}):
        rows = [each for each in compared if (each.task, each.variant) == (task, kind_of)]
        sizes = dict.fromkeys(each.size for each in rows)
        lines.append(
            f"| {task} | {kind_of} | {', '.join(sizes)} | {len(rows)} "
            f"| {sum(each.gaps.num_answers for each in rows)} "
            f"| {sum(each.gaps.num_hypotheses for each in rows):,} | "
            + " | ".join(largest_difference(kind, rows) for kind in KINDS)
            + " |"
        )
    return "\n".join([*lines, ""])


def largest_difference(kind: str, rows: Sequence[Compared]) -> str:
    """Of one kind, or "-" if nothing of that kind was compared."""
    gaps = [each.gaps.largest[kind] for each in rows if kind in each.gaps.largest]
    if not gaps:
        return "-"
    return f"{max(gaps):.1e}" if any(gaps) else "0"


def main() -> None:
    """Compare everything and write the table, or only compare the cases of some sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = list(dict.fromkeys(case.size for case in CASES.values()))
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"of {', '.join(sizes)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder for the recordings")
    arguments = parser.parse_args()
    chosen = arguments.sizes
    names = [name for name, case in CASES.items() if case.size in chosen]
    if chosen and not names:
        sys.exit(f"there are no cases of size {', '.join(chosen)}; sizes are {', '.join(sizes)}")
    torch.set_num_threads(NUM_THREADS)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "recordings"
        measured = table(compare_now(names, output) if chosen else compare_everything(output))
        if arguments.keep is not None:
            shutil.copytree(output, arguments.keep)
    print(measured)
    print(f"{(time.monotonic() - start) / 60:.0f} minutes")
    if not chosen:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + BEGIN + measured + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
