from typing import Any

import pytest
from transformers import PretrainedConfig

from ofa.errors import CheckpointError
from ofa.model import ModelConfig

#: In the manner of the published ones: bookkeeping and training-only fields included.
PUBLISHED: dict[str, Any] = {
    "_name_or_path": "./",
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "add_type_embedding": True,
    "architectures": ["OFAModel"],
    "attention_dropout": 0.0,
    "attn_scale_factor": 2.0,
    "bos_token_id": 0,
    "classifier_dropout": 0.0,
    "code_image_size": 128,
    "code_layernorm_embedding": True,
    "d_model": 256,
    "decoder_attention_heads": 4,
    "decoder_drop_path_rate": 0.0,
    "decoder_ffn_dim": 1024,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 4,
    "decoder_normalize_before": True,
    "decoder_start_token_id": 0,
    "disable_entangle": True,
    "dropout": 0.1,
    "encoder_attention_heads": 4,
    "encoder_drop_path_rate": 0.0,
    "encoder_ffn_dim": 1024,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 4,
    "encoder_normalize_before": True,
    "entangle_position_embedding": False,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "image_bucket_size": 42,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "layernorm_embedding": True,
    "max_position_embeddings": 1024,
    "model_type": "ofa",
    "normformer": True,
    "num_hidden_layers": 4,
    "pad_token_id": 1,
    "patch_layernorm_embedding": True,
    "resnet_drop_path_rate": 0.0,
    "resnet_model_path": None,
    "resnet_type": "resnet50",
    "scale_embedding": False,
    "share_decoder_input_output_embed": True,
    "token_bucket_size": 256,
    "torch_dtype": "float32",
    "transformers_version": "4.16.0.dev0",
    "use_cache": True,
    "vocab_size": 59457,
}


def test_a_published_configuration_is_read() -> None:
    config = ModelConfig.from_dict(PUBLISHED)
    assert config == ModelConfig(
        vocab_size=59457,
        d_model=256,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        resnet_type="resnet50",
        disable_entangle=True,
    )


def test_an_empty_configuration_has_the_references_defaults() -> None:
    config = ModelConfig.from_dict({})
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (512, 4, 4)
    assert (config.encoder_attention_heads, config.encoder_ffn_dim) == (8, 2048)
    assert (config.vocab_size, config.max_position_embeddings) == (59457, 1024)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.resnet_type, config.attn_scale_factor) == ("resnet101", 2.0)
    assert (config.token_bucket_size, config.image_bucket_size) == (256, 42)
    assert (config.code_image_size, config.orig_patch_image_size) == (128, 224)
    assert not config.interpolate_position
    assert not config.share_attn_bias
    assert not config.entangle_position_embedding
    assert not config.disable_entangle
    assert not config.use_ofasys
    assert config.vit_type == "vit_base"


def test_generic_fields_of_transformers_are_tolerated() -> None:
    generic = PretrainedConfig().to_dict()
    for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
        del generic[name]  # OFA's own fields under the same names
    assert ModelConfig.from_dict(generic) == ModelConfig()


@pytest.mark.parametrize(
    "flag",
    [
        "share_attn_bias",
        "interpolate_position",
        "use_ofasys",
        "entangle_position_embedding",
        "disable_entangle",
    ],
)
def test_supported_flags_are_read(flag: str) -> None:
    assert getattr(ModelConfig.from_dict({flag: True}), flag) is True


@pytest.mark.parametrize(
    ("flag", "value", "supported"),
    [
        ("use_gamma_feature", True, False),
        ("scale_embedding", True, False),
        ("activation_function", "relu", "gelu"),
        ("normformer", False, True),
        ("encoder_normalize_before", False, True),
        ("decoder_normalize_before", False, True),
        ("layernorm_embedding", False, True),
        ("patch_layernorm_embedding", False, True),
        ("code_layernorm_embedding", False, True),
        ("add_type_embedding", False, True),
        ("share_decoder_input_output_embed", False, True),
        ("use_image_feature", False, True),
        ("exclude_mlp", False, True),
        ("temperature_init_value", 0.1, None),
    ],
)
def test_unsupported_flags_are_refused_by_name(flag: str, value: object, supported: object) -> None:
    assert ModelConfig.from_dict({flag: supported}) == ModelConfig()
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict({flag: value})
    assert str(caught.value) == (
        f"config.json: {flag}={value!r} is not supported (only {supported!r} is)"
    )


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict(PUBLISHED | {"scale_resids": True, "rotary": 1})
    assert str(caught.value) == (
        "config.json: unknown field rotary, scale_resids; it may change the mathematics"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": "256"}, "d_model must be of type int, got '256'"),
        ({"d_model": 256.0}, "d_model must be of type int, got 256.0"),
        ({"d_model": True}, "d_model must be of type int, got True"),
        ({"d_model": None}, "d_model must be of type int, got None"),
        ({"attn_scale_factor": "2"}, "attn_scale_factor must be of type float, got '2'"),
        ({"share_attn_bias": 1}, "share_attn_bias must be of type bool, got 1"),
        ({"resnet_type": 50}, "resnet_type must be of type str, got 50"),
        ({"vocab_size": 0}, "vocab_size must be positive, got 0"),
        ({"encoder_layers": -1}, "encoder_layers must be positive, got -1"),
        ({"attn_scale_factor": float("nan")}, "attn_scale_factor must be positive, got nan"),
        (
            {"d_model": 100},
            "d_model 100 is not a multiple of encoder_attention_heads 8",
        ),
        (
            {"decoder_attention_heads": 7},
            "d_model 512 is not a multiple of decoder_attention_heads 7",
        ),
    ],
    ids=str,
)
def test_impossible_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict(values)
    assert str(caught.value) == f"config.json: {message}"


def test_an_unknown_stem_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict({"resnet_type": "resnet26"})
    assert str(caught.value) == (
        "config.json: resnet_type must be one of resnet18, resnet34, resnet50, resnet101, "
        "resnet152, got 'resnet26'"
    )


def test_an_unknown_vit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict({"use_ofasys": True, "vit_type": "vit_giant"})
    assert str(caught.value) == (
        "config.json: vit_type must be one of vit_base, vit_large, vit_large_336, vit_huge, "
        "got 'vit_giant'"
    )


@pytest.mark.parametrize("entangled", [False, True])
def test_only_the_entangled_ofasys_layout_has_no_absolute_bias(entangled: bool) -> None:
    assert ModelConfig(entangle_position_embedding=entangled).has_absolute_bias
    ofasys = ModelConfig(use_ofasys=True, entangle_position_embedding=entangled)
    assert ofasys.has_absolute_bias == (not entangled)


@pytest.mark.parametrize(
    ("values", "smallest", "largest"),
    [
        # A ResNet rounds up to whole patches, a ViT down. 42 is the side of the position table.
        ({}, 1, 42 * 16),
        ({"use_ofasys": True, "vit_type": "vit_base"}, 16, 42 * 16 + 15),
        ({"use_ofasys": True, "vit_type": "vit_huge"}, 14, 42 * 14 + 13),
        ({"image_bucket_size": 6}, 1, 96),
    ],
)
def test_picture_sizes_are_bounded_by_the_position_table(
    values: dict[str, Any], smallest: int, largest: int
) -> None:
    sizes = ModelConfig.from_dict(values).picture_sizes
    assert (sizes[0], sizes[-1]) == (smallest, largest)


def test_an_integer_does_as_a_float() -> None:
    assert ModelConfig.from_dict({"attn_scale_factor": 2}).attn_scale_factor == 2
