"""Search: from an encoded picture to ranked hypotheses."""

from ofa.generation.generator import Generator, TextGenerator

__all__ = ["Generator", "TextGenerator"]
