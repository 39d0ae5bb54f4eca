"""The model while it is trained: its first weights, and one pass over a batch of many tasks."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from ofa.model import ModelConfig, OFAModel
from ofa.model.attention import Attention
from training.batches import ALPHABET, BACKGROUND_CELL, Batch
from training.vocabulary import NUM_BINS, NUM_CODES, vocab_size

# Bins this far apart start out with a cosine of 0.6.
BIN_BLUR = 15.0


def model_config(tokenizer: Tokenizer) -> ModelConfig:
    """The smallest of OFA's shapes that holds a few hundred things."""
    return ModelConfig(
        vocab_size=vocab_size(tokenizer),
        d_model=192,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        resnet_type="resnet18",
    )


def initialise(model: OFAModel) -> None:
    """Random weights to start from: unit-variance logits, no relative bias, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    # Neighbouring bins start out similar, so that they learn from each other.
    waves = torch.arange(NUM_BINS)[:, None] * torch.randn(model.config.d_model // 2) / BIN_BLUR
    bins = torch.cat([waves.cos(), waves.sin()], dim=1) * (2 / model.config.d_model) ** 0.5
    with torch.no_grad():
        model.encoder.embed_tokens.weight[-NUM_BINS:] = bins
    for stack in (model.encoder, model.decoder):
        for table in [*stack.token_rel_pos_table_list, *stack.image_rel_pos_table_list]:
            nn.init.zeros_(table.weight)


def normalise(images: Tensor) -> Tensor:
    """uint8 pixels to [-1, 1], as OFA's preprocessing with mean and std 0.5 does."""
    return (images.float() / 255 - 0.5) / 0.5


class Outputs(NamedTuple):
    """What a batch gives; P pictures, N rows of a task.

    Attributes:
        logits: float [N, T, V] by task.
        cells: logits [P, cells, things + 1].
        letters: logits [P, cells, 26].
        boxes: [N, cells, 5] of the rows of `grounding`, if there are any: the box of what a cell
            shows, and the logit of its being asked for.
        looks: [N, S, S] by task whose questions name things: scores of the first layer's first head
            before their softmax.
        gazes: [N, T, S] by task about scenes: the same of the last decoder layer's first head, when
            it looks at the source.
    """

    logits: dict[str, Tensor]
    cells: Tensor
    letters: Tensor
    boxes: Tensor | None
    looks: dict[str, Tensor]
    gazes: dict[str, Tensor]


