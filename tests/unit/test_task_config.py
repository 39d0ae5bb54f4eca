import math
import sys
from typing import Any

import pytest

from ofa.errors import CheckpointError
from ofa.options import GenerationOptions
from ofa.task_config import SearchConfig, TaskConfig

REFERENCE_DEFAULTS = GenerationOptions(
    num_hypotheses=1,
    beam_size=5,
    max_length=16,
    min_length=1,
    no_repeat_ngram_size=3,
    length_penalty=1.0,
    temperature=1.0,
)


def read(model: Any = None, **values: Any) -> TaskConfig:
    return TaskConfig.from_dict(values if model is None else {"model": model, **values})


def test_nothing_said_gives_the_references_defaults() -> None:
    assert read() == TaskConfig(
        task="",
        language="en",
        gen_type="generation",
        prompt=None,
        prompt_type="none",
        label_file=None,
        patch_image_size=480,
        max_image_size=512,
        is_document=False,
        pixel_mean=(0.5, 0.5, 0.5),
        pixel_std=(0.5, 0.5, 0.5),
        max_source_length=256,
        defaults=REFERENCE_DEFAULTS,
        search=SearchConfig(
            max_length_a=0.0, match_source_length=False, normalize_scores=True, unk_penalty=0.0
        ),
    )


def test_everything_said_is_read() -> None:
    config = read(
        {
            "type": "ofa",
            "language": "cn",
            "prompt": " what do you see?",
            "prompt_type": "prev_output",
            "answer2label": "answers.json",
            "is_document": True,
            "patch_image_size": 256,
            "max_image_size": 384,
            "imagenet_default_mean_and_std": True,
            "max_src_length": 80,
            "num_return_sequences": 2,
            "seed": 7,
            "gen_type": "traverse",
            "beam_search": {
                "beam_size": 10,
                "max_len_a": 1,
                "max_len_b": 20,
                "min_len": 2,
                "no_repeat_ngram_size": 0,
                "len_penalty": 0.98,
                "temperature": 0.9,
                "normalize_scores": False,
                "unk_penalty": 3,
                "match_source_len": True,
                "constraint_range": "58457,59457",
            },
        },
        framework="pytorch",
        task="image-captioning",
        pipeline={"type": "image-captioning"},
    )
    assert config == TaskConfig(
        task="image-captioning",
        language="zh",
        gen_type="traverse",
        prompt=" what do you see?",
        prompt_type="prev_output",
        label_file="answers.json",
        patch_image_size=256,
        max_image_size=384,
        is_document=True,
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
        max_source_length=80,
        defaults=GenerationOptions(
            num_hypotheses=2,
            beam_size=10,
            max_length=20,
            min_length=2,
            no_repeat_ngram_size=0,
            length_penalty=0.98,
            temperature=0.9,
        ),
        search=SearchConfig(
            max_length_a=1.0,
            match_source_length=True,
            normalize_scores=False,
            unk_penalty=3.0,
            constraint_range=(58457, 59457),
        ),
    )
    assert type(config.search.max_length_a) is float


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([], "model must be an object, got []"),
        ({"beam_search": None}, "beam_search must be an object, got None"),
        ({"beam_search": [5]}, "beam_search must be an object, got [5]"),
        ({"language": "fr"}, "model.language='fr' is not supported (only 'en', 'zh', 'cn')"),
        (
            {"gen_type": "sampling"},
            "model.gen_type='sampling' is not supported (only 'generation', 'traverse')",
        ),
        (
            {"prompt_type": 1},
            "model.prompt_type=1 is not supported (only 'none', 'prev_output', 'src')",
        ),
        (
            {"multimodal_type": "mmspeech"},
            "model.multimodal_type='mmspeech' is not supported (only 'default')",
        ),
        (
            {"answer2label": {"yes": 1}},
            "answer2label must be of type str, got {'yes': 1}",
        ),
        ({"prompt": 7}, "prompt must be of type str, got 7"),
        ({"patch_image_size": "480"}, "patch_image_size must be of type int, got '480'"),
        ({"patch_image_size": True}, "patch_image_size must be of type int, got True"),
        (
            {"imagenet_default_mean_and_std": 1},
            "imagenet_default_mean_and_std must be of type bool, got 1",
        ),
        (
            {"max_src_length": -3},
            "max_src_length is -3; it must be finite and at least 1",
        ),
        ({"max_image_size": 0}, "max_image_size is 0; it must be finite and at least 1"),
        ({"num_return_sequences": 6}, "num_return_sequences is 6; allowed are 1 to beam_size, 5"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0; allowed are 1 to beam_size, 5"),
    ],
    ids=str,
)
def test_malformed_values_are_refused(model: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(model)
    assert str(caught.value) == f"configuration.json: {message}"


@pytest.mark.parametrize(
    ("beam_search", "message"),
    [
        ({"beam_size": 2.5}, "beam_size must be of type int, got 2.5"),
        ({"beam_size": 0}, "num_return_sequences is 1; allowed are 1 to beam_size, 0"),
        ({"temperature": "hot"}, "temperature must be of type float, got 'hot'"),
        ({"normalize_scores": 1}, "normalize_scores must be of type bool, got 1"),
        ({"min_len": 17}, "min_len is 17; allowed are 0 to max_len_b, 16"),
        ({"min_len": -1}, "min_len is -1; allowed are 0 to max_len_b, 16"),
        (
            {"temperature": 0},
            "beam_search: temperature is 0; allowed are 0.01 to 100",
        ),
        (
            {"len_penalty": 11},
            "beam_search: length_penalty is 11; allowed are -10 to 10",
        ),
        (
            {"no_repeat_ngram_size": -1},
            "beam_search: no_repeat_ngram_size is -1; allowed are 0 to 16",
        ),
        ({"max_len_a": -1.0}, "max_len_a is -1.0; it must be finite and at least 0.0"),
        ({"max_len_a": math.inf}, "max_len_a is inf; it must be finite and at least 0.0"),
        (
            {"unk_penalty": math.nan},
            f"unk_penalty is nan; it must be finite and at least {-sys.float_info.max}",
        ),
        ({"diverse_beams": 2}, "unknown key beam_search.diverse_beams"),
        ({"gen_box": True}, "beam_search.gen_box=True is not supported"),
        ({"gen_code": True}, "beam_search.gen_code=True is not supported"),
        ({"ignore_eos": True}, "beam_search.ignore_eos=True is not supported"),
        ({"zero_shot": True}, "beam_search.zero_shot=True is not supported"),
        (
            {"constraint_range": "4-21134"},
            "beam_search.constraint_range must read FIRST,END, got '4-21134'",
        ),
        (
            {"constraint_range": "9,9"},
            "beam_search.constraint_range is '9,9'; allowed are 4 <= FIRST < END",
        ),
    ],
    ids=str,
)
def test_malformed_searches_are_refused(beam_search: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read({"beam_search": beam_search})
    assert str(caught.value) == f"configuration.json: {message}"


def test_an_ngram_size_beyond_the_length_is_allowed() -> None:
    """It bars nothing, and the reference takes it."""
    config = read({"beam_search": {"max_len_b": 2, "no_repeat_ngram_size": 3}})
    assert config.defaults.no_repeat_ngram_size == 3
