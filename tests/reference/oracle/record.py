"""Records what ModelScope's pipelines do: one file a case, in `tests/golden/`.

`.venv-oracle/bin/python -m tests.reference.oracle.record [CASE ...] [--size SIZE] [--output DIR]`

`tokens` among the cases is what the tokenizers do. Text-to-image has a recorder of its own,
`tests.reference.oracle.text_to_image`.

When the weights of a shipped checkpoint change: `--size bundled`, and then
`tests.reference.oracle.results`.

A new case is a line in `tests/reference/cases.py`; a new recipe is calibrated first
(`tests.reference.oracle.calibrate`).
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.reference.cases import CASES, Case, Request, weights_sha256
from tests.reference.checkpoints import write_configuration
from tests.reference.golden import (
    FOLDER,
    NUM_THREADS,
    NUM_TOP,
    Answer,
    Hypothesis,
    Recording,
    floats,
    sha256,
    some_values,
)
from tests.reference.oracle.pipeline import build_pipeline, use_prompt
from tests.reference.oracle.tokens import record_tokens
from tests.reference.oracle.versions import versions

from modelscope.models.multi_modal import ofa_for_all_tasks  # isort: skip  # after its stand-ins

TOKENS = "tokens"
RESULTS = ("caption", "text", "boxes", "labels", "scores")


class Watch:
    """Keeps what passes between the parts of a pipeline; changes none of it."""

    def __init__(self, pipeline: Any) -> None:
        self.start(num_prompt=1)
        self._num_finished = self._max_length = 0
        self._generator = pipeline.model.generator
        model = pipeline.model.model
        self._encode, model.encoder.forward = model.encoder.forward, self._watch_encoder
        self._decode, model.decoder.forward = model.decoder.forward, self._watch_decoder
        search = self._generator.search
        self._search, search.step = search.step, self._watch_search
        self._generate, self._generator.generate = self._generator.generate, self._watch_result
        # The sums of all labels pass here and nowhere else.
        ofa_for_all_tasks.F = SimpleNamespace(softmax=self._watch_label_sums)

    def start(self, num_prompt: int) -> None:
        """Forget the request before.

        Args:
            num_prompt: Tokens that the decoder is given before the answer's first, BOS counted.
        """
        self._num_prompt = num_prompt
        self.encoder_hidden = torch.empty(0)
        self.first_logits = torch.empty(0)
        self.hypotheses: list[dict[str, torch.Tensor]] = []
        self.step_margins: list[float | None] = []
        self.label_log_probs = torch.empty(0)

    @property
    def first_log_probs(self) -> torch.Tensor:
        """Of the answer's first token, before any rule of the search."""
        return (self.first_logits / self._generator.temperature).log_softmax(0)

    def _watch_encoder(self, **inputs: Any) -> Any:
        output = self._encode(**inputs)
        self.encoder_hidden = output.last_hidden_state.clone()
        return output

    def _watch_decoder(self, *arguments: Any, **inputs: Any) -> Any:
        output = self._decode(*arguments, **inputs)
        if not self.first_logits.numel():
            self.first_logits = output[0][0, self._num_prompt - 1].clone()
        return output

    def _watch_label_sums(self, sums: torch.Tensor, dim: int) -> torch.Tensor:
        self.label_log_probs = sums[0].clone()
        return sums.softmax(dim)

    def _watch_search(
        self, step: int, log_probs: torch.Tensor, scores: torch.Tensor, *rest: Any
    ) -> Any:
        totals = log_probs[0, :1] if step == 0 else log_probs[0] + scores[0, :, step - 1, None]
        self.step_margins.append(self._margin(totals, is_last=step == self._max_length))
        return self._search(step, log_probs, scores, *rest)

    def _watch_result(self, models: Any, sample: Any, **options: Any) -> Any:
        self._num_finished = 0
        source_ids = sample["net_input"]["input_ids"]
        generator = self._generator
        if generator.match_source_len:
            self._max_length = int((source_ids != generator.eos).sum())
        else:
            length = source_ids.size(1)
            self._max_length = int(generator.max_len_a * length + generator.max_len_b)
        result = self._generate(models, sample, **options)
        self.hypotheses = result[0]
        return result

    def _margin(self, totals: torch.Tensor, *, is_last: bool) -> float | None:
        """The smallest difference that decided something in a step.

        Args:
            totals: Summed log-probabilities [beams, vocabulary] of all candidates.
            is_last: No beam lives on after this step.
        """
        beam_size, eos = self._generator.beam_size, self._generator.eos
        num_ranks = min(2 * beam_size + 1, totals.numel())
        values, flat = totals.flatten().topk(num_ranks)
        values = values.double()
        is_end = (flat % totals.size(1) == eos) & (values > -torch.inf)
        ends = is_end.nonzero()[:, 0].tolist()
        gaps = [
            values[rank] - values[beam_size]
            if rank < beam_size
            # An end token that is not among the first `beam_size` candidates is dropped.
            else values[beam_size - 1] - values[rank]
            for rank in ends
            if num_ranks > beam_size
        ]
        counted = [rank for rank in ends if rank < beam_size]
        places = beam_size - self._num_finished
        if len(counted) > places:
            gaps.append(values[counted[places - 1]] - values[counted[places]])
        self._num_finished += len(counted)
        if not is_last and self._num_finished < beam_size:
            others = (~is_end).nonzero()[:, 0]
            gaps.append(values[others[beam_size - 1]] - values[others[beam_size]])
        finite = [gap.item() for gap in gaps if gap.isfinite()]
        return min(finite, default=None)


