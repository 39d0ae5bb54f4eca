"""`configuration.json` of a checkpoint folder: the task, its prompt, its picture, its search.

Defaults are the library defaults of modelscope (`ofa_for_all_tasks.py`, `generate/`,
`preprocessors/ofa/base.py`); a folder without the file, as Hugging Face has it, gets them all.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ofa.errors import CheckpointError, InvalidOptionError
from ofa.options import GenerationOptions, OptionLimits, resolve_options
from ofa.tokenizer import NUM_SPECIAL_TOKENS

#: Keys of `model.beam_search` that become defaults of the request options, and those that are
#: fixed at export.
_READ_KEYS = frozenset(
    {
        *("beam_size", "max_len_b", "min_len", "no_repeat_ngram_size", "len_penalty"),
        *("temperature", "max_len_a", "match_source_len", "normalize_scores", "unk_penalty"),
        "constraint_range",
    }
)
#: The task that has a search of its own, and the defaults of that.
_SAMPLING_TASK = "text-to-image-synthesis"
_SAMPLING_DEFAULTS: dict[str, Any] = {
    "beam_size": 2,
    "max_len_b": 1024,
    "min_len": 1024,
    "no_repeat_ngram_size": 0,
}
#: Keys of `model.beam_search` that no published checkpoint sets, with the value that switches them
#: off.
_UNUSED_KEYS: dict[str, Any] = {
    "gen_code": False,
    "gen_box": False,
    "ignore_eos": False,
    "zero_shot": False,
    "max_len": 0,
}

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SearchConfig:
    """What a checkpoint fixes of the search, beside the options of each request.

    Attributes:
        max_length_a: added to `max_length` for every token of the prompt, BOS and EOS counted.
        match_source_length: the prompt's length, EOS not counted, replaces `max_length`.
        normalize_scores: divide sums by length ** length_penalty.
        unk_penalty: subtracted from UNK's log-probability.
        constraint_range: first token id and the one after the last that may be generated beside
            the special tokens; None allows all.
        prompt_type: what the decoder starts with after BOS: "none", "prev_output" (the prompt
            without EOS) or "src" (the whole prompt).
    """

    max_length_a: float = 0.0
    match_source_length: bool = False
    normalize_scores: bool = True
    unk_penalty: float = 0.0
    constraint_range: tuple[int, int] | None = None
    prompt_type: str = "none"


@dataclass(frozen=True)
class TaskConfig:
    """One checkpoint's task, as its folder describes it.

    Attributes:
        task: ModelScope's name of the task; empty if the folder names none.
        language: "en" or "zh".
        gen_type: "generation" or "traverse".
        prompt: replaces the task's default prompt if there is one.
        prompt_type: "none", "prev_output" or "src"; only some tasks use it.
        label_file: name of the file of labels, if there is one.
        patch_image_size: pixels on a side of the square that the picture is resized to.
        max_image_size: pixels that the location tokens' range stands for.
        is_document: whether OCR reads a wide line of text.
        pixel_mean: subtracted from every channel, red first.
        pixel_std: divides every channel.
        max_source_length: most tokens of the prompt, BOS and EOS not counted.
        defaults: generation options of a request that names none.
        search: what else the folder says of the search.
    """

    task: str
    language: str
    gen_type: str
    prompt: str | None
    prompt_type: str
    label_file: str | None
    patch_image_size: int
    max_image_size: int
    is_document: bool
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    max_source_length: int
    defaults: GenerationOptions
    search: SearchConfig = field(default_factory=SearchConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskConfig:
        """Read the object in a `configuration.json`; {} gives the library's defaults.

        Raises:
            CheckpointError: a value is malformed or asks for what is not supported.
        """
        model = _object(values, "model")
        _choice(model, "multimodal_type", ("default",))
        language = _choice(model, "language", ("en", "zh", "cn"))
        imagenet = _typed(model, "imagenet_default_mean_and_std", default=False)
        task = _typed(values, "task", default="")
        beam_search = dict(_object(model, "beam_search"))
        if task == _SAMPLING_TASK:
            beam_search = {**_SAMPLING_DEFAULTS, **beam_search}
            if beam_search.pop("gen_code", True) is not True:
                raise CheckpointError("configuration.json: beam_search.gen_code must be true")
        defaults, search = _read_beam_search(
            beam_search, _typed(model, "num_return_sequences", default=1)
        )
        return cls(
            task=task,
            language="en" if language == "en" else "zh",
            gen_type=_choice(model, "gen_type", ("generation", "traverse")),
            prompt=_typed(model, "prompt", default="") if "prompt" in model else None,
            prompt_type=_choice(model, "prompt_type", ("none", "prev_output", "src")),
            label_file=_typed(model, "answer2label", default="") or None,
            patch_image_size=_typed(model, "patch_image_size", default=480),
            max_image_size=_at_least(model, "max_image_size", 1, default=512),
            is_document=_typed(model, "is_document", default=False),
            pixel_mean=_IMAGENET_MEAN if imagenet else _HALF,
            pixel_std=_IMAGENET_STD if imagenet else _HALF,
            max_source_length=_at_least(model, "max_src_length", 1, default=256),
            defaults=defaults,
            search=search,
        )


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under `key`; an empty one if there is none."""
    value = values.get(key, {})
    if not isinstance(value, Mapping):
        raise CheckpointError(f"configuration.json: {key} must be an object, got {value!r}")
    return value


