"""Writes a trained phase as a checkpoint folder in ModelScope's layout.

python -m training.export_checkpoint settle checkpoints/ofa-emoji-tiny_en
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from training.batches import StageBatches
from training.configurations import chinese_files, english_files, write_files
from training.render import Painter
from training.sprites import TRAINING_STYLES
from training.train import IMAGE_SIZE, PHASES, SEED, SPRITE_SIZE, Phase, phase_tokenizer
from training.trainee import Trainee, load_weights, model_config
from training.vocabulary import save_tokenizer

# Pictures that the BatchNorm statistics are measured on: other ones than training saw.
NUM_STATISTICS_BATCHES = 30
STATISTICS_SEED = SEED + 2


def measure_batch_norm(trainee: Trainee, phase: Phase, name: str) -> None:
    """Replaces the running statistics by float32 averages under the final weights.

    Training's own are averages over changing weights, taken from bfloat16 activations.
    """
    norms = [module for module in trainee.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    last_stage = (phase.stages[-1],)
    batches = StageBatches(painter, phase_tokenizer(name), last_stage, STATISTICS_SEED, 0, 1)
    trainee.train()
    with torch.inference_mode():
        for step in range(NUM_STATISTICS_BATCHES):
            trainee(batches[step])
    trainee.eval()


def published_weights(trainee: Trainee) -> dict[str, torch.Tensor]:
    """float16 tensors under ModelScope's names; the three tied names share one storage."""
    weights = {
        name: tensor.detach().half().contiguous()
        for name, tensor in trainee.model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    embedding = weights["encoder.embed_tokens.weight"]
    weights["decoder.embed_tokens.weight"] = embedding
    weights["decoder.output_projection.weight"] = embedding
    return weights


def export(name: str, directory: Path, folder: Path) -> None:
    """Writes every file of the checkpoint but its README."""
    phase = PHASES[name]
    tokenizer = phase_tokenizer(name)
    config = model_config(tokenizer)
    trainee = Trainee(config)
    load_weights(directory / f"{name}.pt", trainee)
    if phase.trains_stem:
        measure_batch_norm(trainee, phase, name)
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    torch.save(published_weights(trainee), folder / "pytorch_model.bin")
    fields = {"model_type": "ofa", "architectures": ["OFAModel"], **asdict(config)}
    files = chinese_files(IMAGE_SIZE) if name == "chinese" else english_files(tokenizer, IMAGE_SIZE)
    write_files({"config.json": fields, **files}, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a checkpoint folder.")
    parser.add_argument("phase", choices=("settle", "chinese"))
    parser.add_argument("folder", type=Path, help="the checkpoint folder to write")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/training"), help="what training.train saved"
    )
    arguments = parser.parse_args()
    export(arguments.phase, arguments.directory, arguments.folder)
