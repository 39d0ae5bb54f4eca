"""What every recording says of the environment that made it."""

import importlib.metadata

PACKAGES = ("modelscope", "torch", "transformers", "tokenizers", "pillow", "numpy")


def versions() -> dict[str, str]:
    """Of the packages that decide what the reference says."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
