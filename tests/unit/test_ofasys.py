"""The ofasys layout: its names and shapes, its ViT, and what positions do in it."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.checkpoint import load_checkpoint
from ofa.errors import CheckpointError
from ofa.export import export_generator
from ofa.model import ModelConfig, OFAModel
from ofa.model.kv_cache import make_cache
from ofa.model.positions import image_buckets, token_buckets
from ofa.model.vit import VIT_SIZES, Block, QuickGELU, VisionTransformer, ViTSize
from tests.unit import tiny
from tests.unit.test_model import Shapes, layer_shapes, linear, norm, on_meta, stretched
from tests.unit.tiny import BOS, EOS, PAD

SMALL_VIT = ViTSize(image_size=48, patch_size=16, width=24, num_layers=2, num_heads=3)

LAYOUTS: dict[str, dict[str, Any]] = {
    "ofasys": {"use_ofasys": True},
    "ofasys, shared bias": {"use_ofasys": True, "share_attn_bias": True},
    "ofasys, entangled": {"use_ofasys": True, "entangle_position_embedding": True},
    "ofasys, entangled encoder": {
        "use_ofasys": True,
        "entangle_position_embedding": True,
        "disable_entangle": True,
    },
    "entangled": {"entangle_position_embedding": True},
}


@pytest.fixture(params=LAYOUTS)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OFAModel:
    monkeypatch.setitem(VIT_SIZES, "vit_base", SMALL_VIT)
    return tiny.make_model(tiny.make_config(**LAYOUTS[request.param]))


@pytest.fixture
def make_ofasys(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a tiny model of the layout, with changes to its configuration."""
    monkeypatch.setitem(VIT_SIZES, "vit_base", SMALL_VIT)
    return lambda **changes: tiny.make_model(tiny.make_config(use_ofasys=True, **changes))


def vit_shapes(name: str, size: ViTSize) -> Shapes:
    width = size.width
    grid = size.image_size // size.patch_size
    shapes = {
        f"{name}.conv1.weight": [width, 3, size.patch_size, size.patch_size],
        f"{name}.positional_embedding": [grid**2 + 1, width],
    }
    shapes |= norm(f"{name}.ln_pre", width)
    for index in range(size.num_layers):
        block = f"{name}.transformer.resblocks.{index}"
        shapes |= {
            f"{block}.attn.in_proj_weight": [3 * width, width],
            f"{block}.attn.in_proj_bias": [3 * width],
        }
        shapes |= linear(f"{block}.attn.out_proj", width, width)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= linear(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
    return shapes


def ofasys_shapes(config: ModelConfig) -> Shapes:
    """Names and shapes of the reference's state dict, less buffers that can be computed."""
    width = config.d_model
    size = VIT_SIZES[config.vit_type]
    shapes = vit_shapes("encoder.embed_images", size)
    shapes |= linear("encoder.image_proj", width, size.width)
    for name in ("patch_layernorm_embedding", "image_pos_ln"):
        shapes |= norm(f"encoder.{name}", width)
    shapes |= norm("decoder.code_layernorm_embedding", width)
    shapes["encoder.type_embedding.weight"] = [2, width]
    shapes["decoder.type_embedding.weight"] = [1, width]
    shapes["encoder.embed_image_positions.weight"] = [1765, width]
    projections = ["decoder.cross_pos"]
    if not config.entangle_position_embedding:
        projections += ["encoder.pos", "decoder.self_pos"]
    for name, kind in product(projections, ("q", "k")):
        shapes |= linear(f"{name}_{kind}_linear", width, width)
    for side, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "cross_attn"])):
        num_layers = getattr(config, f"{side}_layers")
        shapes[f"{side}.embed_tokens.weight"] = [config.vocab_size, width]
        shapes[f"{side}.embed_positions.weight"] = [1026, width]
        for name in ("layernorm_embedding", "layer_norm"):
            shapes |= norm(f"{side}.{name}", width)
        for index in range(num_layers):
            shapes |= layer_shapes(f"{side}.layers.{index}", attentions, width, 8, 2048)
        for index in range(1 if config.share_attn_bias else num_layers):
            shapes[f"{side}.token_rel_pos_table_list.{index}.weight"] = [511, 8]
            if side == "encoder":
                shapes[f"{side}.image_rel_pos_table_list.{index}.weight"] = [6892, 8]
    return shapes


@pytest.mark.parametrize("vit_type", ["vit_base", "vit_large", "vit_large_336", "vit_huge"])
@pytest.mark.parametrize("entangled", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_names_and_shapes(vit_type: str, entangled: bool, shared: bool) -> None:
    config = ModelConfig(
        use_ofasys=True,
        vit_type=vit_type,
        entangle_position_embedding=entangled,
        share_attn_bias=shared,
    )
    state = on_meta(config).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == ofasys_shapes(config)


def test_a_vit_block_is_a_pre_norm_transformer_layer() -> None:
    torch.manual_seed(0)
    block = Block(width=24, num_heads=3, is_causal=False).eval()
    layer = nn.TransformerEncoderLayer(
        24, 3, 96, dropout=0.0, activation=QuickGELU(), batch_first=True, norm_first=True
    ).eval()
    names = {
        "self_attn": "attn",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "linear1": "mlp.c_fc",
        "linear2": "mlp.c_proj",
    }
    state = block.state_dict()
    layer.load_state_dict(
        {
            name: state[f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}"]
            for name in layer.state_dict()
        }
    )
    x = torch.randn(2, 5, 24)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), layer(x))


