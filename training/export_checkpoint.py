"""Writes a training state as a checkpoint folder in ModelScope's layout.

python -m training.export_checkpoint build/training checkpoints/ofa-emoji-tiny_en
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.batches import SceneBatches
from training.render import Painter
from training.sprites import TRAINING_STYLES
from training.train import (
    SEED,
    SPRITE_SIZE,
    STAGES,
    Trainee,
    load_weights,
    model_config,
)
from training.vocabulary import save_tokenizer, train_tokenizer

# Pictures that the BatchNorm statistics are measured on: other ones than training saw.
NUM_STATISTICS_BATCHES = 30
STATISTICS_SEED = SEED + 2

CONFIGURATION: dict[str, Any] = {
    "framework": "pytorch",
    "task": "image-captioning",
    "model": {
        "type": "ofa",
        "language": "en",
        "patch_image_size": STAGES[-1].image_size,
        "max_image_size": 512,
        "imagenet_default_mean_and_std": False,
        "gen_type": "generation",
        "num_return_sequences": 1,
        "beam_search": {
            "beam_size": 5,
            "max_len_b": 16,
            "min_len": 1,
            "no_repeat_ngram_size": 3,
        },
    },
    "pipeline": {"type": "image-captioning"},
}


def measure_batch_norm(trainee: Trainee) -> None:
    """Replaces the running statistics by float32 averages under the final weights.

    Training's own are averages over changing weights, taken from bfloat16 activations.
    """
    norms = [module for module in trainee.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    painter = Painter(TRAINING_STYLES, SPRITE_SIZE)
    last_stage = (STAGES[-1],)
    batches = SceneBatches(painter, train_tokenizer(), last_stage, STATISTICS_SEED, 0, 1)
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


def export(directory: Path, folder: Path) -> None:
    """Writes every file of the checkpoint but its README."""
    tokenizer = train_tokenizer()
    config = model_config(tokenizer)
    trainee = Trainee(config, tokenizer)
    load_weights(directory / "state.pt", trainee)
    measure_batch_norm(trainee)
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    torch.save(published_weights(trainee), folder / "pytorch_model.bin")
    fields = {"model_type": "ofa", "architectures": ["OFAModel"], **asdict(config)}
    for name, content in (("config.json", fields), ("configuration.json", CONFIGURATION)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a checkpoint folder.")
    parser.add_argument("directory", type=Path, help="what training.train saved in")
    parser.add_argument("folder", type=Path, help="the checkpoint folder to write")
    arguments = parser.parse_args()
    export(arguments.directory, arguments.folder)