class Trainee(nn.Module):
    """The model and three auxiliary heads that are thrown away after training.

    Two read each patch out of `image_proj`, before any attention: which thing it shows, and which
    letters. They give the stem a dense signal from the first step, which saves most of the time
    that captions alone would need to make attention find the things. The third reads out of the
    encoder where a patch's thing is and whether it is asked for: positions are only in attention
    biases, and answers alone take long to bring them and the question into the patches' states.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = OFAModel(config)
        initialise(self.model)
        self.cell_head = nn.Linear(config.d_model, BACKGROUND_CELL + 1)
        self.letter_head = nn.Linear(config.d_model, len(ALPHABET))
        self.box_head = nn.Linear(config.d_model, 5)
        self._asking = torch.empty(0)
        last_layer = self.model.decoder.layers[-1]
        last_layer.cross_attn_layer_norm.register_forward_hook(self._keep_asking)

    def _keep_asking(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        """Takes note of what the last decoder layer asks the source with, [N, T, D]."""
        self._asking = output

    def forward(self, batch: Batch) -> Outputs:
        """One pass over a batch; the stem sees each picture once, whatever is asked about it."""
        encoder = self.model.encoder
        images = normalise(batch.images).contiguous(memory_format=torch.channels_last)
        features = encoder.embed_images(images)
        patches = encoder.image_proj(features.flatten(2).transpose(1, 2))
        embedded = encoder.patch_layernorm_embedding(patches + encoder.type_embedding.weight[1])
        logits, boxes, looks, gazes = {}, None, {}, {}
        for task, rows in batch.rows.items():
            x, grid, _ = encoder.embed(None, rows.source_ids)
            if len(rows.pictures):
                x, grid = torch.cat([embedded[rows.pictures], x], dim=1), features.size(2)
            positions = encoder.position_states(grid, grid, rows.source_ids.size(1))
            bias = encoder.attention_bias(positions, grid, grid)
            padding_mask = encoder.padding_mask(rows.source_ids, grid * grid)
            if len(rows.finds):
                looks[task] = self.looks(x, padding_mask, bias)
            hidden = encoder.run_layers(x, padding_mask, bias)
            logits[task] = self.model.decoder(
                rows.decoder_input_ids, hidden, padding_mask, positions
            )
            if len(rows.sees):
                gazes[task] = self.gazes(hidden, padding_mask, positions)
            if task == "grounding":
                boxes = self.box_head(hidden[:, : grid * grid])
        cells, letters = self.cell_head(patches), self.letter_head(patches)
        return Outputs(logits, cells, letters, boxes, looks, gazes)

    def looks(self, x: Tensor, padding_mask: Tensor, bias: Tensor) -> Tensor:
        """Scores of the encoder's first head, [N, S, S], for embedded sources [N, S, D].

        They can be taught directly which word names what a patch shows.
        """
        layer = self.model.encoder.layers[0]
        normed = layer.self_attn_layer_norm(x)
        return first_head_scores(layer.self_attn, normed, normed, bias[0, 0], padding_mask)

    def gazes(self, hidden: Tensor, padding_mask: Tensor, positions: Tensor) -> Tensor:
        """Scores of the last decoder layer's first head over the source, [N, T, S].

        They can be taught directly where to look for what is to be said next.
        """
        bias = self.model.decoder.cross_attention_bias(self._asking.size(1), positions)
        attention = self.model.decoder.layers[-1].cross_attn
        return first_head_scores(attention, self._asking, hidden, bias[0], padding_mask)


def first_head_scores(
    attention: Attention, asking: Tensor, asked: Tensor, bias: Tensor, padding_mask: Tensor
) -> Tensor:
    """What the first head of an attention has before its softmax, [N, T, S].

    Args:
        attention: whose head it is.
        asking: [N, T, D].
        asked: [N, S, D].
        bias: [T, S].
        padding_mask: bool [N, S].
    """
    first_head = slice(0, attention.head_dim)
    queries, keys = (
        F.linear(x, projection.weight[first_head], projection.bias[first_head])
        for x, projection in ((asking, attention.q_proj), (asked, attention.k_proj))
    )
    scores = attention.scale * (queries @ keys.transpose(1, 2)) + bias
    return scores.masked_fill(padding_mask[:, None, :], float("-inf"))


def load_weights(path: Path, trainee: Trainee) -> None:
    """Takes up the weights of a saved state."""
    trainee.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["trainee"])


def warm_start(path: Path, old: Tokenizer, trainee: Trainee, new: Tokenizer) -> None:
    """Takes up the weights of a state with another vocabulary: tokens keep their rows.

    Tokens that the old vocabulary lacks keep the random rows they have.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)["trainee"]
    names = [name for name in state if name.endswith("embed_tokens.weight")]
    shared = {token: index for token, index in new.get_vocab().items() if token in old.get_vocab()}
    new_rows = [*shared.values(), *range(vocab_size(new) - NUM_CODES - NUM_BINS, vocab_size(new))]
    old_rows = [old.get_vocab()[token] for token in shared]
    old_rows += range(vocab_size(old) - NUM_CODES - NUM_BINS, vocab_size(old))
    for name in names:
        rows = trainee.state_dict()[name].clone()
        rows[new_rows] = state[name][old_rows]
        state[name] = rows
    trainee.load_state_dict(state)


def move_stem(path: Path, trainee: Trainee, share: float) -> None:
    """Moves the stem's weights and statistics towards those of a state, by a share of the way.

    Fine-tuned weights and those they came from can be averaged: Wortsman et al., "Robust
    fine-tuning of zero-shot models" (CVPR 2022).
    """
    state = torch.load(path, map_location="cpu", weights_only=True)["trainee"]
    prefix = "model.encoder.embed_images."
    for name, tensor in trainee.state_dict().items():
        if name.startswith(prefix) and tensor.is_floating_point():
            tensor.lerp_(state[name], share)
