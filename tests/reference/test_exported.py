"""The exported generator answers as the eager one, alone and in mixed batches."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.export import export_generator
from ofa.options import OptionLimits
from tests.reference.cases import CASES, TIES, Case
from tests.reference.compare import Subject, check_hypotheses, generate, hypotheses
from tests.reference.draw_pictures import FOLDER as PICTURES
from tests.reference.golden import FOLDER, Recording

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


@pytest.mark.parametrize("name", ["tiny", "bundled", "everything", "interpolated", "unnormalized"])
def test_exported_equals_eager(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    subject, exported = _export(case, tmp_path)
    for picture in case.pictures[:3]:
        requests = [(case.picture_folder / picture, {})]
        [eager] = generate(subject.generator, subject.task, requests)
        [loaded] = generate(exported, subject.task, requests)
        for ours, theirs in zip(eager, loaded, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def _row_options(case: Case) -> dict[str, int | float] | None:
    """What a request would say to get the case's search, None where a request cannot."""
    search = case.settings.get("beam_search", {})
    if case.checkpoint != "small" or case.settings.keys() != {"beam_search"}:
        return None
    if not search.keys() <= ROW_OPTIONS.keys():
        return None
    return {ROW_OPTIONS[key]: value for key, value in search.items()}


def test_rows_of_a_batch_keep_their_own_search(tmp_path: Path) -> None:
    """Requests with different options share batches and are answered as if alone."""
    limits = OptionLimits(max_beam_size=12, max_length=40)
    subject, exported = _export(CASES["defaults"], tmp_path, limits)
    task = subject.checkpoint.build_task(limits)
    requests = [
        (name, picture, options)
        for name, case in CASES.items()
        if (options := _row_options(case)) is not None
        for picture in case.pictures
    ]
    # Neighbours in a batch are of different cases.
    requests.sort(key=lambda request: request[1])
    assert len(requests) >= 40
    for start in range(0, len(requests), 8):
        batch = requests[start : start + 8]
        pictures = [(PICTURES / picture, options) for _, picture, options in batch]
        answers = generate(exported, task, pictures)
        for (name, picture, _), answer in zip(batch, answers, strict=True):
            recorded = Recording.load(FOLDER / f"{name}.json").answers[picture]
            ours = hypotheses(answer, task.tokenizer.pad_id)
            check_hypotheses(ours, recorded, is_tie=f"{name}/{picture}" in TIES)
