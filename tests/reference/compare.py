"""Ours beside the reference, stage by stage."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ofa.checkpoint import Checkpoint, load_checkpoint
from ofa.export import option_tensors
from ofa.generation import Generator
from ofa.tasks import CaptioningTask
from tests.reference.cases import TIES, Case, weights_sha256
from tests.reference.golden import Answer, Hypothesis, Recording, sha256, some_values

SCORE_TOLERANCE = 1e-4
HIDDEN_TOLERANCE = 2e-4
TIE_MARGIN = 2e-5

Row = tuple[Tensor, Tensor, Tensor]
"""Token ids [hypotheses, tokens], scores [hypotheses] and log-probabilities like the ids."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A checkpoint as our library runs it."""

    checkpoint: Checkpoint
    task: CaptioningTask
    generator: Generator

    @classmethod
    def load(cls, folder: Path) -> "Subject":
        """Read a checkpoint folder."""
        checkpoint = load_checkpoint(folder)
        task = checkpoint.build_task(checkpoint.default_limits())
        return cls(checkpoint, task, checkpoint.build_generator())


@torch.inference_mode()
def generate(
    generator: nn.Module,
    task: CaptioningTask,
    requests: Sequence[tuple[Path, Mapping[str, int | float]]],
) -> list[Row]:
    """All hypotheses for a batch of pictures, each with the options that its request names."""
    rows = [task.preprocess(picture.read_bytes(), given) for picture, given in requests]
    options = [dataclasses.replace(row.options, num_captions=row.options.beam_size) for row in rows]
    token_ids, scores, log_probs = generator(
        torch.from_numpy(np.stack([row.patch_images for row in rows])),
        torch.from_numpy(np.stack([row.source_ids for row in rows])),
        *option_tensors(options).values(),
    )
    return list(zip(token_ids, scores, log_probs, strict=True))


def hypotheses(answer: Row, pad_id: int) -> list[Hypothesis]:
    """One row of a generator's answer, without padding and empty places."""
    found = []
    for ids, score, values in zip(*answer, strict=True):
        length = int((ids != pad_id).sum())
        if length:
            found.append(Hypothesis(ids[:length].tolist(), values[:length].tolist(), score.item()))
    return found


def check_hypotheses(ours: list[Hypothesis], recorded: Answer, *, is_tie: bool) -> None:
    """Every hypothesis has the recorded ids in the recorded order, and its scores.

    Args:
        ours: Best first.
        recorded: What the reference answered.
        is_tie: The case is known to turn on a difference that rounding can reverse; then other
            ids are accepted where the recorded margin says so.
    """
    if [h.token_ids for h in ours] != [h.token_ids for h in recorded.hypotheses]:
        margin = margin_of_first_difference(ours, recorded)
        assert is_tie, f"other hypotheses; the first decision that differs has margin {margin:g}"
        assert margin < TIE_MARGIN, f"decided by {margin:g} nat, which is no tie"
        return
    for mine, theirs in zip(ours, recorded.hypotheses, strict=True):
        np.testing.assert_allclose(mine.score, theirs.score, rtol=0, atol=SCORE_TOLERANCE)
        np.testing.assert_allclose(mine.log_probs, theirs.log_probs, rtol=0, atol=SCORE_TOLERANCE)


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
def check_stages(subject: Subject, picture: Path, recorded: Answer) -> None:
    """Pixels, prompt, encoder and first token are the recorded ones, up to rounding."""
    row = subject.task.preprocess(picture.read_bytes(), {})
    pixels = subject.generator.normalize(torch.from_numpy(row.patch_images)[None])
    np.testing.assert_allclose(some_values(pixels[0], len(recorded.pixels)), recorded.pixels)
    assert sha256(pixels[0]) == recorded.pixels_sha256, "the pixels are not bit-equal"
    assert row.source_ids.tolist() == recorded.source_ids

    model, source_ids = subject.checkpoint.model, torch.from_numpy(row.source_ids)[None]
    encoder = model.encoder
    x, height, width = encoder.embed(pixels, source_ids)
    positions = encoder.position_states(height, width, source_ids.size(1))
    bias = encoder.attention_bias(positions, height, width)
    hidden = encoder.run_layers(x, encoder.padding_mask(source_ids, height * width), bias)
    np.testing.assert_allclose(
        some_values(hidden[0], len(recorded.encoder_hidden)),
        recorded.encoder_hidden,
        rtol=0,
        atol=HIDDEN_TOLERANCE,
    )

    logits = model(pixels, source_ids, torch.tensor([[model.config.bos_token_id]]))[0, -1]
    log_probs = (logits / row.options.temperature).log_softmax(0)
    np.testing.assert_allclose(
        log_probs[recorded.first_ids], recorded.first_log_probs, rtol=0, atol=SCORE_TOLERANCE
    )


def check_captions(subject: Subject, answer: Row, recorded: Answer) -> None:
    """The texts of one row are the recorded ones."""
    token_ids, scores, log_probs = (values.numpy() for values in answer)
    num_captions = subject.task.settings.defaults.num_captions
    ours = subject.task.postprocess(token_ids, scores, log_probs, num_captions)
    assert ours.captions == recorded.captions


def check_case(case: Case, recording: Recording, scratch: Path) -> None:
    """Our library answers every picture of a case as recorded, with the same weights."""
    folder = case.prepare(scratch)
    assert weights_sha256(folder) == recording.weights_sha256, "these are not the recorded weights"
    subject = Subject.load(folder)
    for name in case.pictures:
        picture, recorded = case.picture_folder / name, recording.answers[name]
        is_tie = f"{case.name}/{name}" in TIES
        check_stages(subject, picture, recorded)
        [answer] = generate(subject.generator, subject.task, [(picture, {})])
        ours = hypotheses(answer, subject.task.tokenizer.pad_id)
        check_hypotheses(ours, recorded, is_tie=is_tie)
        if not is_tie:
            check_captions(subject, answer, recorded)
