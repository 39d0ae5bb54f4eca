"""Training batches: scenes drawn and tokenised, each a function of its number alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from training.render import Painter
from training.scenes import caption, compose
from training.things import load_things
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID

PATCH = 16
# A grid cell shows a thing if the thing covers this share of it, and shows only background below
# the lower share; cells between the two teach nothing.
CLEARLY_COVERED, CLEARLY_FREE = 0.4, 0.05
# Cell labels: things by index, then background.
BACKGROUND_CELL = len(load_things())
IGNORED = -100


@dataclass(frozen=True)
class Stage:
    """A stretch of the curriculum.

    Attributes:
        steps: number of batches.
        batch_size: pictures a batch.
        image_size: side of the square canvas in pixels.
        count_shares: probabilities of one, two and three things.
    """

    steps: int
    batch_size: int
    image_size: int
    count_shares: tuple[float, float, float]


class Batch(NamedTuple):
    """B pictures with captions of at most T tokens.

    Attributes:
        images: uint8 [B, 3, S, S].
        decoder_input_ids: int64 [B, T], BOS first, padded.
        target_ids: int64 [B, T], EOS last, padding ignored.
        cell_labels: int64 [B, S / 16, S / 16], which thing each grid cell shows.
    """

    images: Tensor
    decoder_input_ids: Tensor
    target_ids: Tensor
    cell_labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self))


def _cell_labels(things: Sequence[int], coverage: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which thing each grid cell shows, int64 [grid, grid], from `Picture.coverage`."""
    most = coverage.max(axis=0)
    labels = np.asarray(things)[coverage.argmax(axis=0)]
    labels = np.where(most >= CLEARLY_COVERED, labels, IGNORED)
    return np.where(most <= CLEARLY_FREE, BACKGROUND_CELL, labels)


def make_batch(
    rngs_and_counts: Sequence[tuple[np.random.Generator, int]],
    painter: Painter,
    tokenizer: Tokenizer,
    image_size: int,
    *,
    unseen: bool,
) -> Batch:
    """Draws one picture, of so many things, from each source of chance."""
    index_of = {thing: index for index, thing in enumerate(load_things())}
    grid = image_size // PATCH
    images, labels, token_ids = [], [], []
    for rng, count in rngs_and_counts:
        scene = compose(rng, painter.styles_of, count, unseen=unseen)
        picture = painter.paint(scene, image_size, image_size, grid)
        images.append(np.asarray(picture.image).transpose(2, 0, 1))
        things = [index_of[placement.thing] for placement in scene.placements]
        labels.append(_cell_labels(things, picture.coverage))
        token_ids.append(tokenizer.encode(f" {caption(scene)}").ids)
    length = max(map(len, token_ids)) + 1
    inputs = torch.full((len(images), length), PAD_ID)
    targets = torch.full((len(images), length), IGNORED)
    for row, ids in enumerate(token_ids):
        inputs[row, : len(ids) + 1] = torch.tensor([BOS_ID, *ids])
        targets[row, : len(ids) + 1] = torch.tensor([*ids, EOS_ID])
    return Batch(
        torch.from_numpy(np.stack(images)), inputs, targets, torch.from_numpy(np.stack(labels))
    )


class SceneBatches(Dataset[Batch]):
    """One worker's share of every batch of a curriculum.

    Each picture is a function of the seed, the step and its place in the batch, so the pictures of
    a step are the same however many workers share them.
    """

    def __init__(
        self,
        painter: Painter,
        tokenizer: Tokenizer,
        stages: Sequence[Stage],
        seed: int,
        rank: int,
        num_workers: int,
    ) -> None:
        self._painter = painter
        self._tokenizer = tokenizer
        self._stages = stages
        self._seed = seed
        self._rank = rank
        self._num_workers = num_workers

    def __len__(self) -> int:
        return sum(stage.steps for stage in self._stages)

    def _stage_of(self, step: int) -> Stage:
        for stage in self._stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise IndexError(step)

    def __getitem__(self, step: int) -> Batch:
        stage = self._stage_of(step)
        rngs_and_counts = []
        for place in range(self._rank, stage.batch_size, self._num_workers):
            rng = np.random.default_rng([self._seed, step, place])
            rngs_and_counts.append((rng, 1 + int(rng.choice(3, p=stage.count_shares))))
        return make_batch(
            rngs_and_counts, self._painter, self._tokenizer, stage.image_size, unseen=False
        )
