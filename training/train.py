"""Trains the small checkpoint.

    python -m training.train [--directory build/training]

is seeded and goes on where it stopped: its whole state is saved every few minutes. Progress goes to
standard output, one line of JSON each.
"""

import argparse
import json
import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ofa.model import ModelConfig, OFAModel
from training.batches import BACKGROUND_CELL, IGNORED, Batch, SceneBatches, Stage, make_batch
from training.render import Painter
from training.sprites import TRAINING_STYLES
from training.vocabulary import BOS_ID, EOS_ID, PROMPT, train_tokenizer, vocab_size

SEED = 20
CHECK_SEED = 21
# Sprites are loaded at about the size they are drawn.
SPRITE_SIZE = 112
STAGES = (
    Stage(steps=600, batch_size=96, image_size=64, count_shares=(1.0, 0.0, 0.0)),
    Stage(steps=7500, batch_size=64, image_size=96, count_shares=(0.35, 0.4, 0.25)),
)
PEAK_LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARM_UP_STEPS = 300
DESCENT_SHARE = 0.5
MAX_GRADIENT_NORM = 1.0
# Weight of the auxiliary loss that asks the stem which thing each grid cell shows.
CELL_LOSS_WEIGHT = 0.5
SAVE_EVERY_S = 180
LOG_EVERY = 50
CHECK_EVERY = 500
NUM_CHECKED = 96


def model_config(tokenizer: Tokenizer) -> ModelConfig:
    """The smallest of OFA's shapes that holds a few hundred things."""
    return ModelConfig(
        vocab_size=vocab_size(tokenizer),
        d_model=192,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        resnet_type="resnet18",
    )


def initialise(model: OFAModel) -> None:
    """Random weights to start from: unit-variance logits, no relative bias, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    for stack in (model.encoder, model.decoder):
        for table in [*stack.token_rel_pos_table_list, *stack.image_rel_pos_table_list]:
            nn.init.zeros_(table.weight)


def normalise(images: Tensor) -> Tensor:
    """uint8 pixels to [-1, 1], as OFA's preprocessing with mean and std 0.5 does."""
    return (images.float() / 255 - 0.5) / 0.5


class Trainee(nn.Module):
    """The model and the auxiliary head that is thrown away after training.

    The head reads each patch out of `image_proj`, before any attention. It gives the stem a dense
    signal from the first step, which saves most of the time that captions alone would need to make
    attention find the things.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = OFAModel(config)
        initialise(self.model)
        self.cell_head = nn.Linear(config.d_model, BACKGROUND_CELL + 1)
        prompt = [BOS_ID, *tokenizer.encode(PROMPT).ids, EOS_ID]
        self.register_buffer("prompt", torch.tensor([prompt]), persistent=False)
        self._patches = torch.empty(0)
        self.model.encoder.image_proj.register_forward_hook(self._keep_patches)

    def _keep_patches(self, _module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        self._patches = output

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the captions [B, T, V] and of the grid cells [B, cells, things + 1]."""
        images = normalise(batch.images).contiguous(memory_format=torch.channels_last)
        prompt = self.prompt.expand(len(images), -1)
        logits = self.model(images, prompt, batch.decoder_input_ids)
        return logits, self.cell_head(self._patches)


def make_optimizer(trainee: Trainee) -> torch.optim.Optimizer:
    """AdamW; vectors (biases, norms, head scales) do not decay."""
    matrices = [p for p in trainee.parameters() if p.ndim > 1]
    vectors = [p for p in trainee.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, num_steps: int) -> float:
    """Linear warm-up, a plateau, and a linear descent to nothing over the last part."""
    rise = (step + 1) / WARM_UP_STEPS
    descent = (num_steps - step) / (DESCENT_SHARE * num_steps)
    return PEAK_LEARNING_RATE * min(1.0, rise, descent)


def exact_share(trainee: Trainee, batch: Batch) -> float:
    """Share of captions that greedy decoding would get exactly right.

    Greedy decoding gives the target if and only if, fed with the target, every argmax is right.
    """
    trainee.eval()
    with torch.inference_mode(), torch.autocast(batch.images.device.type, torch.bfloat16):
        logits, _ = trainee(batch)
    trainee.train()
    right = (logits.argmax(-1) == batch.target_ids) | (batch.target_ids == IGNORED)
    return float(right.all(dim=1).float().mean())


