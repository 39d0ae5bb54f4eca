"""`config.json` of a checkpoint folder: the architecture, validated field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ofa.errors import CheckpointError
from ofa.model.resnet import PATCH_STRIDE
from ofa.model.vit import VIT_SIZES

#: Bottleneck blocks of the first three ResNet stages (modelscope `modeling_ofa.py`, OFAEncoder).
#: OFA's resnet18 and resnet34 use Bottleneck blocks too.
RESNET_BLOCKS: dict[str, tuple[int, int, int]] = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}

#: Switches that change the mathematics, with the one value that every published checkpoint of the
#: supported layout carries. Any other value is refused by name.
_REQUIRED: dict[str, Any] = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "normformer": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "share_decoder_input_output_embed": True,
    "use_image_feature": True,
    "use_gamma_feature": False,
    "exclude_mlp": True,
    "temperature_init_value": None,
}

#: Fields that play no part in inference: training only, unused by the reference's forward pass, or
#: only read where a switch of `_REQUIRED` is set (modelscope `configuration_ofa.py`).
_IGNORED = frozenset(
    {
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "classifier_dropout",
        "encoder_layerdrop",
        "decoder_layerdrop",
        "encoder_drop_path_rate",
        "decoder_drop_path_rate",
        "resnet_drop_path_rate",
        "vit_drop_path_rate",
        "resnet_model_path",
        "gamma",
        "mlp_dim",
        "remove_decoder_type_embedding",
        "init_std",
        "use_cache",
        "num_hidden_layers",
        "decoder_start_token_id",
        "forced_eos_token_id",
    }
)

#: What the configuration of any Hugging Face transformers 4 model may carry: bookkeeping, what a
#: call returns, and settings of a search that is not OFA's.
_GENERIC = frozenset(
    {
        *("_attn_implementation_autoset", "_name_or_path", "architectures", "auto_map", "dtype"),
        *("finetuning_task", "id2label", "label2id", "model_type", "prefix", "problem_type"),
        *("task_specific_params", "tokenizer_class", "torch_dtype", "transformers_version"),
        *("add_cross_attention", "cross_attention_hidden_size", "is_decoder", "is_encoder_decoder"),
        *("chunk_size_feed_forward", "gradient_checkpointing", "pruned_heads", "tf_legacy_loss"),
        *("tie_encoder_decoder", "tie_word_embeddings", "torchscript", "use_bfloat16"),
        *("output_attentions", "output_hidden_states", "output_scores", "return_dict"),
        *("return_dict_in_generate", "bad_words_ids", "begin_suppress_tokens", "do_sample"),
        *("diversity_penalty", "early_stopping", "encoder_no_repeat_ngram_size"),
        *("exponential_decay_length_penalty", "forced_bos_token_id", "length_penalty"),
        *("max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams"),
        *("num_return_sequences", "remove_invalid_values", "repetition_penalty", "sep_token_id"),
        *("suppress_tokens", "temperature", "top_k", "top_p", "typical_p"),
    }
)

_TYPES: dict[str, type] = {"int": int, "bool": bool, "str": str}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of one checkpoint. Defaults are those of modelscope `OFAConfig`.

    Two layouts share it: that of the published tiny to huge, and "ofasys" (`use_ofasys`), that of
    the published 6B, which reads pictures with a ViT and normalises no positions.
    """

    vocab_size: int = 59457
    d_model: int = 512
    encoder_layers: int = 4
    decoder_layers: int = 4
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    max_position_embeddings: int = 1024
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    resnet_type: str = "resnet101"
    token_bucket_size: int = 256
    image_bucket_size: int = 42
    attn_scale_factor: float = 2.0
    code_image_size: int = 128
    interpolate_position: bool = False
    orig_patch_image_size: int = 224
    share_attn_bias: bool = False
    entangle_position_embedding: bool = False
    disable_entangle: bool = False
    use_ofasys: bool = False
    vit_type: str = "vit_base"

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from.

        Raises:
            CheckpointError: naming the field, the limit and the value.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            # An integer does where a float is meant; a bool is no integer, whatever Python says.
            accepted = (int, float) if field.type == "float" else (_TYPES[str(field.type)],)
            if type(value) not in accepted:
                raise CheckpointError(
                    f"config.json: {field.name} must be of type {field.type}, got {value!r}"
                )
            # A NaN, which JSON readers let through, is not above 0 either.
            if field.type in ("int", "float") and not field.name.endswith("_id") and not value > 0:
                raise CheckpointError(f"config.json: {field.name} must be positive, got {value}")
        if self.resnet_type not in RESNET_BLOCKS:
            raise CheckpointError(
                f"config.json: resnet_type must be one of {', '.join(RESNET_BLOCKS)}, "
                f"got {self.resnet_type!r}"
            )
        if self.vit_type not in VIT_SIZES:
            raise CheckpointError(
                f"config.json: vit_type must be one of {', '.join(VIT_SIZES)}, "
                f"got {self.vit_type!r}"
            )
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                raise CheckpointError(
                    f"config.json: d_model {self.d_model} is not a multiple of "
                    f"{side}_attention_heads {heads}"
                )

    @property
    def has_absolute_bias(self) -> bool:
        """Whether attention scores get an absolute bias; ofasys may add positions to inputs."""
        return not (self.use_ofasys and self.entangle_position_embedding)

    @property
    def picture_sizes(self) -> range:
        """Sides of a square picture, in pixels, whose patches are within the position table."""
        if self.use_ofasys:
            patch_size = VIT_SIZES[self.vit_type].patch_size
            return range(patch_size, (self.image_bucket_size + 1) * patch_size)
        return range(1, self.image_bucket_size * PATCH_STRIDE + 1)

    @property
    def code_grid_size(self) -> int:
        """Codes on a side of a picture that the decoder writes; each stands for 8 x 8 pixels."""
        return self.code_image_size // 8

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read the object in a `config.json`.

        Raises:
            CheckpointError: a field has an unsupported value, or an unknown field might change
                the mathematics.
        """
        kind = values.get("model_type") or "ofa"
        if kind != "ofa":
            raise CheckpointError(f"config.json: this is a model of the type {kind}; ofa is meant")
        for name, required in _REQUIRED.items():
            if name in values and values[name] != required:
                raise CheckpointError(
                    f"config.json: {name}={values[name]!r} is not supported (only {required!r} is)"
                )
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known - set(_REQUIRED) - _IGNORED - _GENERIC)
        if unknown:
            raise CheckpointError(
                f"config.json: unknown field {', '.join(unknown)}; it may change the mathematics"
            )
        return cls(**{name: value for name, value in values.items() if name in known})
