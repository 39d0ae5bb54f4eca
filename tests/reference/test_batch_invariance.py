"""A picture's answer does not depend on its batch, in any precision."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.checkpoint import Checkpoint, load_checkpoint
from ofa.export import export_generator, stack_rows
from ofa.lowering import PRECISIONS
from ofa.tensors import Tensors
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
SAMPLES = sorted(file for file in (ROOT / "samples").iterdir() if file.suffix in (".jpg", ".png"))
NUM_PICTURES = 300
#: Made-up ones of unlike shapes, which show what a width of 64 a head hides.
MADE_UP = ("small", "small-heads-of-80", "small-shared-bias", "small-ofasys")
NUM_MADE_UP_PICTURES = 40
BATCH_SIZES = (3, 8)
SEED = 5


def cut_out(rng: np.random.Generator) -> bytes:
    """A random half or more of a sample picture, mirrored or not, as a file."""
    with Image.open(SAMPLES[rng.integers(len(SAMPLES))]) as sample:
        width, height = (round(side * rng.uniform(0.5, 1.0)) for side in sample.size)
        left = int(rng.integers(sample.width - width + 1))
        top = int(rng.integers(sample.height - height + 1))
        part = sample.convert("RGB").crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    part.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("precision", PRECISIONS["cpu"])
def test_300_pictures_get_the_same_bits_alone_and_in_batches(
    precision: str, tmp_path: Path
) -> None:
    assert_same_bits(load_checkpoint(CHECKPOINT), NUM_PICTURES, precision, tmp_path)


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_checkpoints_answer_with_the_same_bits_alone_and_in_batches(
    name: str, tmp_path: Path
) -> None:
    recipe = RECIPES[name]
    write_checkpoint(tmp_path / name, recipe, Calibration.load(recipe), {"patch_image_size": 96})
    checkpoint = load_checkpoint(tmp_path / name)
    assert_same_bits(checkpoint, NUM_MADE_UP_PICTURES, "float32", tmp_path)


@torch.inference_mode()
def assert_same_bits(
    checkpoint: Checkpoint, num_pictures: int, precision: str, tmp_path: Path
) -> None:
    limits = checkpoint.default_limits()
    task = checkpoint.build_task(limits)
    export_generator(checkpoint, tmp_path / "model.pt", limits, precision)
    generator = torch.jit.load(str(tmp_path / "model.pt"))
    rng = np.random.default_rng(SEED)
    rows: list[Tensors] = [
        task.preprocess({"image": np.array([cut_out(rng)], np.object_)})
        for _ in range(num_pictures)
    ]
    alone = [generator(*stack_rows([row], task)) for row in rows]
    # Else pictures would be alike, and their batches as well.
    assert len({tuple(answer[0].flatten().tolist()) for answer in alone}) > num_pictures / 4
    for batch_size in BATCH_SIZES:
        for start in range(0, num_pictures, batch_size):
            batch = rows[start : start + batch_size]
            token_ids, scores, log_probs = generator(*stack_rows(batch, task))
            for index, expected in enumerate(alone[start : start + batch_size]):
                length = expected[0].size(2)
                assert torch.equal(token_ids[index, :, :length], expected[0][0])
                assert (token_ids[index, :, length:] == task.tokenizer.pad_id).all()
                assert torch.equal(scores[index], expected[1][0])
                assert torch.equal(log_probs[index, :, :length], expected[2][0])
