"""Which module stands in for which on a CPU, in every precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ofa.generation.beam_decoder import BeamDecoder
from ofa.lowering.attention_by_head import AttentionByHead
from ofa.lowering.attention_by_query import AttentionByQuery
from ofa.lowering.attention_of_beams import AttentionOfBeams
from ofa.lowering.folded_resnet import FoldedResNet
from ofa.lowering.fused_attention import fuse_self_attention
from ofa.lowering.half_linear import HalfLinear
from ofa.lowering.int8_linear import Int8Linear
from ofa.lowering.packed_conv import PackedResNet
from ofa.lowering.packed_linear import PackedLinear
from ofa.lowering.packed_vocabulary import PackedVocabulary
from ofa.model.attention import Attention
from ofa.model.decoder import DecoderLayer
from ofa.model.encoder import EncoderLayer
from ofa.model.resnet import ResNet
from ofa.model.sharing import copy_sharing_tensors


class CpuPrecision(NamedTuple):
    """What a precision stands for.

    Attributes:
        dtype: of a ResNet stem, the layers' products and attention.
        make_stem: from a stem, the side of its pictures and the dtype, what stands in for it.
        make_step_linear: from weight and bias, a layer of the decoder that every step reads.
        make_vocabulary_linear: likewise, the projection onto the vocabulary.
    """

    dtype: torch.dtype
    make_stem: Callable[[ResNet, int, torch.dtype], nn.Module]
    make_step_linear: Callable[[Tensor, Tensor | None], nn.Module]
    make_vocabulary_linear: Callable[[Tensor, Tensor | None], nn.Module]


def _packed(dtype: torch.dtype) -> Callable[[Tensor, Tensor | None], nn.Module]:
    return lambda weight, bias: PackedLinear(weight, bias, dtype)


CPU_PRECISIONS = {
    "float32": CpuPrecision(
        torch.float32, PackedResNet, _packed(torch.float32), _packed(torch.float32)
    ),
    "bfloat16": CpuPrecision(torch.bfloat16, FoldedResNet, _packed(torch.bfloat16), HalfLinear),
    # No processor that was tried multiplies float16 faster than float32: it halves what is read.
    "float16": CpuPrecision(torch.float32, PackedResNet, HalfLinear, HalfLinear),
    "int8": CpuPrecision(torch.bfloat16, FoldedResNet, Int8Linear, HalfLinear),
}

#: Layers of a decoder layer that read the source once, not at every step.
_SOURCE_LINEARS = ("cross_attn.k_proj", "cross_attn.v_proj")


def lower_for_cpu(generator: nn.Module, image_size: int, precision: CpuPrecision) -> nn.Module:
    """A lowered copy, see `ofa.lowering.lower`."""
    lowered = copy_sharing_tensors(generator)
    fuse_self_attention(lowered)
    for module in list(lowered.modules()):
        if isinstance(module, DecoderLayer):
            _lower_step_linears(module, precision)
            module.cross_attn.product = AttentionOfBeams(module.cross_attn.scale)
        if isinstance(module, BeamDecoder):
            _lower_beam_decoder(module, precision)
        if isinstance(module, EncoderLayer):
            module.self_attn.product = AttentionByHead(module.self_attn.scale)
        is_layer = isinstance(module, (Attention, EncoderLayer))
        for name, child in list(module.named_children()):
            # Not its subclasses, which do something else.
            if type(child) is nn.Linear:
                own = precision.dtype if is_layer or name == "image_proj" else torch.float32
                setattr(module, name, PackedLinear(child.weight, child.bias, own))
            elif isinstance(child, ResNet):
                setattr(module, name, precision.make_stem(child, image_size, precision.dtype))
    return lowered


def _lower_step_linears(layer: DecoderLayer, precision: CpuPrecision) -> None:
    for path, child in list(layer.named_modules()):
        if type(child) is nn.Linear and path not in _SOURCE_LINEARS:
            layer.set_submodule(path, precision.make_step_linear(child.weight, child.bias))


def _lower_beam_decoder(beam_decoder: BeamDecoder, precision: CpuPrecision) -> None:
    """What a search over texts alone does.

    Label scorers ask for the logits of few tokens, and have several queries a row. Logits of codes
    are a part of the vocabulary's, and histories of codes are long.
    """
    decoder = beam_decoder.decoder
    linear = precision.make_vocabulary_linear(decoder.embed_tokens.weight, None)
    decoder.vocabulary_projection = PackedVocabulary(linear)
    for layer in decoder.layers:
        layer.self_attn.product = AttentionByQuery(layer.self_attn.scale)
