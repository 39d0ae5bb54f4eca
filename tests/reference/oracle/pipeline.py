"""ModelScope's pipelines, built from a folder on the CPU."""

import json
import logging
from pathlib import Path
from typing import Any

import tests.reference.oracle.environment  # noqa: F401  # stand-ins before modelscope

from modelscope.pipelines import pipeline  # isort: skip

# ModelScope sets its logger's level anew in every module, and says ten lines a pipeline.
logging.disable(logging.WARNING)

# Its preprocessors fail for these tasks without the prompt type "prev_output".
NEED_PREFIX = ("visual-entailment", "text-classification")


def build_pipeline(folder: Path) -> Any:
    """The pipeline of a checkpoint in ModelScope's layout, float32, on the CPU."""
    configuration = json.loads((folder / "configuration.json").read_text(encoding="utf-8"))
    built = pipeline(configuration["task"], model=str(folder), device="cpu")
    prompt_type = configuration["model"].get("prompt_type", "none")
    if configuration["task"] in NEED_PREFIX and prompt_type != "prev_output":
        _replace_prefix(built, prompt_type)
    return built


def _replace_prefix(built: Any, prompt_type: str) -> None:
    """Give the reference's model the sample that its preprocessor fails to build.

    The task's definition says what it holds: no forced tokens, and for the scoring of labels a
    decoder's prompt of BOS ("none") or of the whole source ("src").
    """
    preprocess = built.preprocessor.preprocess
    preprocess.prompt_type = "prev_output"

    def build_sample(data: dict[str, Any]) -> dict[str, Any]:
        sample = preprocess(data)
        del sample["prefix_token"]
        sample["decoder_prompt"] = sample["source"] if prompt_type == "src" else preprocess.bos_item
        return sample

    built.preprocessor.preprocess = build_sample


def use_prompt(built: Any, prompt: str) -> None:
    """Have a captioning or summarization pipeline send this, and say what comes as it is."""
    built.model.transtab = {}  # English captions lose no punctuation
    model = built.preprocessor.preprocess.cfg.model
    # Only the summarizer treats its prompt as a template.
    is_template = built.model.cfg.task == "text-summarization"
    model["prompt"] = prompt.replace("{", "{{").replace("}", "}}") if is_template else prompt
