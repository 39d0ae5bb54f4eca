"""Asks the reference everything now and compares ours: `make parity-all`.

Every case of every size is recorded anew, in the oracle's environment. When all agree, the measured
table of docs/parity.md is written.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.reference.cases import CASES, ROOT, Case
from tests.reference.compare import BOX, LOG_PROB, PROBABILITY, Gaps, check_case
from tests.reference.golden import Recording

PAGE = ROOT / "docs" / "parity.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
KINDS = (LOG_PROB, PROBABILITY, BOX)
DRAWING = "tests/reference/test_text_to_image.py"


def record_now(names: Sequence[str], output: Path) -> None:
    """Have the reference answer the named cases, in its own environment."""
    python = ROOT / ".venv-oracle" / "bin" / "python"
    record = [python, "-W", "ignore", "-m", "tests.reference.oracle.record"]
    subprocess.run([*record, *names, "--output", output], cwd=ROOT, check=True)


def compare_now(names: Sequence[str], output: Path) -> list[tuple[Case, Recording, Gaps]]:
    """Record the named cases and compare ours with each."""
    record_now(names, output)
    compared = []
    for name in names:
        print(f"comparing {name}", flush=True)
        recording = Recording.load(output / f"{name}.json")
        with tempfile.TemporaryDirectory() as scratch:
            gaps = check_case(CASES[name], recording, Path(scratch))
        compared.append((CASES[name], recording, gaps))
    return compared


def table(compared: Sequence[tuple[Case, Recording, Gaps]]) -> str:
    """What was compared and how far apart it was, a line for each task."""
    versions = ", ".join(f"{name} {value}" for name, value in compared[0][1].versions.items())
    lines = [
        f"Reference: {versions}.",
        "",
        "| task | sizes | cases | answers | hypotheses and labels | largest difference: "
        + " | ".join(KINDS)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(KINDS),
    ]
    for task in sorted({case.task for case, _, _ in compared}):
        rows = [(case, gaps) for case, _, gaps in compared if case.task == task]
        sizes = dict.fromkeys(case.size for case, _ in rows)
        largest = [max(gaps.largest[kind] for _, gaps in rows) for kind in KINDS]
        lines.append(
            f"| {task} | {', '.join(sizes)} | {len(rows)} "
            f"| {sum(gaps.num_answers for _, gaps in rows)} "
            f"| {sum(gaps.num_hypotheses for _, gaps in rows):,} | "
            + " | ".join(f"{gap:.1e}" if gap else "-" for gap in largest)
            + " |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Compare all cases, or those of some sizes, and write the table if all were compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = list(dict.fromkeys(case.size for case in CASES.values()))
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"of {', '.join(sizes)}")
    chosen = parser.parse_args().sizes
    names = [name for name, case in CASES.items() if case.size in (chosen or sizes)]
    if not names:
        sys.exit(f"there are no cases of size {', '.join(chosen)}; sizes are {', '.join(sizes)}")
    with tempfile.TemporaryDirectory() as output:
        measured = table(compare_now(names, Path(output)))
    print(measured)
    if not chosen:
        # Its stages are its own; the marker's live recording is among them.
        every_test = [sys.executable, "-m", "pytest", "-q", "-m", "parity or not parity"]
        subprocess.run([*every_test, DRAWING], cwd=ROOT, check=True)
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + BEGIN + measured + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
