"""Search: from an encoded picture to ranked hypotheses."""

from ofa.generation.generator import Generator

__all__ = ["Generator"]