def test_quick_gelu() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    expected = torch.tensor([-0.0180713, -0.1542042, 0.0, 0.8457958, 2.9819287])
    torch.testing.assert_close(QuickGELU()(x), expected)


def test_a_vit_drops_what_is_no_whole_patch() -> None:
    vit = VisionTransformer(SMALL_VIT).eval()
    pictures = torch.randn(2, 3, 90, 78)
    with torch.inference_mode():
        features = vit(pictures)
        assert features.shape == (2, 24, 5, 4)
        # The same rows of patches; but positions stretch over the picture's grid, not its pixels.
        torch.testing.assert_close(vit(pictures[:, :, :80, :64]), features)


def test_a_vits_features_are_in_row_major_order() -> None:
    """Without attention and positions every patch is on its own."""
    vit = VisionTransformer(SMALL_VIT).eval()
    picture = torch.zeros(1, 3, 48, 48)
    changed = picture.clone()
    changed[:, :, 16:32, 32:] = 1.0  # row 1, column 2
    with torch.inference_mode():
        for name, parameter in vit.named_parameters():
            if "attn.out_proj" in name or name == "positional_embedding":
                parameter.zero_()
        places = (vit(picture) != vit(changed)).any(1)[0].nonzero().tolist()
    assert places == [[1, 2]]


def test_a_vits_positions_are_stretched_over_other_pictures() -> None:
    vit = VisionTransformer(SMALL_VIT).eval()
    table = vit.positional_embedding.detach()
    with torch.inference_mode():
        assert torch.equal(vit.positions(48, 3, 3), table[1:])
        rows = [[table[3 * row + column + 1] for column in range(3)] for row in range(3)]
        for size in (2, 5):
            expected = torch.stack(stretched(rows, size))
            torch.testing.assert_close(
                vit.positions(16 * size, size, size), expected, rtol=1e-4, atol=1e-6
            )


def pixels(count: int, size: int = 64) -> Tensor:
    return tiny.make_pictures(count, size=size) / 127.5 - 1


SOURCE_IDS = torch.tensor([[BOS, 10, 20, EOS], [BOS, 10, EOS, PAD]])
ANSWERS = torch.tensor([[BOS, 5, 6, 7, 8], [BOS, 9, 5, 5, 6]])


def test_every_parameter_is_read_but_those_that_the_reference_skips(model: OFAModel) -> None:
    config = model.config
    model.train()
    model(pixels(2), SOURCE_IDS, ANSWERS).logsumexp(-1).sum().backward()
    unread = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    expected = {"decoder.code_layernorm_embedding"}
    if config.use_ofasys:
        expected |= {"encoder.image_pos_ln", "decoder.type_embedding"}
    else:
        expected |= {"decoder.embed_image_positions", "decoder.image_pos_ln"}
        expected |= {f"decoder.image_rel_pos_table_list.{index}" for index in range(2)}
    if not config.has_absolute_bias:
        expected |= {"decoder.cross_pos_q_linear", "decoder.cross_pos_k_linear"}
        if config.disable_entangle:
            expected.add("decoder.embed_positions")
    assert {name.rpartition(".")[0] for name in unread} == expected


@pytest.mark.parametrize("size", [48, 64])
def test_scripted_equals_eager(model: OFAModel, size: int) -> None:
    scripted = torch.jit.script(model)
    with torch.inference_mode():
        for images in (pixels(2, size=size), None):
            inputs = (images, SOURCE_IDS, ANSWERS)
            torch.testing.assert_close(scripted(*inputs), model(*inputs))


