"""The network as it is exported: the same results from fewer and faster operations.

Models are read, trained and understood as `ofa.model` has them. An export replaces what is slow
there, module by module; each replacement says in its docstring what it stands for.
"""

from __future__ import annotations

import torch
from torch import nn

from ofa.generation.beam_decoder import BeamDecoder
from ofa.lowering.attention_by_head import AttentionByHead
from ofa.lowering.half_vocabulary import HalfVocabulary
from ofa.lowering.packed_conv import PackedResNet
from ofa.lowering.packed_linear import PackedLinear, PackedVocabulary
from ofa.model.attention import Attention
from ofa.model.decoder import DecoderLayer
from ofa.model.encoder import EncoderLayer
from ofa.model.resnet import ResNet
from ofa.model.sharing import copy_sharing_tensors

__all__ = ["lower"]


def lower(generator: nn.Module, image_size: int, dtype: torch.dtype) -> nn.Module:
    """A generator for CPUs, made from one as checkpoints give it.

    With a narrow `dtype`, a ResNet stem, the layers' products and attention use it. What they are
    added to, norms of that sum, position biases, logits and scores stay float32.

    Args:
        generator: is not changed.
        image_size: side in pixels of the pictures that it will get.
        dtype: float32 or bfloat16.
    """
    lowered = copy_sharing_tensors(generator)
    for module in list(lowered.modules()):
        is_layer = isinstance(module, (Attention, EncoderLayer, DecoderLayer))
        for name, child in list(module.named_children()):
            # Not its subclasses, which do something else.
            if type(child) is nn.Linear:
                own = dtype if is_layer or name == "image_proj" else torch.float32
                setattr(module, name, PackedLinear(child.weight, child.bias, own))
            elif isinstance(child, ResNet):
                setattr(module, name, PackedResNet(child, image_size, dtype))
        if isinstance(module, EncoderLayer):
            module.self_attn.product = AttentionByHead(module.self_attn.scale)
        # Label scorers ask for the logits of few tokens, and those of codes are a part.
        if isinstance(module, BeamDecoder):
            embedding = module.decoder.embed_tokens.weight
            is_narrow = dtype != torch.float32
            module.decoder.vocabulary_projection = (
                HalfVocabulary(embedding) if is_narrow else PackedVocabulary(embedding)
            )
    return lowered
