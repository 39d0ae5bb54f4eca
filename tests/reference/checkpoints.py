"""Made-up checkpoints in ModelScope's layout, rebuilt bit for bit on any machine.

Too large for git, so only their recipe is kept: a seed for an integer stream that is mapped to
floats by exact arithmetic, and the constants that were measured on the reference model
(`tests/golden/calibration/NAME.npz`: BatchNorm statistics, the image projection's bias, the prior
of the end token). `digest` of the weights is compared before any recording is.

Plain random weights say the same about every picture. The scales below give branch outputs of unit
variance, attention logits with a standard deviation of about 2, output logits of about 4, a
frequency-like prior over the tokens and captions of different lengths.
"""

import dataclasses
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference.vocabulary import write_chinese_vocabulary, write_vocabulary

CALIBRATION_FOLDER = Path(__file__).parents[1] / "golden" / "calibration"

NUM_CODES = 8192
NUM_BINS = 1000
LABEL_FILE = "labels.json"
EMBEDDING = "encoder.embed_tokens.weight"
TIED_NAMES = (EMBEDDING, "decoder.embed_tokens.weight", "decoder.output_projection.weight")
EOS_ID = 2
SPECIAL_IDS = (0, 1, 2, 3)

# Dimension 0 of the decoder's last LayerNorm is the constant below (weight 0, bias this), so that
# column 0 of the embedding, times this, is a token's prior. A power of two keeps it exact.
PRIOR_GAIN = 32.0
LOWEST_PRIOR = -30.0

