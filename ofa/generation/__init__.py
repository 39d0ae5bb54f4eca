"""Search: from an encoded source to ranked hypotheses, or to the probabilities of labels."""

from ofa.generation.generator import Generator, TextGenerator
from ofa.generation.label_scorer import LabelScorer, TextLabelScorer

__all__ = ["Generator", "LabelScorer", "TextGenerator", "TextLabelScorer"]