def losses(trainee: Trainee, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropies of caption tokens and of grid cells, in nats."""
    with torch.autocast(batch.images.device.type, torch.bfloat16):
        logits, cell_logits = trainee(batch)
    loss = F.cross_entropy(
        logits.float().flatten(0, 1), batch.target_ids.flatten(), ignore_index=IGNORED
    )
    cell_loss = F.cross_entropy(
        cell_logits.float().flatten(0, 1), batch.cell_labels.flatten(), ignore_index=IGNORED
    )
    return loss, cell_loss


def average_gradients(trainee: Trainee, num_workers: int) -> None:
    """Replaces every gradient by its mean over the workers."""
    gradients = [p.grad for p in trainee.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= num_workers
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def join_workers(directory: Path, rank: int, num_workers: int) -> None:
    """Meets the other processes. One of them may be stopped for long: the others wait."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{(directory / 'rendezvous').absolute()}",
        rank=rank,
        world_size=num_workers,
        timeout=timedelta(days=1),
    )


def load_weights(path: Path, trainee: Trainee) -> None:
    """Takes up the weights of a saved state."""
    trainee.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["trainee"])


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


class Reporter:
    """Prints a line of JSON now and then; only worker 0 has one."""

    def __init__(
        self, painter: Painter, tokenizer: Tokenizer, device: torch.device, num_workers: int
    ) -> None:
        self._num_workers = num_workers
        self._num_pictures = 0
        self._since = time.monotonic()
        self._checks = {
            count: make_batch(
                [
                    (np.random.default_rng([CHECK_SEED, count, i]), count)
                    for i in range(NUM_CHECKED)
                ],
                painter,
                tokenizer,
                STAGES[-1].image_size,
                unseen=True,
            ).to(device)
            for count in (1, 2, 3)
        }

    def after_step(
        self, trainee: Trainee, num_steps: int, loss: float, cell_loss: float, num_pictures: int
    ) -> None:
        """Takes note of a step of this worker, the `num_steps`-th."""
        self._num_pictures += num_pictures * self._num_workers
        if num_steps % LOG_EVERY == 0:
            seconds = time.monotonic() - self._since
            line = {
                "step": num_steps,
                "loss": round(loss, 4),
                "cell_loss": round(cell_loss, 4),
                "pictures_per_s": round(self._num_pictures / seconds, 1),
            }
            print(json.dumps(line), flush=True)
            self._since, self._num_pictures = time.monotonic(), 0
        if num_steps % CHECK_EVERY == 0:
            shares = {count: exact_share(trainee, check) for count, check in self._checks.items()}
            print(json.dumps({"step": num_steps, "exact_captions": shares}), flush=True)


def train(directory: Path, rank: int, num_workers: int) -> None:
    """Runs one worker through the curriculum, from the saved state if there is one.

    Args:
        directory: holds the state; worker 0 writes it.
        rank: number of this worker.
        num_workers: all of them take the same steps on different pictures.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer()
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    trainee = Trainee(model_config(tokenizer), tokenizer)
    trainee.to(device, memory_format=torch.channels_last)
    trainee.train()
    optimizer = make_optimizer(trainee)
    state_path = directory / "state.pt"
    start = load_state(state_path, trainee, optimizer)
    if num_workers > 1:
        join_workers(directory, rank, num_workers)
    batches = SceneBatches(painter, tokenizer, STAGES, SEED, rank, num_workers)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=8 if device.type == "cuda" else 0,
    )
    reporter = Reporter(painter, tokenizer, device, num_workers) if rank == 0 else None
    saved_at = time.monotonic()
    for step, cpu_batch in enumerate(loader, start):
        batch = cpu_batch.to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches))
        loss, cell_loss = losses(trainee, batch)
        optimizer.zero_grad(set_to_none=True)
        (loss + CELL_LOSS_WEIGHT * cell_loss).backward()
        if num_workers > 1:
            average_gradients(trainee, num_workers)
        nn.utils.clip_grad_norm_(trainee.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()

        if reporter is None:
            continue
        reporter.after_step(trainee, step + 1, loss.item(), cell_loss.item(), len(batch.images))
        if step + 1 == len(batches) or time.monotonic() - saved_at > SAVE_EVERY_S:
            save_state(state_path, trainee, optimizer, step + 1)
            saved_at = time.monotonic()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the bundled checkpoint.")
    parser.add_argument("--directory", type=Path, default=Path("build/training"))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / "rendezvous").unlink(missing_ok=True)
    # On CPU, one process with one thread a core: threads of one process would wait for each other
    # at every operation whenever something else runs on a core.
    num_workers = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    context = torch.multiprocessing.get_context("spawn")
    for rank in range(1, num_workers):
        arguments_of_worker = (arguments.directory, rank, num_workers)
        context.Process(target=train, args=arguments_of_worker, daemon=True).start()
    train(arguments.directory, 0, num_workers)


if __name__ == "__main__":
    main()
