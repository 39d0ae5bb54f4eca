"""ModelScope's captioning pipeline, built from a folder on the CPU."""

import logging
from pathlib import Path
from typing import Any

import tests.reference.oracle.environment  # noqa: F401  # stand-ins before modelscope

import transformers  # isort: skip
from modelscope.pipelines import pipeline  # isort: skip
from modelscope.utils.constant import Tasks  # isort: skip
from modelscope.utils.logger import get_logger  # isort: skip

get_logger().setLevel(logging.ERROR)
transformers.utils.logging.set_verbosity(transformers.logging.CRITICAL)


def build_pipeline(folder: Path) -> Any:
    """The pipeline of a captioning checkpoint in ModelScope's layout, float32, on the CPU."""
    return pipeline(Tasks.image_captioning, model=str(folder), device="cpu")