def ask(case: Case, request: Request) -> Any:
    """What the pipeline is given."""
    parts = {"image": request.image, "text": request.text, "text2": request.text2}
    given = {name: value for name, value in parts.items() if value is not None}
    if request.image is not None:
        given["image"] = str(case.picture_folder / request.image)
    # Some pipelines take no dict for a picture alone.
    return given["image"] if given.keys() == {"image"} else given


def record_answer(pipeline: Any, watch: Watch, asked: Any) -> Answer:
    """Run the pipeline on one request."""
    sample = pipeline.preprocess(asked)
    inputs = sample["net_input"]
    is_traverse = pipeline.model.gen_type == "traverse"
    [prompt] = sample.get("decoder_prompts" if is_traverse else "prefix_tokens", [[]])
    prompt_ids = [int(token_id) for token_id in prompt]
    watch.start(num_prompt=len(prompt_ids) if is_traverse else 1)
    result = pipeline(asked)
    top = watch.first_log_probs.topk(NUM_TOP)
    hypotheses = [
        Hypothesis(
            token_ids=found["tokens"].tolist(),
            log_probs=floats(found["positional_scores"]),
            score=floats(found["score"][None])[0],
        )
        for found in watch.hypotheses
    ]
    scores = [hypothesis.score for hypothesis in hypotheses]
    pixels = inputs["patch_images"][0] if "patch_images" in inputs else None
    return Answer(
        pixels_sha256="" if pixels is None else sha256(pixels),
        pixels=[] if pixels is None else some_values(pixels, 12),
        source_ids=inputs["input_ids"][0].tolist(),
        encoder_hidden=some_values(watch.encoder_hidden[0]),
        first_ids=top.indices.tolist(),
        first_log_probs=floats(top.values),
        hypotheses=hypotheses,
        step_margins=[_rounded(margin) for margin in watch.step_margins],
        rank_margins=[_rounded(a - b) for a, b in itertools.pairwise(scores)],
        result={key: result[key] for key in RESULTS if result[key] is not None},
        prompt_ids=prompt_ids,
        label_log_probs=floats(watch.label_log_probs),
    )


def _rounded(margin: float | None) -> float | None:
    return None if margin is None else float(f"{margin:.3g}")


def record(case: Case) -> Recording:
    """Build a case's checkpoint and answer its requests."""
    is_raw = case.task == "generate"
    with tempfile.TemporaryDirectory() as scratch:
        folder = case.prepare(Path(scratch))
        weights = weights_sha256(folder)
        if is_raw:
            stand_in_task(case, folder)
        pipeline = build_pipeline(folder)
    watch = Watch(pipeline)
    answers = {}
    for request in case.requests:
        if is_raw:
            use_prompt(pipeline, request.text or "")
        answers[request.name] = record_answer(pipeline, watch, ask(case, request))
    return Recording(
        weights_sha256=weights,
        versions=versions(),
        answers=answers,
    )


def stand_in_task(case: Case, folder: Path) -> None:
    """Name a task of the reference that can be asked anything, for our `generate`.

    Captioning and summarization send their configured prompt as it is, and decode what comes.
    """
    configuration = json.loads((folder / "configuration.json").read_text(encoding="utf-8"))
    has_picture = case.requests[0].image is not None
    task = "image-captioning" if has_picture else "text-summarization"
    write_configuration(folder, task, configuration["model"])


def main() -> None:
    """Record what is named, or all cases and the tokenizers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--size", help="of cases that are recorded too")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    arguments.output.mkdir(parents=True, exist_ok=True)
    chosen = [*arguments.cases, *(n for n, case in CASES.items() if case.size == arguments.size)]
    for name in chosen or [*CASES, TOKENS]:
        print(f"recording {name}", flush=True)
        write = record_tokens if name == TOKENS else record(CASES[name]).save
        path = arguments.output / f"{name}.json"
        # `make parity-all` waits for the file and reads it as soon as it is there.
        part = path.with_suffix(".part")
        write(part)
        part.replace(path)


if __name__ == "__main__":
    main()
