"""Records what ModelScope's pipelines return as a whole, for `ofa_client.modelscope`.

`.venv-oracle/bin/python -m tests.reference.oracle.results [CASE ...]`

The recordings of `record` hold the entries that are not None; here are all of them, for the first
request of one case of every kind of answer. Cases that are not named stay as they were recorded.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.reference.cases import CASES
from tests.reference.golden import FOLDER, NUM_THREADS
from tests.reference.oracle.pipeline import build_pipeline
from tests.reference.oracle.record import ask

PATH = FOLDER / "results.json"
KINDS = (
    "bundled",
    "bundled-zh",
    "bundled-vqa",
    "bundled-grounding",
    "bundled-entailment",
    "bundled-classification",
    "bundled-ocr",
    "bundled-summarization",
    "bundled-text_classification",
    "vqa-traverse",
    "vqa-trie",
    "entailment-trie",
)


def record(name: str) -> dict[str, Any]:
    """What the pipeline of a case was asked first, and what it returned."""
    case = CASES[name]
    request = case.requests[0]
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = build_pipeline(case.prepare(Path(scratch)))
    asked = ask(case, request)
    result = pipeline(asked)
    # Tuples become lists in JSON: only this one is a tuple.
    assert isinstance(result["samples"], tuple)
    # Nothing of this machine.
    text = json.dumps({"asked": asked, "result": result}, ensure_ascii=False)
    recorded: dict[str, Any] = json.loads(text.replace(f"{case.picture_folder}/", ""))
    return recorded


def main() -> None:
    """Record what is named, or all kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(KINDS))
    names = parser.parse_args().cases or KINDS
    torch.set_num_threads(NUM_THREADS)
    recorded = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}
    for name in names:
        print(f"recording {name}", flush=True)
        recorded[name] = record(name)
    lines = [
        f"{json.dumps(name)}: {json.dumps(recorded[name], ensure_ascii=False)}" for name in recorded
    ]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