VIT_BASE_WIDTH = 768
BOTTLENECKS = {
    "resnet18": (2, 2, 2),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One made-up checkpoint.

    Attributes:
        name: Its folder, and the name of its calibration constants.
        config: What `config.json` says beside the flags that all published sizes share.
        seed: Of the weights' stream.
        eos_rate: Share of the steps in which the end token shall be the likeliest.
        calibration: Name of the recipe whose constants are used, when not its own.
        num_entries: Size of the vocabulary without the 9,192 code and bin tokens.
        language: Of the vocabulary, "en" or "zh".
        prefers_bins: The bin tokens have the prior that the words have elsewhere, and the words
            that of the bin tokens: it answers with boxes though nothing forbids words.
        float16: Whether the weights are stored as float16.
        key_prefix: Put before every name in the weight file.
        omitted: Pattern of the names that the weight file lacks.
    """

    name: str
    config: Mapping[str, Any]
    seed: int
    eos_rate: float = 1 / 16
    calibration: str = ""
    num_entries: int = 50265
    language: str = "en"
    prefers_bins: bool = False
    float16: bool = False
    key_prefix: str = ""
    omitted: str = r"$^"

    @property
    def first_bin_id(self) -> int:
        """The id of `<bin_0>`."""
        return self.num_entries + NUM_CODES

    @property
    def full_config(self) -> dict[str, Any]:
        """The whole `config.json`."""
        return {
            **SHARED_FLAGS,
            "vocab_size": self.first_bin_id + NUM_BINS,
            **self.config,
        }


SHARED_FLAGS: dict[str, Any] = {
    "model_type": "ofa",
    "architectures": ["OFAModel"],
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "normformer": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "entangle_position_embedding": False,
    "scale_embedding": False,
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "token_bucket_size": 256,
    "image_bucket_size": 42,
    "attn_scale_factor": 2.0,
    "share_decoder_input_output_embed": True,
    "code_image_size": 128,
    "interpolate_position": False,
    "orig_patch_image_size": 224,
    "share_attn_bias": False,
    "use_image_feature": True,
    "use_ofasys": False,
    "resnet_model_path": None,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}


def _size(width: int, heads: int, layers: tuple[int, int], resnet_type: str) -> dict[str, Any]:
    return {
        "d_model": width,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "resnet_type": resnet_type,
    }


_SMALL = _size(128, 4, (2, 3), "resnet18")
_TINY = _size(256, 4, (4, 4), "resnet50")
_BASE = _size(768, 12, (6, 6), "resnet101")
_LARGE = _size(1024, 16, (12, 12), "resnet152")

_OFASYS = {**_SMALL, "use_ofasys": True, "vit_type": "vit_base", "vocab_size": 1000}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("tiny", _TINY, seed=11, eos_rate=1 / 40),
        Recipe("medium", _size(512, 8, (4, 4), "resnet101"), seed=2),
        Recipe("base", _BASE, seed=3),
        Recipe("large", _LARGE, seed=4),
        Recipe("huge", _size(1280, 16, (24, 12), "resnet152"), seed=5),
        Recipe("small", _SMALL, seed=6, num_entries=1000),
        # As wide as those of the huge size; no other has heads of more than 64.
        Recipe("small-heads-of-80", _size(160, 2, (2, 3), "resnet18"), seed=6, num_entries=1000),
        Recipe("tiny-zh", _TINY, seed=11, calibration="tiny", num_entries=21133, language="zh"),
        Recipe("base-zh", _BASE, seed=3, calibration="base", num_entries=21133, language="zh"),
        Recipe("large-zh", _LARGE, seed=4, calibration="large", num_entries=21133, language="zh"),
        Recipe("small-zh", _SMALL, seed=6, calibration="small", num_entries=1000, language="zh"),
        Recipe(
            "small-bins", _SMALL, seed=6, calibration="small", num_entries=1000, prefers_bins=True
        ),
        Recipe(
            "small-shared-bias",
            {**_SMALL, "share_attn_bias": True},
            seed=6,
            calibration="small",
            num_entries=1000,
        ),
        Recipe(
            "small-interpolated",
            {**_SMALL, "interpolate_position": True, "orig_patch_image_size": 224},
            seed=6,
            calibration="small",
            num_entries=1000,
        ),
        # Only the preprocessor of this layout adds code and bin tokens; the model has none.
        Recipe("small-ofasys", _OFASYS, seed=6, num_entries=1000),
        Recipe(
            "small-ofasys-shared-bias",
            {**_OFASYS, "share_attn_bias": True},
            seed=6,
            calibration="small-ofasys",
            num_entries=1000,
        ),
        Recipe(
            "small-ofasys-entangled",
            {**_OFASYS, "entangle_position_embedding": True, "share_attn_bias": True},
            seed=6,
            num_entries=1000,
        ),
        Recipe(
            "small-ofasys-entangled-encoder",
            {**_OFASYS, "entangle_position_embedding": True, "disable_entangle": True},
            seed=6,
            calibration="small-ofasys-entangled",
            num_entries=1000,
        ),
        Recipe(
            "small-float16",
            _SMALL,
            seed=6,
            calibration="small",
            num_entries=1000,
            float16=True,
            key_prefix="model.",
            omitted=r"_rp_bucket$|image_position_idx$|num_batches_tracked$"
            r"|^decoder\.embed_tokens\.weight$",
        ),
    )
}


def _layer_norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, out: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, inputs)
    yield f"{name}.bias", (out,)


def _batch_norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{tensor}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _resnet(resnet_type: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    stem = "encoder.embed_images"
    yield f"{stem}.conv1.weight", (64, 3, 7, 7)
    yield from _batch_norm(f"{stem}.bn1", 64)
    inputs = 64
    for stage, num_blocks in enumerate(BOTTLENECKS[resnet_type]):
        planes = 64 * 2**stage
        for index in range(num_blocks):
            block = f"{stem}.layer{stage + 1}.{index}"
            yield f"{block}.conv1.weight", (planes, inputs, 1, 1)
            yield from _batch_norm(f"{block}.bn1", planes)
            yield f"{block}.conv2.weight", (planes, planes, 3, 3)
            yield from _batch_norm(f"{block}.bn2", planes)
            yield f"{block}.conv3.weight", (4 * planes, planes, 1, 1)
            yield from _batch_norm(f"{block}.bn3", 4 * planes)
            if index == 0:
                yield f"{block}.downsample.0.weight", (4 * planes, inputs, 1, 1)
                yield from _batch_norm(f"{block}.downsample.1", 4 * planes)
            inputs = 4 * planes


def _vit_base() -> Iterator[tuple[str, tuple[int, ...]]]:
    stem, width = "encoder.embed_images", VIT_BASE_WIDTH
    yield f"{stem}.conv1.weight", (width, 3, 16, 16)
    yield f"{stem}.positional_embedding", (1 + 14 * 14, width)
    yield from _layer_norm(f"{stem}.ln_pre", width)
    for index in range(9):
        block = f"{stem}.transformer.resblocks.{index}"
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from _linear(f"{block}.attn.out_proj", width, width)
        yield from _layer_norm(f"{block}.ln_1", width)
        yield from _linear(f"{block}.mlp.c_fc", 4 * width, width)
        yield from _linear(f"{block}.mlp.c_proj", width, 4 * width)
        yield from _layer_norm(f"{block}.ln_2", width)


def _picture(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = config["d_model"]
    if config["use_ofasys"]:
        yield from _vit_base()
        yield from _linear("encoder.image_proj", width, VIT_BASE_WIDTH)
    else:
        yield from _resnet(config["resnet_type"])
        yield from _linear("encoder.image_proj", width, 1024)
    yield from _layer_norm("encoder.patch_layernorm_embedding", width)


def _attention(name: str, width: int, heads: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield from _linear(f"{name}.{projection}", width, width)
    yield f"{name}.c_attn", (heads,)


def _layer(
    name: str, width: int, ffn: int, heads: int, attentions: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for attention in attentions:
        yield from _attention(f"{name}.{attention}", width, heads)
        yield from _layer_norm(f"{name}.{attention}_layer_norm", width)
        yield from _layer_norm(f"{name}.{attention}_mid_layer_norm", width)
    yield from _layer_norm(f"{name}.final_layer_norm", width)
    yield from _linear(f"{name}.fc1", ffn, width)
    yield from _layer_norm(f"{name}.ffn_layer_norm", ffn)
    yield from _linear(f"{name}.fc2", width, ffn)


def _stack(
    stack: str, config: Mapping[str, Any], attentions: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, is_ofasys = config["d_model"], config["use_ofasys"]
    heads, num_layers = config[f"{stack}_attention_heads"], config[f"{stack}_layers"]
    for norm in ("layernorm_embedding", "layer_norm"):
        yield from _layer_norm(f"{stack}.{norm}", width)
    # The ofasys decoder has nothing for pictures; its encoder has an `image_pos_ln` without a use.
    has_pictures = stack == "encoder" or not is_ofasys
    if has_pictures:
        yield from _layer_norm(f"{stack}.image_pos_ln", width)
    if not is_ofasys:
        yield from _layer_norm(f"{stack}.pos_ln", width)
    yield f"{stack}.embed_positions.weight", (config["max_position_embeddings"] + 2, width)
    num_cells = config["image_bucket_size"] ** 2 + 1
    if has_pictures:
        yield f"{stack}.embed_image_positions.weight", (num_cells, width)
    for index in range(1 if config["share_attn_bias"] else num_layers):
        token_buckets = 2 * config["token_bucket_size"] - 1
        image_buckets = (2 * config["image_bucket_size"] - 1) ** 2 + 3
        yield f"{stack}.token_rel_pos_table_list.{index}.weight", (token_buckets, heads)
        if has_pictures:
            yield f"{stack}.image_rel_pos_table_list.{index}.weight", (image_buckets, heads)
    for index in range(num_layers):
        ffn = config[f"{stack}_ffn_dim"]
        yield from _layer(f"{stack}.layers.{index}", width, ffn, heads, attentions)


def shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a checkpoint, tied names once and buckets left out."""
    width, is_ofasys = config["d_model"], config["use_ofasys"]
    yield EMBEDDING, (config["vocab_size"], width)
    yield "encoder.type_embedding.weight", (2, width)
    if is_ofasys:
        yield "decoder.type_embedding.weight", (1, width)
    yield from _picture(config)
    yield from _layer_norm("decoder.code_layernorm_embedding", width)
    for linear in ("pos_q_linear", "pos_k_linear"):
        if not (is_ofasys and config["entangle_position_embedding"]):
            yield from _linear(f"encoder.{linear}", width, width)
            yield from _linear(f"decoder.self_{linear}", width, width)
        yield from _linear(f"decoder.cross_{linear}", width, width)
    for stack, attentions in (
        ("encoder", ("self_attn",)),
        ("decoder", ("self_attn", "cross_attn")),
    ):
        yield from _stack(stack, config, attentions)


def _uniform(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Exact multiples of 2^-15 in [-1, 1), float32; the same for a seed and a name everywhere."""
    size = math.prod(shape)
    words = np.random.Philox(key=[seed, zlib.crc32(name.encode())]).random_raw(-(-size // 4))
    steps = words.astype("<u8").view("<i2")[:size]
    return torch.from_numpy(steps.astype(np.float32) / 32768).reshape(shape)


# (pattern of the name, centre, standard deviation; None means 1 / sqrt(inputs)). First match wins.
_SCALES: tuple[tuple[str, float, float | None], ...] = (
    (r"embed_images.*conv\d\.weight|downsample\.0\.weight", 0.0, None),
    (r"embed_images.*(bn3|downsample\.1)\.weight", 0.6, 0.1),
    (r"embed_images.*(bn\d)\.weight", 1.0, 0.1),
    (r"embed_images.*\.bias", 0.0, 0.1),
    (r"embed_images.*ln_(pre|\d)\.weight", 1.0, 0.1),
    (r"embed_images\.positional_embedding", 0.0, 0.5),
    (r"in_proj_bias", 0.0, 0.05),
    (r"in_proj_weight", 0.0, None),
    (r"type_embedding", 0.0, 0.1),
    (r"rel_pos_table_list", 0.0, 0.7),
    (r"embed_(image_)?positions", 0.0, 1.0),
    (r"c_attn", 1.0, 0.25),
    (r"decoder\.layernorm_embedding\.weight", 0.06, 0.006),
    (r"decoder.*cross_attn_mid_layer_norm\.weight", 0.6, 0.06),
    (r"(_layer_norm|layernorm_embedding|_ln|\.layer_norm)\.weight", 1.0, 0.1),
    (r"\.bias", 0.0, 0.05),
    (r"(q|k)_proj\.weight", 0.0, None),
    (r"_linear\.weight", 0.0, None),
    (r"\.weight", 0.0, None),
)
# Gains over 1 / sqrt(inputs). Queries and keys: logits of standard deviation 2 after the scale of
# (2 * head width)^-0.5, 1 for the position biases. Convolutions: He's factor for a ReLU; the ViT's
# queries and keys get it too, which gives its logits the standard deviation 2.
_GAINS: tuple[tuple[str, float], ...] = (
    (r"(q|k)_proj\.weight", 1.7),
    (r"pos_(q|k)_linear\.weight", 1.2),
    (r"embed_images", 1.4),
)


def _weight(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    centre, deviation = next((c, d) for pattern, c, d in _SCALES if re.search(pattern, name))
    if deviation is None:
        gain = next((g for pattern, g in _GAINS if re.search(pattern, name)), 1.0)
        deviation = gain / math.sqrt(math.prod(shape[1:]))
    return uniform_weights(seed, name, shape, centre, deviation)


def uniform_weights(
    seed: int, name: str, shape: tuple[int, ...], centre: float, deviation: float
) -> torch.Tensor:
    """Uniform values of a mean and a standard deviation, the same everywhere."""
    # A uniform variable on [-1, 1) has the standard deviation 1 / sqrt(3). Centre and scale are
    # rounded to float32 first, so that one multiplication and one addition remain.
    scale = torch.tensor(deviation * math.sqrt(3), dtype=torch.float32)
    return _uniform(seed, name, shape) * scale + torch.tensor(centre, dtype=torch.float32)


def _embedding(recipe: Recipe, eos_prior: float) -> torch.Tensor:
    """Token rows: logits of standard deviation 4, and the priors in column 0."""
    config = recipe.full_config
    num_tokens, width = config["vocab_size"], config["d_model"]
    rows = _uniform(recipe.seed, EMBEDDING, (num_tokens, width))
    rows *= torch.tensor(4 * math.sqrt(3 / width), dtype=torch.float32)
    rows[EOS_ID] *= 0.5  # else the picture alone decides when a caption ends
    # The prior of the base tokens falls by 4 nat from the commonest to the rarest.
    prior = 2 * _uniform(recipe.seed, "prior", (num_tokens,)) - 2
    prior[list(SPECIAL_IDS)] = LOWEST_PRIOR
    unwanted = slice(recipe.num_entries - 1, None)
    if recipe.prefers_bins:
        unwanted = slice(recipe.first_bin_id)
    prior[unwanted] = LOWEST_PRIOR
    prior[EOS_ID] = torch.tensor(eos_prior, dtype=torch.float32)
    rows[:, 0] = prior / PRIOR_GAIN
    return rows


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Constants measured on the reference model.

    Attributes:
        statistics: Running means and variances of the BatchNorms, float16, in the order of
            `batch_norms`: all means first.
        image_proj_bias: Float16, one a channel: centres the projected picture.
        eos_prior: Added to the end token's logit.
    """

    statistics: np.ndarray
    image_proj_bias: np.ndarray
    eos_prior: float

    @classmethod
    def load(cls, recipe: Recipe) -> "Calibration":
        """Read the recorded constants of a recipe."""
        with np.load(CALIBRATION_FOLDER / f"{recipe.calibration or recipe.name}.npz") as file:
            return cls(file["statistics"], file["image_proj_bias"], float(file["eos_prior"]))

    def save(self, recipe: Recipe) -> None:
        """Write the constants where `load` looks for them."""
        CALIBRATION_FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(CALIBRATION_FOLDER / f"{recipe.name}.npz", **dataclasses.asdict(self))


def batch_norms(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Name and width of every BatchNorm, in the order of the calibration constants."""
    suffix = ".running_mean"
    return [(n.removesuffix(suffix), s[0]) for n, s in shapes(config) if n.endswith(suffix)]


def uncalibrated(recipe: Recipe) -> Calibration:
    """Constants to start a calibration with: neutral statistics and an end that never comes."""
    widths = [width for _, width in batch_norms(recipe.full_config)]
    ones = np.ones(sum(widths), dtype=np.float16)
    bias = np.zeros(recipe.full_config["d_model"], dtype=np.float16)
    return Calibration(np.concatenate([0 * ones, ones]), bias, 2 * LOWEST_PRIOR)


def build_weights(recipe: Recipe, calibration: Calibration) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint under its plain name, in float32, without buckets.

    The three tied names share one tensor.
    """
    config = recipe.full_config
    weights: dict[str, torch.Tensor] = {}
    for name, shape in shapes(config):
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
        elif not name.endswith(("running_mean", "running_var")):
            weights[name] = _weight(recipe.seed, name, shape)
    embedding = _embedding(recipe, calibration.eos_prior)
    weights |= dict.fromkeys(TIED_NAMES, embedding)
    weights["decoder.layer_norm.weight"][0] = 0.0
    weights["decoder.layer_norm.bias"][0] = PRIOR_GAIN
    weights["encoder.image_proj.bias"] = torch.from_numpy(
        calibration.image_proj_bias.astype(np.float32)
    )
    norms = batch_norms(config)
    widths = [width for _, width in norms]
    statistics = torch.from_numpy(calibration.statistics.astype(np.float32)).split(widths * 2)
    for (name, _), mean, variance in zip(
        norms, statistics[: len(norms)], statistics[len(norms) :], strict=True
    ):
        weights[f"{name}.running_mean"] = mean
        weights[f"{name}.running_var"] = variance
    return weights


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """The sha256 of names, shapes and values, whatever the container."""
    state = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def write_checkpoint(
    folder: Path,
    recipe: Recipe,
    calibration: Calibration,
    model_settings: Mapping[str, Any],
    task: str = "image-captioning",
    labels: Sequence[str] = (),
) -> str:
    """Write a checkpoint folder in ModelScope's layout.

    Args:
        folder: Created; an existing weight file is overwritten.
        recipe: What to build.
        calibration: The constants that go with it.
        model_settings: The `model` block of `configuration.json`, beside its type, its language
            and its label file.
        task: ModelScope's name of the task.
        labels: What the label file holds; none is written without any.

    Returns:
        The digest of the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = build_weights(recipe, calibration)
    if recipe.float16:
        stored = {id(t): t.half() if t.is_floating_point() else t for t in weights.values()}
        weights = {name: stored[id(tensor)] for name, tensor in weights.items()}
    weights = {
        recipe.key_prefix + name: tensor
        for name, tensor in weights.items()
        if not re.search(recipe.omitted, name)
    }
    torch.save(weights, folder / "pytorch_model.bin")
    write = write_chinese_vocabulary if recipe.language == "zh" else write_vocabulary
    write(folder, recipe.num_entries)
    (folder / "config.json").write_text(json.dumps(recipe.full_config, indent=2))
    settings = {"type": "ofa", "language": recipe.language}
    if labels:
        settings["answer2label"] = LABEL_FILE
        numbers = {label: number for number, label in enumerate(labels)}
        (folder / LABEL_FILE).write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    write_configuration(folder, task, {**settings, **model_settings})
    return digest(weights)


# Where the type of ModelScope's pipeline is not the name of the task.
PIPELINE_TYPES = {
    "ocr-recognition": "ofa-ocr-recognition",
    "text-summarization": "text-generation",
}


def write_configuration(folder: Path, task: str, model_settings: Mapping[str, Any]) -> None:
    """Write the `configuration.json` of a checkpoint."""
    configuration = {
        "framework": "pytorch",
        "task": task,
        "model": model_settings,
        "pipeline": {"type": PIPELINE_TYPES.get(task, task)},
    }
    (folder / "configuration.json").write_text(json.dumps(configuration, indent=2))
