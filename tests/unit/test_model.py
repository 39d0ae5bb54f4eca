"""The network: the published names and shapes, and what must not change its answers."""

import pytest
import torch
from torch import Tensor, nn

from ofa.model import ModelConfig, OFAModel
from ofa.model.attention import Attention
from ofa.model.config import RESNET_BLOCKS
from ofa.model.kv_cache import make_cache, reorder_cache
from ofa.model.positions import image_buckets, token_buckets
from ofa.model.resnet import ResNet
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, PAD

SIZES = {
    "tiny": (256, 4, 4, 4, "resnet50"),
    "medium": (512, 8, 4, 4, "resnet101"),
    "base": (768, 12, 6, 6, "resnet101"),
    "large": (1024, 16, 12, 12, "resnet152"),
    "huge": (1280, 16, 24, 12, "resnet152"),
}


def size_config(size: str, vocab_size: int = 59457) -> ModelConfig:
    width, heads, encoder_layers, decoder_layers, resnet_type = SIZES[size]
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        resnet_type=resnet_type,
    )


Shapes = dict[str, list[int]]


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": [size], f"{name}.bias": [size]}


def batch_norm(name: str, size: int) -> Shapes:
    statistics = {f"{name}.running_mean": [size], f"{name}.running_var": [size]}
    return norm(name, size) | statistics | {f"{name}.num_batches_tracked": []}


def stem_shapes(name: str, num_blocks: tuple[int, int, int]) -> Shapes:
    shapes = {f"{name}.conv1.weight": [64, 3, 7, 7]} | batch_norm(f"{name}.bn1", 64)
    inputs = 64
    for stage in range(1, 4):
        planes = 32 * 2**stage
        first = f"{name}.layer{stage}.0"
        shapes[f"{first}.downsample.0.weight"] = [4 * planes, inputs, 1, 1]
        shapes |= batch_norm(f"{first}.downsample.1", 4 * planes)
        for block in range(num_blocks[stage - 1]):
            unit = f"{name}.layer{stage}.{block}"
            shapes[f"{unit}.conv1.weight"] = [planes, inputs, 1, 1]
            shapes[f"{unit}.conv2.weight"] = [planes, planes, 3, 3]
            shapes[f"{unit}.conv3.weight"] = [4 * planes, planes, 1, 1]
            shapes |= batch_norm(f"{unit}.bn1", planes) | batch_norm(f"{unit}.bn2", planes)
            shapes |= batch_norm(f"{unit}.bn3", 4 * planes)
            inputs = 4 * planes
    return shapes


def layer_shapes(name: str, attentions: list[str], width: int, heads: int, ffn: int) -> Shapes:
    shapes = norm(f"{name}.final_layer_norm", width) | norm(f"{name}.ffn_layer_norm", ffn)
    shapes |= linear(f"{name}.fc1", ffn, width) | linear(f"{name}.fc2", width, ffn)
    for attention in attentions:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.{attention}.{projection}", width, width)
        shapes[f"{name}.{attention}.c_attn"] = [heads]
        shapes |= norm(f"{name}.{attention}_layer_norm", width)
        shapes |= norm(f"{name}.{attention}_mid_layer_norm", width)
    return shapes


def published_shapes(config: ModelConfig) -> Shapes:
    """Names and shapes of a published state dict, less buffers that can be computed."""
    width = config.d_model
    shapes = stem_shapes("encoder.embed_images", RESNET_BLOCKS[config.resnet_type])
    shapes |= linear("encoder.image_proj", width, 1024)
    shapes |= norm("encoder.patch_layernorm_embedding", width)
    shapes |= norm("decoder.code_layernorm_embedding", width)
    shapes["encoder.type_embedding.weight"] = [2, width]
    for side, attentions, positions in (
        ("encoder", ["self_attn"], ["pos"]),
        ("decoder", ["self_attn", "cross_attn"], ["self_pos", "cross_pos"]),
    ):
        num_layers = getattr(config, f"{side}_layers")
        heads = getattr(config, f"{side}_attention_heads")
        ffn = getattr(config, f"{side}_ffn_dim")
        shapes[f"{side}.embed_tokens.weight"] = [config.vocab_size, width]
        shapes[f"{side}.embed_positions.weight"] = [1026, width]
        shapes[f"{side}.embed_image_positions.weight"] = [1765, width]
        for name in ("layernorm_embedding", "pos_ln", "image_pos_ln", "layer_norm"):
            shapes |= norm(f"{side}.{name}", width)
        for name in positions:
            shapes |= linear(f"{side}.{name}_q_linear", width, width)
            shapes |= linear(f"{side}.{name}_k_linear", width, width)
        for index in range(num_layers):
            shapes |= layer_shapes(f"{side}.layers.{index}", attentions, width, heads, ffn)
        for index in range(1 if config.share_attn_bias else num_layers):
            shapes[f"{side}.token_rel_pos_table_list.{index}.weight"] = [511, heads]
            shapes[f"{side}.image_rel_pos_table_list.{index}.weight"] = [6892, heads]
    return shapes


