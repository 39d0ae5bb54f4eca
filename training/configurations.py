"""The configuration files of the bundled checkpoints, in ModelScope's format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from training.batches import MAX_IMAGE_SIZE
from training.tasks import PROMPTS
from training.things import load_things
from training.vocabulary import first_bin_id, vocab_size

# ModelScope's pipelines whose names are not their tasks'.
PIPELINES = {"ocr-recognition": "ofa-ocr-recognition", "text-summarization": "text-generation"}
# ModelScope's numbering: of SNLI-VE for pictures, of MNLI for texts.
ENTAILMENT_LABELS = {"no": 0, "yes": 1, "maybe": 2}
TEXT_CLASSIFICATION_LABELS = {"maybe": 0, "yes": 1, "no": 2}


def _configuration(
    task: str, image_size: int, beam_search: Mapping[str, Any], **model: object
) -> dict[str, Any]:
    """One task's file; `model` adds to what all have in common."""
    common = {
        "type": "ofa",
        "language": "en",
        "patch_image_size": image_size,
        "max_image_size": MAX_IMAGE_SIZE,
        "imagenet_default_mean_and_std": False,
        "gen_type": "generation",
        "num_return_sequences": 1,
    }
    defaults = {"beam_size": 5, "max_len_b": 16, "min_len": 1, "no_repeat_ngram_size": 3}
    return {
        "framework": "pytorch",
        "task": task,
        "model": {**common, **model, "beam_search": {**defaults, **beam_search}},
        "pipeline": {"type": PIPELINES.get(task, task)},
    }


def english_files(tokenizer: Tokenizer, image_size: int) -> dict[str, Any]:
    """Contents of the English checkpoint's JSON files by path."""
    names = {thing.name: index for index, thing in enumerate(load_things())}
    bins = f"{first_bin_id(tokenizer)},{vocab_size(tokenizer)}"
    by_label = {"gen_type": "traverse", "prompt_type": "prev_output"}

    def configure(task: str, beam_search: Mapping[str, Any], **model: object) -> dict[str, Any]:
        return _configuration(task, image_size, beam_search, **model)

    return {
        "configuration.json": configure("image-captioning", {}),
        "tasks/vqa.json": configure("visual-question-answering", {}),
        "tasks/grounding.json": configure(
            "visual-grounding",
            {"max_len_b": 4, "min_len": 4, "no_repeat_ngram_size": 0, "constraint_range": bins},
        ),
        "tasks/entailment.json": configure(
            "visual-entailment", {}, **by_label, answer2label="tasks/entailment_labels.json"
        ),
        "tasks/entailment_labels.json": ENTAILMENT_LABELS,
        "tasks/classification.json": configure(
            "image-classification",
            {},
            gen_type="traverse",
            prompt=PROMPTS["classification"],
            answer2label="tasks/classification_labels.json",
        ),
        "tasks/classification_labels.json": names,
        "tasks/ocr.json": configure(
            "ocr-recognition", {"no_repeat_ngram_size": 0}, prompt=PROMPTS["ocr"]
        ),
        "tasks/summarization.json": configure("text-summarization", {}),
        "tasks/text_classification.json": configure(
            "text-classification",
            {},
            **by_label,
            answer2label="tasks/text_classification_labels.json",
        ),
        "tasks/text_classification_labels.json": TEXT_CLASSIFICATION_LABELS,
        "tasks/generate.json": configure("generate", {}),
    }


def chinese_files(image_size: int) -> dict[str, Any]:
    """Contents of the Chinese checkpoint's JSON files by path."""
    configuration = _configuration(
        "image-captioning",
        image_size,
        {"max_len_b": 32, "no_repeat_ngram_size": 0},
        language="zh",
        prompt=PROMPTS["caption_zh"],
        num_return_sequences=2,
    )
    return {"configuration.json": configuration}


def write_files(files: Mapping[str, Any], folder: Path) -> None:
    """Writes every file below a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / path).write_text(text, encoding="utf-8")
