"""Measures the constants that make a made-up checkpoint talk: run once for each new recipe.

`.venv-oracle/bin/python -m tests.reference.oracle.calibrate tiny base`

The numbers are measurements on one machine, not a computation that every machine repeats bit for
bit; they are recorded in `tests/golden/calibration/`, and every build reads them from there.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference.checkpoints import (
    EOS_ID,
    PRIOR_GAIN,
    RECIPES,
    Calibration,
    Recipe,
    batch_norms,
    uncalibrated,
    write_checkpoint,
)
from tests.reference.draw_pictures import FOLDER
from tests.reference.oracle.pipeline import build_pipeline

PICTURES = ("scene.jpg", "portrait.jpg", "turned.jpg", "palette.png", "cmyk.jpg", "alpha.png")


@torch.inference_mode()
def _measure_picture_path(
    pipeline: Any, patch_images: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm statistics and the bias that centres the projected picture, both float16."""
    encoder = pipeline.model.model.encoder
    norms = [m for m in encoder.embed_images.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over what comes: one batch
    encoder.embed_images.train()
    encoder.embed_images(patch_images)
    encoder.embed_images.eval()
    named = dict(encoder.named_modules(prefix="encoder"))
    order = [named[name] for name, _ in batch_norms(pipeline.model.model.config.to_dict())]
    averages = [n.running_mean for n in order] + [n.running_var for n in order]
    statistics = torch.cat([torch.empty(0), *averages]).half()  # a ViT has none
    # From here on the measured statistics as they will be stored.
    for norm in order:
        norm.running_mean.copy_(norm.running_mean.half())
        norm.running_var.copy_(norm.running_var.half())
    mean_feature = encoder.embed_images(patch_images).mean(dim=(0, 2, 3))
    bias = -(encoder.image_proj.weight @ mean_feature).half()
    encoder.image_proj.bias.copy_(bias)
    return statistics.numpy(), bias.numpy()


def _measure_eos_prior(pipeline: Any, pictures: list[str], rate: float) -> float:
    """The prior with which the end token is the likeliest in this share of the steps."""
    model = pipeline.model.model
    row_prior = model.decoder.output_projection.weight[EOS_ID, 0].item() * PRIOR_GAIN
    gaps: list[torch.Tensor] = []
    get_normalized_probs = model.get_normalized_probs

    def watch(net_output: Any, **options: Any) -> torch.Tensor:
        logits = net_output[0][:, -1, :].clone()
        end = logits[:, EOS_ID].clone() - row_prior
        logits[:, EOS_ID] = -torch.inf
        gaps.append(logits.max(dim=1).values - end)
        return get_normalized_probs(net_output, **options)

    model.get_normalized_probs = watch
    for picture in pictures:
        pipeline(picture)
    # The first step's rows are copies of one another, which is true of all recipes alike.
    return float(torch.cat(gaps).quantile(rate))


def calibrate(recipe: Recipe) -> Calibration:
    """Measure the constants of a recipe and record them."""
    pictures = [str(FOLDER / name) for name in PICTURES]
    start = uncalibrated(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_checkpoint(folder, recipe, start, {"beam_search": {"min_len": 16}})
        pipeline = build_pipeline(folder)
    patch_images = torch.cat(
        [pipeline.preprocess(picture)["net_input"]["patch_images"] for picture in pictures]
    )
    statistics, bias = _measure_picture_path(pipeline, patch_images)
    eos_prior = _measure_eos_prior(pipeline, pictures[:4], recipe.eos_rate)
    calibration = dataclasses.replace(
        start, statistics=statistics, image_proj_bias=bias, eos_prior=eos_prior
    )
    calibration.save(recipe)
    return calibration


def main() -> None:
    """Calibrate the named recipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", choices=RECIPES)
    for name in parser.parse_args().recipes:
        print(name, "eos_prior", calibrate(RECIPES[name]).eos_prior)


if __name__ == "__main__":
    main()
