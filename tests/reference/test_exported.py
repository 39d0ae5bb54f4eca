"""The exported generators answer as the reference, alone and in mixed batches."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.export import export_generator
from ofa.options import OptionLimits
from tests.reference.cases import CASES, TIES, Case
from tests.reference.compare import Gaps, Subject, check_answer, generate, requests_of, tensors
from tests.reference.golden import FOLDER, Recording

# Every kind of generator and of constraint, and what is particular about a layout.
EXPORTED = (
    *("tiny", "bundled", "everything", "interpolated", "unnormalized", "ofasys-entangled"),
    *("captioning-meme", "vqa-trie", "vqa-traverse-after-question", "grounding", "grounding-zh"),
    *("entailment-trie", "entailment-free", "classification", "ocr-document-zh"),
    *("summarization-by-length", "text-classification-traverse-source", "generate-text"),
)

# The folder's settings that a request can override, by the name of the option.
ROW_OPTIONS = {
    "beam_size": "beam_size",
    "max_len_b": "max_length",
    "min_len": "min_length",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "len_penalty": "length_penalty",
    "temperature": "temperature",
}


def _export(
    case: Case, scratch: Path, limits: OptionLimits | None = None
) -> tuple[Subject, nn.Module]:
    subject = Subject.load(case.prepare(scratch))
    path = scratch / "model.pt"
    export_generator(subject.checkpoint, path, limits or subject.checkpoint.default_limits())
    return subject, torch.jit.load(path)


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_answers_as_recorded(name: str, tmp_path: Path) -> None:
    """In one batch, whose rows have prompts of different lengths where the task has any."""
    requests = CASES[name].requests[:4]
    case = dataclasses.replace(CASES[name], requests=requests)
    subject, exported = _export(case, tmp_path)
    rows = [subject.task.preprocess(request) for request in requests_of(case)]
    recording = Recording.load(FOLDER / f"{name}.json")
    for request, row, found in zip(
        requests, rows, generate(exported, subject.task, rows), strict=True
    ):
        check_answer(subject.task, row, found, recording.answers[request.name], Gaps())


def _row_options(case: Case) -> dict[str, int | float] | None:
    """What a request would say to get the case's search, None where a request cannot."""
    search = case.settings.get("beam_search", {})
    if case.checkpoint != "small" or case.settings.keys() != {"beam_search"}:
        return None
    if case.task != "image-captioning" or not search.keys() <= ROW_OPTIONS.keys():
        return None
    return {ROW_OPTIONS[key]: value for key, value in search.items()}


def test_rows_of_a_batch_keep_their_own_search(tmp_path: Path) -> None:
    """Requests with different options share batches and are answered as if alone."""
    limits = OptionLimits(max_beam_size=12, max_length=40)
    subject, exported = _export(CASES["defaults"], tmp_path, limits)
    task = subject.checkpoint.build_task(limits)
    requests = [
        (case, request, options)
        for case in CASES.values()
        if (options := _row_options(case)) is not None
        for request in case.requests
    ]
    # Neighbours in a batch are of different cases.
    requests.sort(key=lambda request: request[1].name)
    assert len(requests) >= 40
    for start in range(0, len(requests), 8):
        batch = requests[start : start + 8]
        rows = [
            task.preprocess(tensors(request, case.picture_folder, **options))
            for case, request, options in batch
        ]
        answers = generate(exported, task, rows)
        for (case, request, _), row, found in zip(batch, rows, answers, strict=True):
            recorded = Recording.load(FOLDER / f"{case.name}.json").answers[request.name]
            is_tie = f"{case.name}/{request.name}" in TIES
            check_answer(task, row, found, recorded, Gaps(), is_tie=is_tie)
