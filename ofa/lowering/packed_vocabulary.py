"""The projection onto the vocabulary, with its weights laid out for the processor."""

from __future__ import annotations

from torch import Tensor, nn


class PackedVocabulary(nn.Module):
    """`VocabularyProjection` of one embedding [V, D], which a layer has packed."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        """[items, ..., D] to [items, ..., V]; the embedding is packed already."""
        logits: Tensor = self.linear(x)
        return logits