def test_cached_equals_teacher_forced(model: OFAModel) -> None:
    encoder, decoder = model.encoder, model.decoder
    with torch.inference_mode():
        full = model(pixels(2), SOURCE_IDS, ANSWERS)
        x, height, width = encoder.embed(pixels(2), SOURCE_IDS)
        positions = encoder.position_states(height, width, 4)
        padding = encoder.padding_mask(SOURCE_IDS, height * width)
        hidden = encoder.run_layers(x, padding, encoder.attention_bias(positions, height, width))
        length = ANSWERS.size(1)
        self_bias = decoder.self_attention_bias(length)
        cross_bias = decoder.cross_attention_bias(length, positions)
        mask = torch.zeros(padding.shape).masked_fill(padding, float("-inf"))[:, None, None]
        cache = make_cache(decoder.cross_keys_values(hidden), num_beams=1, max_length=length)
        for step in range(length):
            step_bias = cross_bias[:, step : step + 1] + mask
            logits = decoder.step(ANSWERS[:, step : step + 1], step, cache, self_bias, step_bias)
            torch.testing.assert_close(logits[:, 0], full[:, step], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_entangled_ofasys_has_relative_biases_only(make_ofasys: Any, shared: bool) -> None:
    model = make_ofasys(entangle_position_embedding=True, share_attn_bias=shared)
    encoder, decoder = model.encoder, model.decoder
    num_patches, length = 6, 4
    with torch.inference_mode():
        positions = encoder.position_states(2, 3, length)
        encoder_bias = encoder.attention_bias(positions, 2, 3)
        decoder_bias = decoder.self_attention_bias(length)
        assert encoder_bias.size(0) == decoder_bias.size(0) == (1 if shared else 2)
        for index in range(encoder_bias.size(0)):
            patches = encoder.image_rel_pos_table_list[index].weight[image_buckets(6, 2, 3)]
            tokens = encoder.token_rel_pos_table_list[index].weight[token_buckets(256, length)]
            expected = torch.zeros(4, num_patches + length, num_patches + length)
            expected[:, :num_patches, :num_patches] = patches.permute(2, 0, 1)
            expected[:, num_patches:, num_patches:] = tokens.permute(2, 0, 1)
            assert torch.equal(encoder_bias[index], expected)
            answers = decoder.token_rel_pos_table_list[index].weight[token_buckets(256, length)]
            assert torch.equal(decoder_bias[index], answers.permute(2, 0, 1))
        cross_bias = decoder.cross_attention_bias(length, positions)
        assert torch.equal(cross_bias, torch.zeros(4, length, num_patches + length))


def test_ofasys_does_not_normalise_positions(make_ofasys: Any) -> None:
    model = make_ofasys()
    encoder, decoder = model.encoder, model.decoder
    with torch.inference_mode():
        positions = encoder.position_states(2, 3, 4)
        # The table has 6 columns whatever the grid; its row 0 is no patch.
        image = encoder.embed_image_positions.weight[[1, 2, 3, 7, 8, 9]]
        text = encoder.embed_positions.weight[:4]
        assert torch.equal(positions, torch.cat([image, text]))
        target = decoder.embed_positions.weight[:5]
        expected = decoder.absolute_bias(
            decoder.cross_pos_q_linear(target), decoder.cross_pos_k_linear(positions)
        )
        assert torch.equal(decoder.cross_attention_bias(5, positions), expected)


def test_entangled_inputs_carry_their_positions(make_ofasys: Any) -> None:
    model = make_ofasys(entangle_position_embedding=True)
    encoder, decoder = model.encoder, model.decoder
    with torch.inference_mode():
        x, height, width = encoder.embed(pixels(2), SOURCE_IDS)
        features = encoder.embed_images(pixels(2)).flatten(2).transpose(1, 2)
        positions = encoder.position_states(height, width, 4)
        image = encoder.image_proj(features) + positions[:-4] + encoder.type_embedding.weight[1]
        text = encoder.embed_tokens(SOURCE_IDS) + positions[-4:] + encoder.type_embedding.weight[0]
        expected = [encoder.patch_layernorm_embedding(image), encoder.layernorm_embedding(text)]
        torch.testing.assert_close(x, torch.cat(expected, dim=1))
        embedded = decoder.embed_tokens(ANSWERS) + decoder.embed_positions.weight[[3, 0, 1, 1, 2]]
        torch.testing.assert_close(
            decoder.embed(ANSWERS, torch.tensor([3, 0, 1, 1, 2])),
            F.layer_norm(
                embedded,
                [32],
                decoder.layernorm_embedding.weight,
                decoder.layernorm_embedding.bias,
            ),
        )


@pytest.fixture
def ofasys_folder(make_ofasys: Any, tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A checkpoint whose model knows neither codes nor bins, as ModelScope's rule has it."""
    folder = tmp_path / "ofa_6b"
    folder.mkdir()
    model = make_ofasys(entangle_position_embedding=True, vocab_size=401)
    tiny.write_checkpoint(folder, model, tokenizer_folder)
    return folder


def test_a_checkpoint_is_loaded_and_exported(ofasys_folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(ofasys_folder)
    assert checkpoint.model.config.vocab_size == 401
    export_generator(checkpoint, tmp_path / "model.pt", checkpoint.default_limits())


@pytest.mark.parametrize("task", ["generate", "visual-grounding"])
def test_a_task_of_bins_needs_rows_for_them(ofasys_folder: Path, task: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(ofasys_folder, task=task)
    assert str(caught.value) == (
        "ofa_6b: config.json has vocab_size 401, but vocab.json with codes and bins gives 9593"
    )


def test_a_model_with_rows_for_codes_and_bins_is_loaded_too(
    make_ofasys: Any, tmp_path: Path, tokenizer_folder: Path
) -> None:
    tiny.write_checkpoint(tmp_path, make_ofasys(), tokenizer_folder)
    assert load_checkpoint(tmp_path, task="generate").model.config.vocab_size == 9593


def test_a_picture_without_a_whole_patch_is_refused(ofasys_folder: Path) -> None:
    path = ofasys_folder / "configuration.json"
    path.write_text(
        path.read_text("utf-8").replace('"patch_image_size": 64', '"patch_image_size": 15')
    )
    with pytest.raises(CheckpointError, match=r"the position table allows 16 to 111$"):
        load_checkpoint(ofasys_folder)
