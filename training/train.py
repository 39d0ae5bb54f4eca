"""Trains the small checkpoints.

    python -m training.train PHASE [--directory build/training]

A phase is seeded and goes on where it stopped: its whole state is saved every few minutes, in a
file of its name. `captions` comes first; `tasks` and `chinese` each start from its weights, then
`polish`, `finish` and `settle` each from those of the one before.
Progress goes to standard output, one line of JSON each.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from training.batches import (
    BACKGROUND_CELL,
    IGNORED,
    AuxiliaryWeights,
    Batch,
    BatchMaker,
    Stage,
    StageBatches,
)
from training.render import Painter
from training.sprites import TRAINING_STYLES
from training.tasks import ABOUT_TEXTS
from training.trainee import Trainee, model_config, move_stem, warm_start
from training.vocabulary import caption_corpus, chinese_tokenizer, task_corpus, train_tokenizer

SEED = 20
CHECK_SEED = 21
# Sprites are loaded at about the size they are drawn.
SPRITE_SIZE = 112
IMAGE_SIZE = 96
COUNT_SHARES = (0.35, 0.4, 0.25)
SCENE_TASKS = ("caption", "vqa", "grounding", "entailment", "classification")
MOSTLY_CAPTIONS = (*6 * SCENE_TASKS[:1], *SCENE_TASKS[1:])
WEIGHT_DECAY = 0.05
WARM_UP_STEPS = 300
DESCENT_SHARE = 0.5
MAX_GRADIENT_NORM = 1.0
# Weights of the losses that ask the encoder's first head for the words of what patches show, and
# the last decoder layer's for the patches of what is to be said.
LOOK_LOSS_WEIGHT = 1.0
GAZE_LOSS_WEIGHT = 0.5
SAVE_EVERY_S = 180
LOG_EVERY = 50
CHECK_EVERY = 500
NUM_CHECKED = 96


@dataclass(frozen=True)
class Phase:
    """One training from its first weights to its last.

    Attributes:
        stages: the curriculum.
        peak_learning_rate: reached after the warm-up.
        after: name of the phase whose weights it starts from; empty: from random ones.
        trains_stem: whether the picture's network learns too.
        stem_of: name of a phase towards whose stem its own is moved first; empty: none.
        stem_share: how far, 1 being the whole way.
    """

    stages: tuple[Stage, ...]
    peak_learning_rate: float
    after: str = ""
    trains_stem: bool = True
    stem_of: str = ""
    stem_share: float = 0.0


# A stage of pictures as they are served.
scenes = partial(Stage, image_size=IMAGE_SIZE, count_shares=COUNT_SHARES)


def refinement(
    after: str,
    *,
    stem_share: float,
    peak_learning_rate: float,
    steps: int,
    count_shares: tuple[float, float, float] = (0.2, 0.35, 0.45),
    num_texts: int = 24,
    cell_weight: float = 3.0,
) -> Phase:
    """A phase that gives the stem back the eye for things that letters have cost it.

    What it has become lies in the same valley as what it was, so that a mean of the two sees both,
    and learns on from there.
    """
    stage = Stage(
        steps=steps,
        batch_size=80,
        image_size=IMAGE_SIZE,
        count_shares=count_shares,
        tasks=MOSTLY_CAPTIONS,
        num_signs=14,
        num_texts=num_texts,
        weights=AuxiliaryWeights(cells=cell_weight, letters=1.0, boxes=1.0),
    )
    return Phase(
        (stage,), peak_learning_rate, after=after, stem_of="captions", stem_share=stem_share
    )


PHASES = {
    "captions": Phase(
        (
            Stage(steps=600, batch_size=96, image_size=64, count_shares=(1.0, 0.0, 0.0)),
            scenes(steps=7500, batch_size=64),
        ),
        peak_learning_rate=1e-3,
    ),
    "tasks": Phase(
        (
            # Letters and the copying of words start slowly beside what the model can do already.
            scenes(
                steps=500,
                batch_size=16,
                tasks=SCENE_TASKS,
                tasks_a_scene=2,
                num_signs=64,
                num_texts=96,
            ),
            scenes(
                steps=2000,
                batch_size=32,
                tasks=SCENE_TASKS,
                tasks_a_scene=3,
                num_signs=48,
                num_texts=48,
            ),
            scenes(
                steps=1300,
                batch_size=40,
                tasks=SCENE_TASKS,
                tasks_a_scene=3,
                num_signs=16,
                num_texts=32,
            ),
            scenes(
                steps=2550,
                batch_size=44,
                tasks=SCENE_TASKS,
                tasks_a_scene=4,
                num_signs=16,
                num_texts=24,
            ),
            # More pictures and fewer questions about each: what is left to learn is to see well.
            scenes(
                steps=800,
                batch_size=64,
                tasks=SCENE_TASKS[1:],
                tasks_a_scene=1,
                always=SCENE_TASKS[:1],
                num_signs=16,
                num_texts=16,
            ),
            scenes(
                steps=1650,
                batch_size=80,
                tasks=MOSTLY_CAPTIONS,
                num_signs=12,
                num_texts=12,
            ),
        ),
        peak_learning_rate=7e-4,
        after="captions",
    ),
    # Three times, by ever smaller steps.
    "polish": refinement(
        "tasks",
        stem_share=0.35,
        peak_learning_rate=5e-4,
        steps=2700,
        count_shares=(0.25, 0.4, 0.35),
        num_texts=40,
        cell_weight=2.0,
    ),
    "finish": refinement("polish", stem_share=0.3, peak_learning_rate=2e-4, steps=1300),
    "settle": refinement("finish", stem_share=0.15, peak_learning_rate=1.2e-4, steps=600),
    "chinese": Phase(
        (
            scenes(
                steps=2400,
                batch_size=64,
                tasks=("caption_zh", "second_caption_zh"),
                tasks_a_scene=2,
            ),
        ),
        peak_learning_rate=1e-3,
        after="captions",
        trains_stem=False,
    ),
}


def phase_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a phase."""
    if name == "chinese":
        return chinese_tokenizer()
    return train_tokenizer(caption_corpus() if name == "captions" else task_corpus())


