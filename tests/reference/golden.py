"""What a recording holds, and how it is read and written."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden"
NUM_TOP = 16
#: Of torch, while recording and while comparing: rounding depends on how work is cut up.
NUM_THREADS = 1


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One finished hypothesis: token ids with EOS, one log-probability a token, the score."""

    token_ids: list[int]
    log_probs: list[float]
    score: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the reference does with one request, stage by stage.

    Attributes:
        pixels_sha256: Of the normalised float32 pixels [3, S, S]; empty without a picture.
        pixels: Some of them.
        source_ids: The prompt.
        encoder_hidden: Some values of the encoder's output [image and text tokens, width].
        first_ids: The likeliest first tokens, likeliest first.
        first_log_probs: Their log-probabilities before any rule of the search. They follow BOS,
            or the decoder's prompt where labels are scored.
        hypotheses: All of them, best first; none where labels are scored.
        step_margins: For every step, the smallest difference of scores that decided anything:
            who stays in the beam and which end token counts. None where nothing could differ.
        rank_margins: Differences between the final scores of neighbours in rank.
        result: What the pipeline returns, without its empty entries.
        prompt_ids: What the answer is forced to begin with, or follows where labels are scored.
        label_log_probs: Of every label, in the order of their file, where labels are scored.
    """

    pixels_sha256: str
    pixels: list[float]
    source_ids: list[int]
    encoder_hidden: list[float]
    first_ids: list[int]
    first_log_probs: list[float]
    hypotheses: list[Hypothesis]
    step_margins: list[float | None]
    rank_margins: list[float]
    result: dict[str, Any]
    prompt_ids: list[int] = dataclasses.field(default_factory=list)
    label_log_probs: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Recording:
    """The answers of one case, the weights that gave them and what ran."""

    weights_sha256: str
    versions: dict[str, str]
    answers: dict[str, Answer]

    def save(self, path: Path) -> None:
        """Write JSON, one request a line."""
        lines = [
            f"  {_json(name)}: {_json(dataclasses.asdict(answer))}"
            for name, answer in self.answers.items()
        ]
        head = (
            f'{{"weights_sha256": "{self.weights_sha256}",\n"versions": {_json(self.versions)},\n'
        )
        path.write_text(head + '"answers": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read what `save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, answer in values["answers"].items():
            hypotheses = [Hypothesis(**hypothesis) for hypothesis in answer["hypotheses"]]
            values["answers"][name] = Answer(**{**answer, "hypotheses": hypotheses})
        return cls(**values)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def some_values(tensor: torch.Tensor, count: int = 32) -> list[float]:
    """`count` values, evenly spread over a tensor."""
    flat = tensor.detach().float().flatten()
    return floats(flat[torch.linspace(0, flat.numel() - 1, count).long()])


def floats(values: torch.Tensor) -> list[float]:
    """A float32 tensor as the shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in values.detach().numpy().astype(np.float32)]


def sha256(tensor: torch.Tensor) -> str:
    """Of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()
