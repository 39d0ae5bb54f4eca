from typing import Any

import pytest

from ofa.errors import CheckpointError
from ofa.options import GenerationOptions
from ofa.task_config import SearchConfig, TaskConfig

REFERENCE_DEFAULTS = GenerationOptions(
    num_captions=1,
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
        task="image-captioning",
        language="en",
        prompt=None,
        patch_image_size=480,
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
            "language": "en",
            "prompt": " what do you see?",
            "patch_image_size": 256,
            "max_image_size": 512,
            "imagenet_default_mean_and_std": True,
            "max_src_length": 80,
            "num_return_sequences": 2,
            "seed": 7,
            "gen_type": "generation",
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
                "constraint_range": None,
            },
        },
        framework="pytorch",
        task="image-captioning",
        pipeline={"type": "image-captioning"},
    )
    assert config == TaskConfig(
        task="image-captioning",
        language="en",
        prompt=" what do you see?",
        patch_image_size=256,
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
        max_source_length=80,
        defaults=GenerationOptions(
            num_captions=2,
            beam_size=10,
            max_length=20,
            min_length=2,
            no_repeat_ngram_size=0,
            length_penalty=0.98,
            temperature=0.9,
        ),
        search=SearchConfig(
            max_length_a=1.0, match_source_length=True, normalize_scores=False, unk_penalty=3.0
        ),
    )
    assert type(config.search.max_length_a) is float


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([], "model must be an object, got []"),
        ({"beam_search": None}, "beam_search must be an object, got None"),
        ({"beam_search": [5]}, "beam_search must be an object, got [5]"),
        ({"language": "zh"}, "model.language='zh' is not supported (only 'en' is)"),
        (
            {"multimodal_type": "mmspeech"},
            "model.multimodal_type='mmspeech' is not supported (only 'default' is)",
        ),
        (
            {"answer2label": "ans2label.json"},
            "model.answer2label='ans2label.json' is not supported (only None is)",
        ),
        ({"prompt": 7}, "prompt must be of type str, got 7"),
        ({"patch_image_size": "480"}, "patch_image_size must be of type int, got '480'"),
        ({"patch_image_size": True}, "patch_image_size must be of type int, got True"),
        (
            {"imagenet_default_mean_and_std": 1},
            "imagenet_default_mean_and_std must be of type bool, got 1",
        ),
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
        ({"diverse_beams": 2}, "unknown key beam_search.diverse_beams"),
        ({"gen_box": True}, "beam_search.gen_box=True is not supported by this task"),
        ({"gen_code": True}, "beam_search.gen_code=True is not supported by this task"),
        ({"ignore_eos": True}, "beam_search.ignore_eos=True is not supported by this task"),
        ({"zero_shot": True}, "beam_search.zero_shot=True is not supported by this task"),
        (
            {"constraint_range": "4,21134"},
            "beam_search.constraint_range='4,21134' is not supported by this task",
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
