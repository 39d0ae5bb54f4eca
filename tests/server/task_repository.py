"""Made-up checkpoints with a configuration for every task, exported into one repository.

One weight file in English, one in Chinese, one that draws and one of the 6B model's layout; what
else a checkpoint does is up to its configuration.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ofa.model import ModelConfig, OFAModel
from ofa.tokenizer import ChineseTokenizer
from ofa_server.cli import main
from tests.reference.checkpoints import RECIPES, Calibration, write_checkpoint
from tests.unit import tiny, tiny_drawing

#: Some begin alike, one is another's beginning.
LABELS = ("yes", "no", "maybe", "yes and no", "yes it is", "a red apple")
LABEL_FILE = "labels.json"
SEARCH = {"beam_size": 4, "max_len_b": 8}


class Export(NamedTuple):
    """What one ensemble was made from."""

    checkpoint: Path
    configuration: Path


def configurations(first_bin_id: int) -> dict[str, dict[str, Any]]:
    """The task and its own settings by the name of the ensemble, for the English weights."""
    labels = {"answer2label": LABEL_FILE}
    traverse = {**labels, "gen_type": "traverse"}
    # The prompt that an answer starts with counts as part of it.
    prefix = {"prompt_type": "prev_output", "beam_search": {**SEARCH, "max_len_b": 48}}
    return {
        "vqa": {"task": "visual-question-answering"},
        "vqa_list": {"task": "visual-question-answering", **labels},
        "vqa_traverse": {"task": "visual-question-answering", **traverse},
        "grounding": {"task": "visual-grounding", **_box_search(first_bin_id)},
        "entailment": {"task": "visual-entailment", **labels, **prefix},
        "classification": {"task": "image-classification", **traverse},
        "ocr": {"task": "ocr-recognition"},
        "summarization": {"task": "text-summarization"},
        "text_classification": {"task": "text-classification", **traverse, "prompt_type": "src"},
        "generate": {"task": "generate"},
    }


def chinese_configurations(first_bin_id: int) -> dict[str, dict[str, Any]]:
    """The same for the Chinese weights."""
    zh = {"language": "zh"}
    captions = {"task": "image-captioning", **zh, "num_return_sequences": 2}
    return {
        "caption_zh": captions,
        "grounding_zh": {"task": "visual-grounding", **zh, **_box_search(first_bin_id)},
        "ocr_zh": {"task": "ocr-recognition", **zh},
        "generate_zh": {"task": "generate", **zh},
    }


def _box_search(first_bin_id: int) -> dict[str, Any]:
    bins = {"constraint_range": f"{first_bin_id},{first_bin_id + 1000}"}
    return {"beam_search": {**SEARCH, **bins, "max_len_b": 4, "min_len": 4}}


def write_checkpoints(folder: Path) -> dict[str, Export]:
    """Writes all checkpoint folders and configurations.

    Returns:
        What to export by the name of the ensemble.
    """
    bpe, english, chinese, drawing = (
        folder / name for name in ("bpe", "english", "chinese", "drawing")
    )
    for directory in (bpe, english, chinese, drawing):
        directory.mkdir()
    num_entries = tiny.write_tokenizer(bpe)
    config = tiny.make_config(vocab_size=num_entries + tiny.NUM_CODES_AND_BINS)
    tiny.write_checkpoint(english, _make_model(config, seed=0), bpe)
    (english / LABEL_FILE).write_text(json.dumps({label: n for n, label in enumerate(LABELS)}))
    num_words = tiny.write_chinese_tokenizer(chinese)
    config = tiny.make_config(vocab_size=num_words + tiny.NUM_CODES_AND_BINS)
    tiny.write_checkpoint(chinese, _make_model(config, seed=1), bpe)
    for file in set(tiny.EnglishTokenizer.files) - set(ChineseTokenizer.files):
        (chinese / file).unlink()
    tiny_drawing.write_checkpoint(drawing, tiny_drawing.make_model(), bpe)
    exports = {
        name: _write_configuration(english, name, settings)
        for name, settings in configurations(num_entries + tiny.NUM_CODES_AND_BINS - 1000).items()
    }
    exports |= {
        name: _write_configuration(chinese, name, settings)
        for name, settings in chinese_configurations(config.vocab_size - 1000).items()
    }
    codes = {"max_len_b": tiny_drawing.NUM_CODES, "min_len": tiny_drawing.NUM_CODES}
    draw = {"task": "text-to-image-synthesis", "beam_search": {"beam_size": 3, **codes}}
    exports["text_to_image"] = _write_configuration(drawing, "text_to_image", draw)
    exports["caption_ofasys"] = _write_ofasys(folder / "ofasys")
    return exports


def _make_model(config: ModelConfig, seed: int) -> OFAModel:
    """Random weights that say something, boxes too."""
    model = tiny.make_model(config, seed)
    embedding = model.decoder.embed_tokens.weight.detach()
    # The range of location tokens leaves these two in, and random weights would choose them.
    embedding[[tiny.BOS, tiny.UNK]] = -embedding[tiny.EOS]
    # In this order, random weights would give every box the wrong way round.
    embedding[-1000:] = embedding[-1000:].flip(0)
    return model


def _write_ofasys(folder: Path) -> Export:
    """The 6B model's layout, small but for its ViT, of which there is no small one."""
    recipe = RECIPES["small-ofasys"]
    settings = {"patch_image_size": 64, "beam_search": SEARCH}
    write_checkpoint(folder, recipe, Calibration.load(recipe), settings)
    return Export(folder, folder / "configuration.json")


def _write_configuration(checkpoint: Path, name: str, settings: Mapping[str, Any]) -> Export:
    file = checkpoint / f"{name}.json"
    model = {
        "patch_image_size": tiny.IMAGE_SIZE,
        "max_src_length": 40,
        "beam_search": SEARCH,
        **{key: value for key, value in settings.items() if key != "task"},
    }
    file.write_text(json.dumps({"task": settings["task"], "model": model}), "utf-8")
    return Export(checkpoint, file)


def export_all(exports: Mapping[str, Export], repository: Path) -> None:
    """Exports under the names of the ensembles, in this process because torch is in it already."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    for name, (checkpoint, configuration) in exports.items():
        arguments = ["--configuration", str(configuration), "--name", name]
        status = main(
            [
                "export",
                str(checkpoint),
                "--precision",
                "float32",
                "--repository",
                str(repository),
                *arguments,
            ]
        )
        assert status == 0, name
    signal.signal(signal.SIGTERM, on_sigterm)
