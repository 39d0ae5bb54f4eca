"""Ours beside the reference, stage by stage."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ofa.checkpoint import Checkpoint, load_checkpoint
from ofa.export import as_tuple, stack_rows
from ofa.tasks import Task
from ofa.tensors import Tensors
from tests.reference.cases import TIES, Case, Request, weights_sha256
from tests.reference.golden import Answer, Hypothesis, Recording, sha256, some_values

TIE_MARGIN = 2e-5
LOG_PROB = "log-probability"
PROBABILITY = "probability"
ENCODER = "encoder output"
BOX = "box, pixels"
TOLERANCES = {LOG_PROB: 1e-4, PROBABILITY: 1e-5, ENCODER: 2e-4, BOX: 1e-2}
LARGE_TOLERANCES = {**TOLERANCES, PROBABILITY: 1e-4}


class Gaps:
    """Compares numbers and keeps the largest difference of every kind.

    Attributes:
        largest: By kind.
        num_answers: Compared so far; every request is answered alone and in a batch.
        num_hypotheses: Token sequences, or labels where labels are scored.
    """

    def __init__(self, tolerances: dict[str, float] = TOLERANCES) -> None:
        self.largest: defaultdict[str, float] = defaultdict(float)
        self.num_answers = 0
        self.num_hypotheses = 0
        self._tolerances = tolerances

    def close(self, kind: str, ours: npt.ArrayLike, theirs: npt.ArrayLike) -> None:
        """Fail where the difference is above what rounding can do."""
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=self._tolerances[kind], err_msg=kind)
        gap = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        self.largest[kind] = max(self.largest[kind], gap.max(initial=0))


@dataclasses.dataclass(frozen=True)
class Subject:
    """A checkpoint as our library runs it."""

    checkpoint: Checkpoint
    task: Task
    generator: nn.Module

    @classmethod
    def load(cls, folder: Path, configuration: Path | None = None) -> "Subject":
        """Read a checkpoint folder, with its own or another configuration."""
        checkpoint = load_checkpoint(folder, configuration)
        task = checkpoint.build_task(checkpoint.default_limits())
        return cls(checkpoint, task, checkpoint.build_generator())


def tensors(request: Request, picture_folder: Path, **options: Any) -> Tensors:
    """A request as a client sends it."""
    sent: dict[str, Any] = {**options}
    if request.image is not None:
        sent["image"] = (picture_folder / request.image).read_bytes()
    for name, text in (("text", request.text), ("text2", request.text2)):
        if text is not None:
            sent[name] = text.encode()
    return {
        name: np.array([value], np.object_ if isinstance(value, bytes) else None)
        for name, value in sent.items()
    }


def requests_of(case: Case) -> list[Tensors]:
    """All requests of a case."""
    # The reference reads `<bin_3>` as a token wherever it stands.
    options = {"allow_special_tokens": True} if case.task == "generate" else {}
    return [tensors(request, case.picture_folder, **options) for request in case.requests]


@torch.inference_mode()
def generate(generator: nn.Module, task: Task, rows: Sequence[Tensors]) -> list[Tensors]:
    """What the generator finds for rows of `task.preprocess` in one batch: all hypotheses."""
    longest = max(len(row["source_ids"]) for row in rows)
    batch = []
    for row in rows:
        padding = [task.tokenizer.pad_id] * (longest - len(row["source_ids"]))
        padded = {**row, "source_ids": np.append(row["source_ids"], padding).astype(np.int64)}
        if "beam_size" in row:
            padded["num_hypotheses"] = row["beam_size"]
        batch.append(padded)
    outputs = as_tuple(generator(*stack_rows(batch, task)))
    names = [spec.name for spec in task.tensors.generator_outputs]
    return [
        dict(zip(names, (output[index].numpy() for output in outputs), strict=True))
        for index in range(len(rows))
    ]


def hypotheses(found: Tensors, pad_id: int) -> list[Hypothesis]:
    """One row of a generator's answer, without padding and empty places."""
    listed = []
    for ids, score, values in zip(
        found["token_ids"],
        found["hypothesis_scores"],
        found["hypothesis_log_probs"],
        strict=True,
    ):
        length = int((ids != pad_id).sum())
        if length:
            listed.append(Hypothesis(ids[:length].tolist(), values[:length].tolist(), float(score)))
    return listed


def check_hypotheses(ours: list[Hypothesis], recorded: Answer, gaps: Gaps, *, is_tie: bool) -> None:
    """Every hypothesis has the recorded ids in the recorded order, and its scores.

    Args:
        ours: Best first.
        recorded: What the reference answered.
        gaps: What the differences are added to.
        is_tie: The case is known to turn on a difference that rounding can reverse; then other
            ids are accepted where the recorded margin says so.
    """
    if [h.token_ids for h in ours] != [h.token_ids for h in recorded.hypotheses]:
        margin = margin_of_first_difference(ours, recorded)
        assert is_tie, f"other hypotheses; the first decision that differs has margin {margin:g}"
        assert margin < TIE_MARGIN, f"decided by {margin:g} nat, which is no tie"
        return
    for mine, theirs in zip(ours, recorded.hypotheses, strict=True):
        gaps.close(LOG_PROB, mine.score, theirs.score)
        gaps.close(LOG_PROB, mine.log_probs, theirs.log_probs)