def on_meta(config: ModelConfig) -> OFAModel:
    with torch.device("meta"):
        return OFAModel(config)


# Published: 33M, 93M, 180M, 470M, 930M; Chinese 160M and 440M. The second number is the published
# file's entries: ours, five computed buffers and the third name of the token embedding.
@pytest.mark.parametrize(
    ("size", "num_parameters", "num_entries"),
    [
        ("tiny", 33_488_336, 541),
        ("medium", 92_892_000, 847),
        ("base", 182_238_536, 965),
        ("large", 472_977_152, 1625),
        ("huge", 929_486_848, 1901),
    ],
)
def test_published_sizes(size: str, num_parameters: int, num_entries: int) -> None:
    config = size_config(size)
    model = on_meta(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published_shapes(config)
    assert len(shapes) + 6 == num_entries


@pytest.mark.parametrize(
    ("size", "num_parameters"), [("base", 159_865_160), ("large", 443_145_984)]
)
def test_chinese_sizes(size: str, num_parameters: int) -> None:
    model = on_meta(size_config(size, vocab_size=30325))
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


def test_shared_bias_has_one_table_a_side() -> None:
    config = ModelConfig(share_attn_bias=True, encoder_layers=3, decoder_layers=2)
    shapes = {name: list(tensor.shape) for name, tensor in on_meta(config).state_dict().items()}
    assert shapes == published_shapes(config)


@pytest.mark.parametrize("size", [15, 16, 17, 33, 64, 65])
def test_a_patch_is_sixteen_pixels_rounded_up(size: int) -> None:
    side = -(-size // 16)
    stem = ResNet(RESNET_BLOCKS["resnet18"]).eval()
    assert stem(torch.zeros(1, 3, size, 48)).shape == (1, 1024, side, 3)


def test_norms_have_the_references_epsilon(tiny_model: OFAModel) -> None:
    norms = [m for m in tiny_model.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)]
    assert len(norms) > 20
    assert {norm.eps for norm in norms} == {1e-5}


def test_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(d_model=8, num_heads=2, attn_scale_factor=3.0)
    torch.nn.init.uniform_(attention.c_attn)
    x, bias = torch.randn(2, 5, 8), torch.randn(2, 5, 5)
    expected = torch.empty(2, 5, 8)
    for row in range(2):
        q, k, v = (
            projection(x[row])
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        for head, columns in enumerate((slice(0, 4), slice(4, 8))):
            scores = q[:, columns] * (4 * 3.0) ** -0.5 @ k[:, columns].T + bias[head]
            values = torch.softmax(scores, dim=-1) @ v[:, columns]
            expected[row, :, columns] = values * attention.c_attn[head]
    torch.testing.assert_close(attention(x, bias), attention.out_proj(expected))


def source(*prompts: list[int]) -> Tensor:
    longest = max(map(len, prompts)) + 2
    rows = [[BOS, *prompt, EOS] for prompt in prompts]
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def pixels(count: int, size: int = tiny.IMAGE_SIZE) -> Tensor:
    return tiny.make_pictures(count, size=size) / 127.5 - 1


def assert_same_logits(actual: Tensor, expected: Tensor) -> None:
    """Equal but for rounding; logits here have a standard deviation of about 5."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-4)


ANSWERS = torch.tensor([[BOS, 10, 11, 12, 13, 14], [BOS, 20, 20, 20, 21, 399]])


def test_cached_steps_equal_teacher_forcing(tiny_model: OFAModel) -> None:
    """Beams that swap places at every step see what a full pass over their tokens sees."""
    encoder, decoder = tiny_model.encoder, tiny_model.decoder
    num_rows, num_beams, length = 2, 3, 7
    source_ids = source([10, 20, 30], [10])
    numbers = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        x, height, width = encoder.embed(pixels(num_rows), source_ids)
        positions = encoder.position_states(height, width, source_ids.size(1))
        padding = encoder.padding_mask(source_ids, height * width)
        bias = encoder.attention_bias(positions, height, width)
        hidden = encoder.run_layers(x, padding, bias)
        self_bias = decoder.self_attention_bias(length)
        cross_bias = decoder.cross_attention_bias(length, positions)
        cross_mask = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)[:, None, None, :]
        cache = make_cache(decoder.cross_keys_values(hidden), num_beams, length)

        history = torch.zeros(num_rows, num_beams, 0, dtype=torch.long)
        for step in range(length):
            token_ids = torch.randint(4, 400, (num_rows, num_beams), generator=numbers)
            history = torch.cat([history, token_ids[:, :, None]], dim=2)
            step_bias = (cross_bias[:, step : step + 1] + cross_mask).expand(-1, -1, num_beams, -1)
            logits = decoder.step(token_ids, step, cache, self_bias, step_bias)
            for beam in range(num_beams):
                full = decoder(history[:, beam], hidden, padding, positions)
                assert_same_logits(logits[:, beam], full[:, -1])
            beams = torch.randint(0, num_beams, (num_rows, num_beams), generator=numbers)
            rows = torch.arange(num_rows)[:, None]
            reorder_cache(cache, (rows * num_beams + beams).view(-1), step + 1)
            history = history[rows, beams]


def test_later_tokens_do_not_matter(tiny_model: OFAModel) -> None:
    changed = ANSWERS.clone()
    changed[:, 4:] = 7
    with torch.inference_mode():
        logits = tiny_model(pixels(2), source([10, 20], [10, 21]), ANSWERS)
        other = tiny_model(pixels(2), source([10, 20], [10, 21]), changed)
    assert_same_logits(logits[:, :4], other[:, :4])
    assert (logits[:, 4:] - other[:, 4:]).abs().max() > 0.1


def test_a_padded_prompt_equals_an_unpadded_one(tiny_model: OFAModel) -> None:
    with torch.inference_mode():
        alone = tiny_model(pixels(2), source([10], [11]), ANSWERS)
        prompts = torch.cat([source([10], [11]), torch.full([2, 5], PAD)], dim=1)
        padded = tiny_model(pixels(2), prompts, ANSWERS)
    assert_same_logits(padded, alone)


def test_neighbours_do_not_matter(tiny_model: OFAModel) -> None:
    images, source_ids = pixels(2), source([10, 20, 30], [10])
    with torch.inference_mode():
        both = tiny_model(images, source_ids, ANSWERS)
        first = tiny_model(images[:1], source_ids[:1], ANSWERS[:1])
        second = tiny_model(images[1:], source([10]), ANSWERS[1:])
    assert_same_logits(both, torch.cat([first, second]))


@pytest.mark.parametrize("changed", ["picture", "prompt"])
def test_the_whole_source_matters(tiny_model: OFAModel, changed: str) -> None:
    images, prompts = pixels(2), source([10, 20], [10, 21])
    with torch.inference_mode():
        logits = tiny_model(images[:1], prompts[:1], ANSWERS[:1])
        if changed == "picture":
            other = tiny_model(images[1:], prompts[:1], ANSWERS[:1])
        else:
            other = tiny_model(images[:1], prompts[1:], ANSWERS[:1])
    assert (logits - other).abs().max() > 0.1


def test_a_shared_bias_equals_the_same_bias_in_every_layer() -> None:
    shared = tiny.make_model(tiny.make_config(share_attn_bias=True))
    own = OFAModel(tiny.make_config()).eval()
    state = shared.state_dict()
    for name in own.state_dict():
        if "rel_pos_table_list" in name:
            state[name] = state[name.replace(".1.weight", ".0.weight")]
    own.load_state_dict(state)
    with torch.inference_mode():
        inputs = (pixels(2), source([10, 20], [10]), ANSWERS)
        assert_same_logits(shared(*inputs), own(*inputs))


@pytest.mark.parametrize(("row", "part"), [(0, slice(4, 9)), (1, slice(0, 4))])
def test_text_and_picture_have_types_of_their_own(row: int, part: slice) -> None:
    encoder = tiny.make_model(tiny.make_config()).encoder
    source_ids = source([10, 20, 30])
    with torch.inference_mode():
        embedded, _, _ = encoder.embed(pixels(1, size=32), source_ids)
        encoder.type_embedding.weight[row, 0] += 1
        changed, _, _ = encoder.embed(pixels(1, size=32), source_ids)
    places = (embedded != changed).any(-1)[0].nonzero().flatten().tolist()
    assert places == list(range(9))[part]


def test_the_encoders_bias_is_relative_within_text_and_within_the_picture() -> None:
    encoder = tiny.make_model(tiny.make_config()).encoder
    height, width, length = 2, 3, 4
    num_patches = height * width
    with torch.inference_mode():
        positions = encoder.position_states(height, width, length)
        absolute = encoder.absolute_bias(
            encoder.pos_q_linear(positions), encoder.pos_k_linear(positions)
        )
        bias = encoder.attention_bias(positions, height, width)
        for layer in range(2):
            expected = absolute.clone()
            image_table = encoder.image_rel_pos_table_list[layer].weight
            text_table = encoder.token_rel_pos_table_list[layer].weight
            patches = image_table[image_buckets(6, height, width)].permute(2, 0, 1)
            tokens = text_table[token_buckets(256, length)].permute(2, 0, 1)
            expected[:, :num_patches, :num_patches] += patches
            expected[:, num_patches:, num_patches:] += tokens
            torch.testing.assert_close(bias[layer], expected)


def test_every_encoder_layer_adds_its_own_bias(tiny_model: OFAModel) -> None:
    encoder, source_ids = tiny_model.encoder, source([10, 20])
    numbers = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        x, height, width = encoder.embed(pixels(1), source_ids)
        padding = encoder.padding_mask(source_ids, height * width)
        bias = torch.randn(2, 4, x.size(1), x.size(1), generator=numbers)
        expected = encoder.layers[1](encoder.layers[0](x, bias[0]), bias[1])
        hidden = encoder.run_layers(x, padding, bias)
        torch.testing.assert_close(hidden, encoder.layer_norm(expected))


def test_the_decoders_bias_is_relative_in_every_layer() -> None:
    decoder = tiny.make_model(tiny.make_config()).decoder
    with torch.inference_mode():
        positions = decoder.pos_ln(decoder.embed_positions.weight[:5])
        absolute = decoder.absolute_bias(
            decoder.self_pos_q_linear(positions), decoder.self_pos_k_linear(positions)
        )
        bias = decoder.self_attention_bias(5)
        for layer in range(2):
            table = decoder.token_rel_pos_table_list[layer].weight
            relative = table[token_buckets(256, 5)].permute(2, 0, 1)
            torch.testing.assert_close(bias[layer], absolute + relative)


def stretched(table: list[list[Tensor]], size: int) -> list[Tensor]:
    """Bilinear interpolation of a square grid; a cell's value stands at the cell's middle."""
    old = len(table)

    def place(index: int) -> tuple[int, int, float]:
        middle = max((index + 0.5) * old / size - 0.5, 0)
        low = min(int(middle), old - 1)
        return low, min(low + 1, old - 1), middle - low

    cells = []
    for row in range(size):
        top, bottom, down = place(row)
        for column in range(size):
            left, right, along = place(column)
            upper = table[top][left] * (1 - along) + table[top][right] * along
            lower = table[bottom][left] * (1 - along) + table[bottom][right] * along
            cells.append(upper * (1 - down) + lower * down)
    return cells


def test_interpolated_positions_stretch_the_grid_over_larger_pictures() -> None:
    config = tiny.make_config(interpolate_position=True, orig_patch_image_size=48)
    encoder = tiny.make_model(config).encoder
    weights = encoder.embed_image_positions.weight
    with torch.inference_mode():
        fitting = encoder.position_states(3, 3, prompt_length=4)
        assert torch.equal(
            fitting[:9], encoder.image_pos_ln(weights[[1, 2, 3, 7, 8, 9, 13, 14, 15]])
        )
        smaller = encoder.position_states(2, 2, prompt_length=4)
        assert torch.equal(smaller[:4], encoder.image_pos_ln(weights[[1, 2, 7, 8]]))
        table = [[weights[6 * row + column + 1] for column in range(3)] for row in range(3)]
        larger = encoder.position_states(5, 5, prompt_length=4)
        expected = encoder.image_pos_ln(torch.stack(stretched(table, 5)))
        torch.testing.assert_close(larger[:25], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(larger[25:], encoder.pos_ln(encoder.embed_positions.weight[:4]))


def test_training_reaches_every_parameter_of_captioning() -> None:
    model = tiny.make_model(tiny.make_config()).train()
    mean = model.encoder.embed_images.bn1.running_mean.clone()
    logits = model(pixels(2), source([10, 20], [10]), ANSWERS)
    logits.logsumexp(-1).sum().backward()
    untouched = {name for name, p in model.named_parameters() if p.grad is None}
    picture_tokens = (
        "code_layernorm_embedding",
        "image_pos_ln",
        "embed_image_positions",
        "image_rel",
    )
    assert untouched == {
        name
        for name, _ in model.decoder.named_parameters(prefix="decoder")
        if name.startswith(tuple(f"decoder.{part}" for part in picture_tokens))
    }
    assert not torch.equal(model.encoder.embed_images.bn1.running_mean, mean)
