"""ModelScope's captioning pipeline, built from a folder on the CPU."""

import logging
from pathlib import Path
from typing import Any

import tests.reference.oracle.environment  # noqa: F401  # stand-ins before modelscope

from modelscope.pipelines import pipeline  # isort: skip
from modelscope.utils.constant import Tasks  # isort: skip

# ModelScope sets its logger's level anew in every module, and says ten lines a pipeline.
logging.disable(logging.WARNING)


def build_pipeline(folder: Path) -> Any:
    """The pipeline of a captioning checkpoint in ModelScope's layout, float32, on the CPU."""
    return pipeline(Tasks.image_captioning, model=str(folder), device="cpu")
