"""Training batches: pictures drawn and asked about, each a function of its number alone."""

import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from ofa.image import MIN_TEXT_SIDE, resize_scene
from training.looking import find_answer, find_words
from training.render import Painter, Picture
from training.scenes import compose
from training.tasks import (
    ABOUT_SCENES,
    ABOUT_TEXTS,
    NAMES_THINGS,
    REPEATS_SOURCE,
    Example,
    ask_words,
    choose,
    source_of,
)
from training.things import load_things
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID, first_bin_id
from training.words import TRAINING_FONTS, Letter, compose_sign, paint_sign

PATCH = 16
# A grid cell shows a thing if the thing covers this share of it, and shows only background below
# the lower share; cells between the two teach nothing.
CLEARLY_COVERED, CLEARLY_FREE = 0.4, 0.05
# Cell labels: things by index, then background.
BACKGROUND_CELL = len(load_things())
IGNORED = -100
# Labels of a cell of a sign.
ALPHABET = string.ascii_lowercase
# Boxes are counted in this many pixels, whatever the picture's size (`model.max_image_size`).
MAX_IMAGE_SIZE = 512
# Signs are drawn at this height, then resized as the OCR task does.
SIGN_HEIGHT = 128


class AuxiliaryWeights(NamedTuple):
    """What the losses of the auxiliary heads count, beside answers that count 1.

    Attributes:
        cells: of which thing a grid cell shows.
        letters: of which letters it shows.
        boxes: of the box of what a patch shows, in sides of the picture, and of whether that is
            what the question is about.
    """

    cells: float
    letters: float
    boxes: float


#: Of all stages that name none.
AUXILIARY_WEIGHTS = AuxiliaryWeights(cells=0.5, letters=3.0, boxes=3.0)


@dataclass(frozen=True)
class Stage:
    """A stretch of the curriculum.

    Attributes:
        steps: number of batches.
        batch_size: pictures of scenes a batch.
        image_size: side of the square canvas in pixels.
        count_shares: probabilities of one, two and three things.
        tasks: names of the tasks that scenes are asked about; more often, if named several times.
        tasks_a_scene: how many of these each scene is asked about.
        always: names of tasks that every scene is asked about besides.
        num_signs: pictures of words a batch.
        num_texts: questions without a picture a batch.
        weights: of the auxiliary losses.
    """

    steps: int
    batch_size: int
    image_size: int
    count_shares: tuple[float, float, float]
    tasks: tuple[str, ...] = ("caption",)
    tasks_a_scene: int = 1
    always: tuple[str, ...] = ()
    num_signs: int = 0
    num_texts: int = 0
    weights: AuxiliaryWeights = AUXILIARY_WEIGHTS


class Rows(NamedTuple):
    """N questions of one task with their answers.

    Attributes:
        pictures: int64 [N], which picture of the batch each is about; none of them: empty.
        source_ids: int64 [N, L], padded.
        decoder_input_ids: int64 [N, T], BOS first, padded.
        target_ids: int64 [N, T], EOS last; what is not to be learned, as padding, is IGNORED.
        finds: bool [N, S, S] over the encoder's S positions, the picture's cells first: True where
            the first one of a pair should look at the second; see `find_words`. Empty if the task's
            questions name no things in pictures.
        sees: bool [N, T, cells], True where the decoder should look before it gives a target; see
            `find_answer`. Empty without scenes.
    """

    pictures: Tensor
    source_ids: Tensor
    decoder_input_ids: Tensor
    target_ids: Tensor
    finds: Tensor
    sees: Tensor


class Batch(NamedTuple):
    """P pictures and what is asked.

    Attributes:
        images: uint8 [P, 3, S, S].
        cell_labels: int64 [P, cells], which thing each grid cell shows.
        cell_boxes: float32 [P, cells, 4], the box of that thing in fractions of the picture.
        asked: float32 [N, cells], 1 for the cells that show what a row of `grounding` asks for,
            else 0.
        letters: float32 [N, cells, 26], 1 for the letters that a grid cell shows, else 0, in the
            pictures of the rows of `ocr`.
        rows: by name of the task.
    """

    images: Tensor
    cell_labels: Tensor
    cell_boxes: Tensor
    asked: Tensor
    letters: Tensor
    rows: dict[str, Rows]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        rows = {task: Rows(*(tensor.to(device) for tensor in r)) for task, r in self.rows.items()}
        pictures = (self.images, self.cell_labels, self.cell_boxes, self.asked, self.letters)
        return Batch(*(tensor.to(device) for tensor in pictures), rows)