def make_optimizer(trainee: Trainee) -> torch.optim.Optimizer:
    """AdamW; vectors (biases, norms, head scales) do not decay."""
    learned = [p for p in trainee.parameters() if p.requires_grad]
    matrices = [p for p in learned if p.ndim > 1]
    vectors = [p for p in learned if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def learning_rate_share(step: int, num_steps: int) -> float:
    """Linear warm-up to 1, a plateau, and a linear descent to nothing over the last part."""
    rise = (step + 1) / WARM_UP_STEPS
    descent = (num_steps - step) / (DESCENT_SHARE * num_steps)
    return min(1.0, rise, descent)


def exact_shares(trainee: Trainee, batch: Batch) -> dict[str, float]:
    """Share of answers that greedy decoding would get exactly right, by task.

    Greedy decoding gives the target if and only if, fed with the target, every argmax is right.
    """
    trainee.eval()
    with torch.inference_mode(), torch.autocast(batch.images.device.type, torch.bfloat16):
        logits = trainee(batch).logits
    shares = {}
    for task, rows in batch.rows.items():
        right = (logits[task].argmax(-1) == rows.target_ids) | (rows.target_ids == IGNORED)
        shares[task] = round(float(right.all(dim=1).float().mean()), 3)
    return shares


def losses(trainee: Trainee, batch: Batch, weights: AuxiliaryWeights) -> dict[str, Tensor]:
    """The terms that are minimised together: cross-entropies in nats, and distances of boxes."""
    with torch.autocast(batch.images.device.type, torch.bfloat16):
        outputs = trainee(batch)
    # A task counts by its number of rows: few of them have noisy gradients.
    mean_rows = sum(len(rows.source_ids) for rows in batch.rows.values()) / len(batch.rows)
    terms = {
        task: cross_entropy(outputs.logits[task], rows.target_ids)
        * len(rows.source_ids)
        / mean_rows
        for task, rows in batch.rows.items()
    }
    terms["cells"] = weights.cells * cross_entropy(outputs.cells, batch.cell_labels)
    if "ocr" in batch.rows:
        letters = outputs.letters[batch.rows["ocr"].pictures].float()
        each = F.binary_cross_entropy_with_logits(letters, batch.letters, reduction="none")
        terms["letters"] = weights.letters * each.sum(dim=-1).mean()
    if outputs.boxes is not None:
        pictures = batch.rows["grounding"].pictures
        labels = batch.cell_labels[pictures]
        shows_thing = (labels >= 0) & (labels < BACKGROUND_CELL)
        boxes = outputs.boxes.float()
        distance = (boxes[..., :4] - batch.cell_boxes[pictures]).abs().sum(dim=-1)
        terms["boxes"] = weights.boxes * distance[shows_thing].mean()
        terms["asked"] = weights.boxes * F.binary_cross_entropy_with_logits(
            boxes[..., 4][shows_thing], batch.asked[shows_thing]
        )
    for task, scores in outputs.looks.items():
        terms[f"looks, {task}"] = LOOK_LOSS_WEIGHT * attention_loss(scores, batch.rows[task].finds)
    for task, scores in outputs.gazes.items():
        sees = F.pad(batch.rows[task].sees, (0, scores.size(2) - batch.rows[task].sees.size(2)))
        if bool(sees.any()):
            terms[f"gazes, {task}"] = GAZE_LOSS_WEIGHT * attention_loss(scores, sees)
    return terms


def attention_loss(scores: Tensor, finds: Tensor) -> Tensor:
    """Mean of -log of the attention that goes where it should, over the rows that should look.

    Args:
        scores: [N, T, S], before the softmax.
        finds: bool [N, T, S].
    """
    looking = finds.any(dim=-1)
    rows, targets = scores[looking].float(), finds[looking]
    hits = rows.masked_fill(~targets, float("-inf")).logsumexp(dim=-1)
    return (rows.logsumexp(dim=-1) - hits).mean()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the targets [N, T] that are not IGNORED; logits [N, T, V]."""
    counted = targets != IGNORED
    return F.cross_entropy(logits[counted].float(), targets[counted])


def average_gradients(trainee: Trainee, num_workers: int) -> None:
    """Replaces every gradient by its mean over the workers.

    What one worker's questions leave untouched, another's may use: no gradient counts as zero.
    """
    learned = [p for p in trainee.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= num_workers
    parts = flat.split([gradient.numel() for gradient in gradients])
    for parameter, part in zip(learned, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def join_workers(rendezvous: Path, rank: int, num_workers: int) -> None:
    """Meets the other processes. One of them may be stopped for long: the others wait."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous.absolute()}",
        rank=rank,
        world_size=num_workers,
        timeout=timedelta(days=1),
    )