_T = TypeVar("_T", bool, int, float, str)


def _typed(values: Mapping[str, Any], key: str, default: _T) -> _T:
    """The value of `key`, which must have its default's type (an integer does as a float)."""
    value = values.get(key, default)
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise CheckpointError(
            f"configuration.json: {key} must be of type {kind.__name__}, got {value!r}"
        )
    return value


_N = TypeVar("_N", int, float)


def _at_least(values: Mapping[str, Any], key: str, minimum: _N, default: _N) -> _N:
    """The finite number under `key`, of its default's type."""
    value = _typed(values, key, default)
    if not minimum <= value < math.inf:
        raise CheckpointError(
            f"configuration.json: {key} is {value}; it must be finite and at least {minimum}"
        )
    return value


def _choice(values: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    """The value of `key`, one of `choices`, of which the first is the default."""
    value = values.get(key, choices[0])
    if value not in choices:
        raise CheckpointError(
            f"configuration.json: model.{key}={value!r} is not supported "
            f"(only {', '.join(map(repr, choices))})"
        )
    return str(value)


def _read_range(value: object) -> tuple[int, int] | None:
    """The value of `constraint_range`, "first,end" or nothing."""
    if value is None or value == "":
        return None
    try:
        first, end = map(int, str(value).split(","))
    except ValueError as error:
        raise CheckpointError(
            f"configuration.json: beam_search.constraint_range must read FIRST,END, got {value!r}"
        ) from error
    if not NUM_SPECIAL_TOKENS <= first < end:
        raise CheckpointError(
            f"configuration.json: beam_search.constraint_range is {value!r}; allowed are "
            f"{NUM_SPECIAL_TOKENS} <= FIRST < END"
        )
    return first, end


def _read_beam_search(
    values: Mapping[str, Any], num_hypotheses: int
) -> tuple[GenerationOptions, SearchConfig]:
    defaults = GenerationOptions(
        num_hypotheses=num_hypotheses,
        beam_size=_typed(values, "beam_size", default=5),
        max_length=_typed(values, "max_len_b", default=16),
        min_length=_typed(values, "min_len", default=1),
        no_repeat_ngram_size=_typed(values, "no_repeat_ngram_size", default=3),
        length_penalty=_typed(values, "len_penalty", default=1.0),
        temperature=_typed(values, "temperature", default=1.0),
    )
    search = SearchConfig(
        max_length_a=_at_least(values, "max_len_a", 0.0, default=0.0),
        match_source_length=_typed(values, "match_source_len", default=False),
        normalize_scores=_typed(values, "normalize_scores", default=True),
        unk_penalty=_at_least(values, "unk_penalty", -sys.float_info.max, default=0.0),
        constraint_range=_read_range(values.get("constraint_range")),
    )
    for key, value in values.items():
        if key in _UNUSED_KEYS and value != _UNUSED_KEYS[key]:
            raise CheckpointError(
                f"configuration.json: beam_search.{key}={value!r} is not supported"
            )
        if key not in _UNUSED_KEYS and key not in _READ_KEYS:
            raise CheckpointError(f"configuration.json: unknown key beam_search.{key}")
    if not 1 <= defaults.num_hypotheses <= defaults.beam_size:
        raise CheckpointError(
            f"configuration.json: num_return_sequences is {num_hypotheses}; "
            f"allowed are 1 to beam_size, {defaults.beam_size}"
        )
    if not 0 <= defaults.min_length <= defaults.max_length:
        raise CheckpointError(
            f"configuration.json: min_len is {defaults.min_length}; "
            f"allowed are 0 to max_len_b, {defaults.max_length}"
        )
    limits = OptionLimits(defaults.beam_size, defaults.max_length)
    try:
        resolve_options(asdict(defaults), defaults, limits)
    except InvalidOptionError as error:
        raise CheckpointError(f"configuration.json: beam_search: {error}") from error
    return defaults, search