def _cells(
    things: Sequence[int], picture: Picture
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`cell_labels` and `cell_boxes` of one picture with these things, by index."""
    coverage = picture.coverage.reshape(len(things), -1)
    most, of = coverage.max(axis=0), coverage.argmax(axis=0)
    labels = np.where(most >= CLEARLY_COVERED, np.asarray(things)[of], IGNORED)
    labels = np.where(most <= CLEARLY_FREE, BACKGROUND_CELL, labels)
    return labels, np.asarray(picture.boxes, dtype=np.float32)[of]


def _padded(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """int64 [rows, longest]."""
    tensor = torch.full((len(rows), max(map(len, rows))), padding)
    for index, row in enumerate(rows):
        tensor[index, : len(row)] = torch.tensor(row)
    return tensor


def _rows(
    task: str,
    examples: Sequence[tuple[int | None, Example]],
    labels: Sequence[NDArray[np.int64]],
    tokenizer: Tokenizer,
    size: int,
) -> Rows:
    """Tokenises the questions of one task, each with its picture's index if it has one."""
    sources, inputs, targets = [], [], []
    for _, example in examples:
        source = [BOS_ID, *tokenizer.encode(source_of(task, example)).ids, EOS_ID]
        if example.box is None:
            answer = tokenizer.encode(f" {example.answer}").ids
        else:
            scale = 999 * size / MAX_IMAGE_SIZE
            answer = [first_bin_id(tokenizer) + round(scale * side) for side in example.box]
        prompt = source[:-1] if task in REPEATS_SOURCE else [BOS_ID]
        sources.append(source)
        inputs.append([*prompt, *answer])
        targets.append([*[IGNORED] * (len(prompt) - 1), *answer, EOS_ID])
    pictures = [picture for picture, _ in examples if picture is not None]
    padded, padded_targets = _padded(sources, PAD_ID), _padded(targets, IGNORED)
    finds = sees = torch.empty(0)
    if task in ABOUT_SCENES:
        about = [labels[picture] for picture in pictures]
        found = [
            find_words(row, cells, tokenizer)
            for row, cells in zip(padded.tolist(), about, strict=True)
        ]
        seen = [
            find_answer(row, *known, tokenizer)
            for row, *known in zip(padded_targets.tolist(), found, about, strict=True)
        ]
        sees = torch.from_numpy(np.stack(seen))
        if task in NAMES_THINGS:
            finds = torch.from_numpy(np.stack(found))
    return Rows(
        torch.tensor(pictures, dtype=torch.int64),
        padded,
        _padded(inputs, PAD_ID),
        padded_targets,
        finds,
        sees,
    )


def letters_in_cells(letters: Sequence[Letter], aspect: float, size: int) -> NDArray[np.float32]:
    """Which letters each grid cell shows after `resize_scene`, [cells, letters of the alphabet].

    Args:
        letters: with their centres in the picture as it was drawn.
        aspect: width of that picture in heights, at least 1.
        size: side of the square that it was resized into.
    """
    height = max(MIN_TEXT_SIDE, int(size / aspect))
    above = (size - height) // 2
    grid = size // PATCH
    shown = np.zeros((grid, grid, len(ALPHABET)), dtype=np.float32)
    for letter in letters:
        row, column = int((above + letter.y * height) / PATCH), int(letter.x * grid)
        if 0 <= row < grid and 0 <= column < grid:
            shown[row, column, ALPHABET.index(letter.character)] = 1
    return shown.reshape(grid * grid, -1)


class BatchMaker:
    """Draws the pictures of a batch one by one, and asks its questions."""

    def __init__(self, painter: Painter, tokenizer: Tokenizer, image_size: int) -> None:
        self._painter = painter
        self._tokenizer = tokenizer
        self._size = image_size
        self._images: list[NDArray[np.uint8]] = []
        self._labels: list[NDArray[np.int64]] = []
        self._boxes: list[NDArray[np.float32]] = []
        self._asked: list[NDArray[np.bool_]] = []
        self._letters: list[NDArray[np.float32]] = []
        self._examples: dict[str, list[tuple[int | None, Example]]] = defaultdict(list)

    def add_scene(
        self, rng: np.random.Generator, count: int, tasks: Sequence[str], *, unseen: bool
    ) -> None:
        """Draws a scene of `count` things and asks every one of the tasks about it."""
        grid = self._size // PATCH
        scene = compose(rng, self._painter.styles_of, count, unseen=unseen)
        picture = self._painter.paint(scene, self._size, self._size, grid)
        things = [load_things().index(placement.thing) for placement in scene.placements]
        labels, boxes = _cells(things, picture)
        for task in tasks:
            example = ABOUT_SCENES[task](rng, scene, picture.boxes)
            self._examples[task].append((len(self._images), example))
            if example.box is not None:
                self._asked.append(labels == things[picture.boxes.index(example.box)])
        self._images.append(np.asarray(picture.image).transpose(2, 0, 1))
        self._labels.append(labels)
        self._boxes.append(boxes)

    def add_sign(self, rng: np.random.Generator, *, unseen: bool) -> None:
        """Draws a sign and asks what there is to read."""
        sign = compose_sign(rng, TRAINING_FONTS, unseen=unseen)
        image, letters = paint_sign(sign, SIGN_HEIGHT)
        shown = letters_in_cells(letters, image.width / image.height, self._size)
        self._examples["ocr"].append((len(self._images), ask_words(sign)))
        self._images.append(resize_scene(image, self._size))
        self._letters.append(shown)
        self._labels.append(np.full(len(shown), IGNORED))
        self._boxes.append(np.zeros((len(shown), 4), dtype=np.float32))

    def add_text(self, rng: np.random.Generator, task: str) -> None:
        """Asks a question without a picture."""
        self._examples[task].append((None, ABOUT_TEXTS[task](rng)))

    def batch(self) -> Batch:
        """Everything added so far."""
        return Batch(
            torch.from_numpy(np.stack(self._images)),
            torch.from_numpy(np.stack(self._labels)),
            torch.from_numpy(np.stack(self._boxes)),
            torch.from_numpy(np.stack(self._asked)).float() if self._asked else torch.empty(0),
            torch.from_numpy(np.stack(self._letters)) if self._letters else torch.empty(0),
            {
                task: _rows(task, examples, self._labels, self._tokenizer, self._size)
                for task, examples in self._examples.items()
            },
        )


class StageBatches(Dataset[Batch]):
    """One worker's share of every batch of a curriculum.

    Each question is a function of the seed, the step and its place in the batch, so those of a step
    are the same however many workers share them.
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

    def stage_of(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        for stage in self._stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise IndexError(step)

    def __getitem__(self, step: int) -> Batch:
        stage = self.stage_of(step)
        maker = BatchMaker(self._painter, self._tokenizer, stage.image_size)
        num_places = stage.batch_size + stage.num_signs + stage.num_texts
        for place in range(self._rank, num_places, self._num_workers):
            rng = np.random.default_rng([self._seed, step, place])
            if place < stage.batch_size:
                count = 1 + int(rng.choice(3, p=stage.count_shares))
                # Only pictures of one thing have a class.
                tasks = [task for task in stage.tasks if task != "classification" or count == 1]
                chosen = rng.choice(tasks, size=stage.tasks_a_scene, replace=False).tolist()
                maker.add_scene(rng, count, [*stage.always, *chosen], unseen=False)
            elif place < stage.batch_size + stage.num_signs:
                maker.add_sign(rng, unseen=False)
            else:
                maker.add_text(rng, choose(rng, tuple(ABOUT_TEXTS)))
        return maker.batch()
