"""The generator of pictures: what must not change its pictures, and what must."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.generation.image_generator import ImageGenerator
from ofa.lowering import lower
from ofa.model import OFAModel
from ofa.model.code_decoder import CodeDecoder
from ofa.model.kv_cache import make_cache
from ofa.model.positions import code_buckets, num_image_buckets
from tests.unit import tiny, tiny_drawing
from tests.unit.tiny import BOS, EOS, PAD

Drawing = tuple[Tensor, Tensor, Tensor]

CODE_IDS = range(401, 401 + 8192)
PROMPTS = torch.tensor(
    [[BOS, 10, 20, 30, EOS, PAD, PAD], [BOS, 11, 21, 31, 41, 51, EOS], [BOS, 7, EOS] + [PAD] * 4]
)
CLIP_IDS = F.pad(
    torch.tensor([[519, 513, EOS, 520], [519, 516, 520, 0], [519, 520, 0, 0]]), [0, 73]
)


@pytest.fixture(scope="module")
def model() -> OFAModel:
    return tiny_drawing.make_model()


@pytest.fixture(scope="module")
def generator(model: OFAModel) -> ImageGenerator:
    vqgan, clip = tiny_drawing.make_vqgan(), tiny_drawing.make_clip()
    return ImageGenerator(model, CODE_IDS, vqgan, clip, temperature=1.0).eval()


def run(generator: torch.nn.Module, seeds: list[int], counts: list[int], first: int = 0) -> Drawing:
    """Draw for as many of the prompts as there are seeds."""
    rows = slice(first, first + len(seeds))
    with torch.inference_mode():
        drawing: Drawing = generator(
            PROMPTS[rows],
            CLIP_IDS[rows],
            torch.tensor(seeds)[:, None],
            torch.tensor(counts, dtype=torch.int32)[:, None],
        )
    return drawing


@pytest.fixture(scope="module")
def batch(generator: ImageGenerator) -> Drawing:
    return run(generator, [3, 3, -8], [2, 4, 1])


def test_shapes_and_order(batch: Drawing) -> None:
    pixels, scores, log_probs = batch
    size = tiny_drawing.PICTURE_SIZE
    assert pixels.shape == (3, 4, 3, size, size)
    assert pixels.dtype == torch.uint8
    assert scores.isfinite().sum(1).tolist() == [2, 4, 1]
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
    assert scores.dtype == log_probs.dtype == torch.float32
    assert (log_probs < 0).all()
    assert (scores <= 1).all()


def test_the_pictures_have_something_to_tell(batch: Drawing) -> None:
    """Else the equalities here would hold for a generator that ignores its inputs."""
    pictures = batch[0].flatten(0, 1).flatten(1).float()
    assert len({tuple(picture.tolist()) for picture in pictures}) == len(pictures)
    assert float(pictures.std(1).min()) > 10


@pytest.mark.parametrize(("row", "seed", "count"), [(0, 3, 2), (1, 3, 4), (2, -8, 1)])
def test_a_batch_equals_its_singles(
    generator: ImageGenerator, batch: Drawing, row: int, seed: int, count: int
) -> None:
    pixels, scores, log_probs = run(generator, [seed], [count], first=row)
    torch.testing.assert_close(batch[1][row, :count], scores[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(batch[2][row, :count], log_probs[0], rtol=0, atol=1e-5)
    # Rounding down to whole levels can turn a rounding error into one level.
    assert int((batch[0][row, :count].int() - pixels[0].int()).abs().max()) <= 1


def test_more_pictures_are_the_same_ones_and_others(generator: ImageGenerator) -> None:
    few, many = run(generator, [5], [2])[2][0], run(generator, [5], [5])[2][0]
    distance = (few[:, None] - many[None]).abs()
    assert (distance.min(1).values < 1e-5).all()


def test_the_seed_decides(generator: ImageGenerator) -> None:
    first, again, other = (run(generator, [seed], [1])[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_padding_of_the_prompt_changes_nothing(generator: ImageGenerator) -> None:
    padded = run(generator, [3], [2])
    with torch.inference_mode():
        plain = generator(PROMPTS[:1, :5], CLIP_IDS[:1], torch.tensor([[3]]), torch.tensor([[2]]))
    torch.testing.assert_close(padded[2], plain[2], rtol=0, atol=1e-5)


def test_exported_equals_eager(generator: ImageGenerator, batch: Drawing, tmp_path: Path) -> None:
    lowered = lower(generator, tiny.IMAGE_SIZE)
    torch.jit.script(lowered).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    exported = torch.jit.load(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    for _ in range(2):  # TorchScript optimises itself after the first call
        pixels, scores, log_probs = run(exported, [3, 3, -8], [2, 4, 1])
        assert torch.equal(pixels, batch[0])
        torch.testing.assert_close(scores, batch[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(log_probs, batch[2], rtol=0, atol=1e-5)


def test_the_painters_norms_have_the_references_epsilon(generator: ImageGenerator) -> None:
    norms = [m for m in generator.vqgan.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) > 5
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(("temperature", "num_different"), [(0.001, 1), (1.0, 4)])
def test_the_lowest_temperature_leaves_no_choice(
    model: OFAModel, temperature: float, num_different: int
) -> None:
    vqgan, clip = tiny_drawing.make_vqgan(), tiny_drawing.make_clip()
    generator = ImageGenerator(model, CODE_IDS, vqgan, clip, temperature)
    pictures = run(generator, [0], [4])[0][0].flatten(1)
    assert len({tuple(picture.tolist()) for picture in pictures}) == num_different


@torch.inference_mode()
def test_cached_steps_equal_one_full_pass(model: OFAModel) -> None:
    """The decoder layers over a whole sequence at once, with biases looked up pair by pair."""
    decoder, grid = model.decoder, tiny_drawing.GRID_SIZE
    codes = torch.randint(
        CODE_IDS.start, CODE_IDS.stop, (grid**2,), generator=torch.Generator().manual_seed(0)
    )
    sequence = torch.cat([torch.tensor([BOS]), codes[:-1]])
    x, _, _ = model.encoder.embed(None, PROMPTS[1:2])
    positions = model.encoder.position_states(0, 0, PROMPTS.size(1))
    bias = model.encoder.attention_bias(positions, 0, 0)
    mask = model.encoder.padding_mask(PROMPTS[1:2], 0)
    hidden = model.encoder.run_layers(x, mask, bias)

    length, size = len(sequence), model.config.image_bucket_size
    rows = [0] + [row * size + column + 1 for row in range(grid) for column in range(grid)]
    own = decoder.image_pos_ln(decoder.embed_image_positions(torch.tensor(rows[:length])))
    absolute = decoder.absolute_bias(decoder.self_pos_q_linear(own), decoder.self_pos_k_linear(own))
    cross_bias = decoder.absolute_bias(
        decoder.cross_pos_q_linear(own), decoder.cross_pos_k_linear(positions)
    )
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    x = decoder.code_layernorm_embedding(decoder.embed_tokens(sequence))[None]
    for index, layer in enumerate(decoder.layers):
        table = decoder.image_rel_pos_table_list[index].weight
        relative = torch.zeros_like(absolute)
        for query in range(length):
            for key in range(length):
                relative[:, query, key] = table[plain_bucket(query, key, grid, size)]
        normed = layer.self_attn_layer_norm(x)
        queries, keys, values = layer.self_attn.project(normed)
        self_bias = (absolute + relative).masked_fill(future, -torch.inf)
        x = layer.self_attend(x, queries, keys, values, self_bias)
        keys, values = layer.cross_attn.project_keys_values(hidden)
        x = layer.feed_forward(layer.cross_attend(x, keys, values, cross_bias[None]))
    expected = decoder.logits(x)[0]

    stepper = CodeDecoder(decoder, model.config, CODE_IDS)
    code_bias = stepper.bias(positions)
    cache = make_cache(decoder.cross_keys_values(hidden), 1, length)
    for step, token in enumerate(sequence):
        logits = stepper.step(token.view(1, 1), step, cache, code_bias, torch.zeros(1, 1, 1, 7))
        torch.testing.assert_close(logits[0, 0, :4], expected[step, :4], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            logits[0, 0, 4:], expected[step, CODE_IDS.start : CODE_IDS.stop], rtol=1e-4, atol=1e-4
        )


def plain_bucket(query: int, key: int, grid: int, size: int) -> int:
    """Row of the image bias table for two decoder positions, of which 0 is BOS."""
    special = num_image_buckets(size) - 3
    if query == 0 or key == 0:
        return special + (2 if query == key else 0 if query == 0 else 1)
    (row, column), (key_row, key_column) = divmod(query - 1, grid), divmod(key - 1, grid)
    return (row - key_row + size - 1) * (2 * size - 1) + column - key_column + size - 1


def test_code_buckets_are_the_reference_tables() -> None:
    """Entries of the reference's 1765 x 1765 buffer, whose cells stand 42 apart."""
    buckets = code_buckets(42, 42, 42)
    assert buckets.shape == (1765, 1765)
    for query, key, bucket in (
        *((0, 0, 6891), (0, 1, 6889), (0, 1764, 6889), (1, 0, 6890), (1764, 0, 6890)),
        *((1, 1, 3444), (1, 2, 3443), (2, 1, 3445), (1, 43, 3361)),
    ):
        assert int(buckets[query, key]) == bucket