def margin_of_first_difference(ours: list[Hypothesis], recorded: Answer) -> float:
    """The recorded margin of the first step in which the two lists of hypotheses part.

    They part in step t when the sets of their first t + 1 tokens do. If only the order differs,
    it is the smallest difference between neighbours in rank.
    """
    mine = [h.token_ids for h in ours]
    theirs = [h.token_ids for h in recorded.hypotheses]
    if sorted(mine) == sorted(theirs):
        return min(recorded.rank_margins)
    for step, margin in enumerate(recorded.step_margins):
        if {tuple(ids[: step + 1]) for ids in mine} != {tuple(ids[: step + 1]) for ids in theirs}:
            return float("inf") if margin is None else margin
    return float("inf")


@torch.inference_mode()
def check_stages(subject: Subject, row: Tensors, recorded: Answer, gaps: Gaps) -> None:
    """Pixels, prompts, encoder and first token are the recorded ones, up to rounding."""
    source_ids = torch.from_numpy(row["source_ids"][: len(recorded.source_ids)])[None]
    assert source_ids[0].tolist() == recorded.source_ids
    assert set(row["source_ids"][source_ids.size(1) :]) <= {subject.task.tokenizer.pad_id}
    assert row.get("prefix_length", 0) in (0, len(recorded.prompt_ids))

    pixels: Tensor | None = None
    if recorded.pixels_sha256:
        normalize: Any = subject.generator.normalize
        pixels = normalize(torch.from_numpy(row["patch_images"])[None])
        assert pixels is not None
        np.testing.assert_allclose(some_values(pixels[0], len(recorded.pixels)), recorded.pixels)
        assert sha256(pixels[0]) == recorded.pixels_sha256, "the pixels are not bit-equal"

    encode: Any = subject.generator.source_encoder
    hidden = encode(pixels, source_ids).hidden[0]
    gaps.close(ENCODER, some_values(hidden, len(recorded.encoder_hidden)), recorded.encoder_hidden)

    # Beam search always starts with BOS, and forces what may follow.
    prompt_ids = (
        recorded.prompt_ids if recorded.label_log_probs else [subject.task.tokenizer.bos_id]
    )
    logits = subject.checkpoint.model(pixels, source_ids, torch.tensor([prompt_ids]))[0, -1]
    log_probs = (logits / row.get("temperature", 1.0)).log_softmax(0)
    gaps.close(LOG_PROB, log_probs[recorded.first_ids], recorded.first_log_probs)


def check_answer(
    task: Task, row: Tensors, found: Tensors, recorded: Answer, gaps: Gaps, *, is_tie: bool = False
) -> None:
    """What the generator found for one row, and what the task makes of it, are as recorded."""
    gaps.num_answers += 1
    if recorded.label_log_probs:
        gaps.num_hypotheses += len(recorded.label_log_probs)
        ours, theirs = found["label_log_probs"], recorded.label_log_probs
        gaps.close(LOG_PROB, ours, theirs)
        gaps.close(PROBABILITY, np.exp(ours), np.exp(theirs))
    else:
        gaps.num_hypotheses += len(recorded.hypotheses)
        listed = hypotheses(found, task.tokenizer.pad_id)
        check_hypotheses(listed, recorded, gaps, is_tie=is_tie)
    if not is_tie:
        kept = {spec.name: row[spec.name] for spec in task.tensors.kept}
        check_result(task, task.postprocess({**found, **kept}), recorded, gaps)


def check_result(task: Task, answer: Tensors, recorded: Answer, gaps: Gaps) -> None:
    """What a client gets is what the pipeline returned; scores, where the pipeline has any."""
    [theirs] = [value for key, value in recorded.result.items() if key != "scores"]
    ours = answer[task.results]
    if task.results == "boxes":
        gaps.close(BOX, ours[0], theirs[0])
    elif isinstance(theirs, str):  # the best of all labels, which are scored
        assert ours[0].decode() == theirs
        probability = (
            answer["probabilities"] if "probabilities" in answer else np.exp(answer["scores"])
        )
        gaps.close(PROBABILITY, probability[0], recorded.result["scores"])
    else:
        assert [text.decode() for text in ours] == theirs
        if "probabilities" in answer:
            start = len(recorded.prompt_ids)
            best = recorded.hypotheses[: len(ours)]
            # Without a token after the prompt there is no label.
            label_log_probs = [h.log_probs[start:] or [-np.inf] for h in best]
            expected = [np.exp(np.sum(values)) for values in label_log_probs]
            # Behind a prompt, the reference's values are differences of long, rounded sums.
            kind = LOG_PROB if start else PROBABILITY
            gaps.close(kind, answer["probabilities"], expected)


def check_case(case: Case, recording: Recording, scratch: Path) -> Gaps:
    """Our library answers every request of a case as recorded, with the same weights.

    Every request is asked alone, then all in one batch.
    """
    folder = case.prepare(scratch)
    assert weights_sha256(folder) == recording.weights_sha256, "these are not the recorded weights"
    subject = Subject.load(folder)
    gaps = Gaps(LARGE_TOLERANCES if case.size in ("base", "large") else TOLERANCES)
    rows = [subject.task.preprocess(request) for request in requests_of(case)]
    alone = [generate(subject.generator, subject.task, [row])[0] for row in rows]
    together = generate(subject.generator, subject.task, rows)
    for request, row, *answers in zip(case.requests, rows, alone, together, strict=True):
        recorded = recording.answers[request.name]
        is_tie = f"{case.name}/{request.name}" in TIES
        check_stages(subject, row, recorded, gaps)
        for found in answers:
            check_answer(subject.task, row, found, recorded, gaps, is_tie=is_tie)
    return gaps
