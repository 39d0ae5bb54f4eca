"""Requests, and rows of what a generator answers, for the tests of tasks."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ofa.tasks import Task
from ofa.tensors import Tensors
from tests.unit import tiny
from tests.unit.tiny import EOS, PAD


def make_png(width: int = tiny.IMAGE_SIZE, height: int = tiny.IMAGE_SIZE) -> bytes:
    """Blocks of colour, cut to any size."""
    pixels = tiny.make_pictures(1, size=-(-max(width, height) // 8) * 8)[0].permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()[:height, :width]).save(file, "PNG")
    return file.getvalue()


def make_request(**values: str | bytes | bool | float) -> Tensors:
    """Texts and pictures as bytes, options as numbers."""
    tensors = {}
    for name, value in values.items():
        if isinstance(value, str | bytes):
            content = value.encode() if isinstance(value, str) else value
            tensors[name] = np.array([content], np.object_)
        else:
            tensors[name] = np.array([value])
    return tensors


def read_prompt(task: Task, row: Tensors) -> str:
    """The text of a row's prompt, of which BOS, EOS and padding are checked."""
    token_ids = row["source_ids"].tolist()
    end = token_ids.index(EOS)
    assert set(token_ids[end + 1 :]) <= {PAD}
    assert token_ids[0] == task.tokenizer.bos_id
    return task.tokenizer.decode(token_ids[1:end])


def make_hypotheses(
    rows: Sequence[Sequence[int]], token_log_prob: float = -0.5, count: int | None = None
) -> dict[str, np.ndarray]:
    """What beam search and preprocess hand to postprocess.

    Args:
        rows: token ids of every hypothesis without EOS, best first; an empty one was not found.
        token_log_prob: of the first hypothesis; of the second it is twice as much, and so on.
        count: hypotheses that were asked for; all of them if None.
    """
    length = max(map(len, rows)) + 1
    ended = [[*row, EOS] if row else [] for row in rows]
    token_ids = np.array([row + [PAD] * (length - len(row)) for row in ended])
    ranks = np.arange(1, len(rows) + 1)[:, None]
    log_probs = np.where(token_ids == PAD, 0, token_log_prob * ranks).astype(np.float32)
    found = np.array([bool(row) for row in rows])
    return {
        "token_ids": token_ids,
        "hypothesis_scores": np.where(found, token_log_prob * ranks[:, 0], -np.inf).astype("f4"),
        "hypothesis_log_probs": log_probs,
        "num_hypotheses": np.array([len(rows) if count is None else count], np.int32),
    }


def word_ids(task: Task, text: str) -> list[int]:
    """Ids of a text without BOS and EOS."""
    return task.tokenizer.encode(text, 10_000)[1:-1]


def texts(answer: Tensors, name: str) -> list[str]:
    """A list of texts in an answer."""
    return [text.decode() for text in answer[name]]
