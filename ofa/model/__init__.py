"""OFA's network with the module names of the published state dicts; no generation here."""

from ofa.model.config import ModelConfig
from ofa.model.ofa_model import OFAModel

__all__ = ["ModelConfig", "OFAModel"]