def load_state(path: Path, trainee: Trainee, optimizer: torch.optim.Optimizer) -> int:
    """Takes up a saved state, if there is one, and returns the number of steps done."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    trainee.load_state_dict(state["trainee"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save_state(path: Path, trainee: Trainee, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Saves everything that `load_state` needs, replacing the old file in one move."""
    new = path.with_suffix(".new")
    state = {
        "trainee": trainee.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    torch.save(state, new)
    new.replace(path)


def check_batch(phase: Phase, painter: Painter, tokenizer: Tokenizer, count: int) -> Batch:
    """Unseen scenes of `count` things, and with one thing signs and texts as well."""
    stage = phase.stages[-1]
    maker = BatchMaker(painter, tokenizer, stage.image_size)
    for i in range(NUM_CHECKED):
        rng = np.random.default_rng([CHECK_SEED, count, i])
        tasks = dict.fromkeys([*stage.always, *stage.tasks])
        if count > 1:
            tasks.pop("classification", None)
        maker.add_scene(rng, count, list(tasks), unseen=True)
        if count == 1 and stage.num_signs:
            maker.add_sign(rng, unseen=True)
        if count == 1 and stage.num_texts:
            for task in ABOUT_TEXTS:
                maker.add_text(rng, task)
    return maker.batch()


class Reporter:
    """Prints a line of JSON now and then; only worker 0 has one."""

    def __init__(
        self,
        phase: Phase,
        painter: Painter,
        tokenizer: Tokenizer,
        device: torch.device,
        num_workers: int,
    ) -> None:
        self._num_workers = num_workers
        self._num_pictures = 0
        self._since = time.monotonic()
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._checks = {
            count: check_batch(phase, painter, tokenizer, count).to(device) for count in (1, 2, 3)
        }

    def after_step(self, num_steps: int, losses: dict[str, Tensor], num_pictures: int) -> None:
        """Takes note of a step of this worker, the `num_steps`-th."""
        self._num_pictures += num_pictures * self._num_workers
        for name, loss in losses.items():
            self._losses[name].append(loss.item())
        if num_steps % LOG_EVERY == 0:
            seconds = time.monotonic() - self._since
            line = {
                "step": num_steps,
                "losses": {name: round(float(np.mean(v)), 3) for name, v in self._losses.items()},
                "pictures_per_s": round(self._num_pictures / seconds, 1),
            }
            print(json.dumps(line), flush=True)
            self._since, self._num_pictures = time.monotonic(), 0
            self._losses.clear()

    def check(self, trainee: Trainee, num_steps: int) -> None:
        """Measures on unseen pictures."""
        shares = {count: exact_shares(trainee, check) for count, check in self._checks.items()}
        print(json.dumps({"step": num_steps, "exact_answers": shares}), flush=True)


def set_training(trainee: Trainee, *, trains_stem: bool) -> None:
    """Training mode, but a stem that does not learn keeps its BatchNorm statistics too."""
    trainee.train()
    trainee.model.encoder.embed_images.train(trains_stem)


def first_trainee(phase: Phase, directory: Path, tokenizer: Tokenizer) -> Trainee:
    """The weights that a phase starts from; `directory` holds the states of those before it."""
    trainee = Trainee(model_config(tokenizer))
    if phase.after:
        old = phase_tokenizer(phase.after)
        warm_start(directory / f"{phase.after}.pt", old, trainee, tokenizer)
    if phase.stem_of:
        move_stem(directory / f"{phase.stem_of}.pt", trainee, phase.stem_share)
    trainee.model.encoder.embed_images.requires_grad_(phase.trains_stem)
    return trainee


def train(name: str, directory: Path, rank: int, num_workers: int) -> None:
    """Runs one worker through a phase, from its saved state if there is one.

    Args:
        name: of PHASES.
        directory: holds the states; worker 0 writes them.
        rank: number of this worker.
        num_workers: all of them take the same steps on different pictures.
    """
    phase = PHASES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = phase_tokenizer(name)
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    trainee = first_trainee(phase, directory, tokenizer)
    trainee.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(trainee)
    state_path = directory / f"{name}.pt"
    start = load_state(state_path, trainee, optimizer)
    if num_workers > 1:
        join_workers(directory / f"{name}.rendezvous", rank, num_workers)
    # No phase is shown what another was.
    seed = SEED + 100 * list(PHASES).index(name)
    batches = StageBatches(painter, tokenizer, phase.stages, seed, rank, num_workers)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=8 if device.type == "cuda" else 0,
    )
    reporter = Reporter(phase, painter, tokenizer, device, num_workers) if rank == 0 else None
    saved_at = time.monotonic()
    for step, cpu_batch in enumerate(loader, start):
        set_training(trainee, trains_stem=phase.trains_stem)
        batch = cpu_batch.to(device)
        for group in optimizer.param_groups:
            group["lr"] = phase.peak_learning_rate * learning_rate_share(step, len(batches))
        terms = losses(trainee, batch, batches.stage_of(step).weights)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        if num_workers > 1:
            average_gradients(trainee, num_workers)
        nn.utils.clip_grad_norm_(trainee.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()

        if reporter is None:
            continue
        is_last = step + 1 == len(batches)
        reporter.after_step(step + 1, terms, len(batch.images))
        if is_last or (step + 1) % CHECK_EVERY == 0:
            reporter.check(trainee, step + 1)
        if is_last or time.monotonic() - saved_at > SAVE_EVERY_S:
            save_state(state_path, trainee, optimizer, step + 1)
            saved_at = time.monotonic()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the bundled checkpoints.")
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--directory", type=Path, default=Path("build/training"))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / f"{arguments.phase}.rendezvous").unlink(missing_ok=True)
    # On CPU, one process with one thread a core: threads of one process would wait for each other
    # at every operation whenever something else runs on a core.
    num_workers = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    context = torch.multiprocessing.get_context("spawn")
    for rank in range(1, num_workers):
        arguments_of_worker = (arguments.phase, arguments.directory, rank, num_workers)
        context.Process(target=train, args=arguments_of_worker, daemon=True).start()
    train(arguments.phase, arguments.directory, 0, num_workers)


if __name__ == "__main__":
    main()
