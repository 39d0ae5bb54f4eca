"""A checkpoint folder, as ModelScope or Hugging Face publish it, to a model ready to run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ofa.checkpoint_files import read_json, read_pickle, read_tensors
from ofa.errors import CheckpointError
from ofa.generation import Generator, LabelScorer, TextGenerator, TextLabelScorer
from ofa.model import ModelConfig, OFAModel
from ofa.model.positions import MAX_TEXT_LENGTH, code_buckets, token_buckets
from ofa.options import OptionLimits
from ofa.synthesis import build_image_generator
from ofa.task_config import TaskConfig
from ofa.tasks import TASKS, Task, TaskSettings
from ofa.tasks.task import padded_length
from ofa.tokenizer import Tokenizer, load_tokenizer

#: In order of preference, as transformers has it.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
#: Trainers save the network under one of these.
_PREFIXES = ("model.", "module.")
#: One matrix under three names; a file may hold any of them.
_TIED_NAMES = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)
#: Published under OFA's name, but other models: speech, number puzzles, database queries.
_OTHER_TASKS = ("auto-speech-recognition", "sudoku", "text2sql")
#: The task of a folder that was not made for a particular one.
_PRETRAINED = "generate"
#: Tasks whose prompts or answers hold codes or bins.
_CODED_TASKS = ("visual-grounding", "text-to-image-synthesis", _PRETRAINED)
#: Labels that are returned with their probabilities when a request names no number.
_NUM_LABELS = 5


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was read and found consistent.

    Attributes:
        folder: where the tokenizer files are.
        model: the network in float32, in evaluation mode.
        task_config: what the folder says of its task.
        labels: what the answer is one of, in the order of their file; empty if it can be anything.
        weights_sha256: of the weight file, in hexadecimal.
    """

    folder: Path
    model: OFAModel
    task_config: TaskConfig
    labels: tuple[str, ...]
    weights_sha256: str

    def default_limits(self) -> OptionLimits:
        """Bounds of an export that names none: the folder's own beam and length."""
        defaults = self.task_config.defaults
        return OptionLimits(defaults.beam_size, defaults.max_length)

    def build_task(self, limits: OptionLimits) -> Task:
        """Pre- and postprocessing for an export with the given bounds.

        Raises:
            CheckpointError: a bound is below the folder's own default, or above what the position
                tables hold; or a setting does not do for the task.
        """
        config = self.task_config
        task = TASKS[config.task]
        for name, bound, default in (
            ("beam size", limits.max_beam_size, config.defaults.beam_size),
            ("length", limits.max_length, config.defaults.max_length),
        ):
            if bound < default:
                raise CheckpointError(
                    f"the largest {name} is {bound}; the checkpoint's own {name} is {default}"
                )
        search = task.search(config.gen_type)
        defaults = config.defaults
        num_positions = min(self.model.config.max_position_embeddings, MAX_TEXT_LENGTH)
        longest_prompt = task.longest_prompt(config.max_source_length) + 2  # BOS and EOS
        if padded_length(longest_prompt) > num_positions:
            raise CheckpointError(
                f"configuration.json: max_src_length is {config.max_source_length}; the position "
                f"table has room for prompts of {num_positions} tokens with BOS, EOS and padding"
            )
        longest = limits.max_length + int(config.search.max_length_a * longest_prompt)
        if search == "beam" and longest >= num_positions:
            raise CheckpointError(
                f"the largest length is {longest}; the position table allows up to "
                f"{num_positions - 1}"
            )
        if search == "traverse":
            if not self.labels:
                raise CheckpointError(
                    "configuration.json: gen_type traverse needs labels, but names no answer2label"
                )
            self._check_labels_fit(padded_length(longest_prompt), num_positions)
            defaults = replace(defaults, num_hypotheses=min(_NUM_LABELS, len(self.labels)))
        if search == "sampling":
            # As many as the reference draws, which returns the best of them.
            defaults = replace(defaults, num_hypotheses=defaults.beam_size)
        settings = TaskSettings(
            task=config.task,
            language=config.language,
            search=search,
            prompt=task.default_prompt if config.prompt is None else config.prompt,
            prompt_type=task.decoder_prompt_type(config.gen_type, config.prompt_type),
            labels=self.labels,
            patch_image_size=config.patch_image_size,
            max_image_size=config.max_image_size,
            is_document=config.is_document,
            max_source_length=config.max_source_length,
            defaults=defaults,
            limits=limits,
        )
        return task(settings, self.folder)

    def _check_labels_fit(self, prompt_length: int, num_positions: int) -> None:
        """Refuse labels that do not fit behind the longest prompt."""
        tokenizer = load_tokenizer(self.task_config.language, self.folder)
        longest = max(self.labels, key=lambda label: len(tokenizer.encode_label(label)))
        num_tokens = len(tokenizer.encode_label(longest))
        if prompt_length + num_tokens > num_positions:
            raise CheckpointError(
                f"the label {longest!r} has {num_tokens} tokens; behind the longest prompt the "
                f"position table has room for {num_positions - prompt_length}"
            )

    def build_generator(self) -> nn.Module:
        """The network with its search, in evaluation mode.

        Raises:
            CheckpointError: what text to image needs beside OFA is missing or malformed.
        """
        config = self.task_config
        task = TASKS[config.task]
        tokenizer = load_tokenizer(config.language, self.folder)
        if task.search(config.gen_type) == "sampling":
            return build_image_generator(self.folder, self.model, config, tokenizer)
        prompt_type = task.decoder_prompt_type(config.gen_type, config.prompt_type)
        search = replace(config.search, prompt_type=prompt_type)
        labels = [tokenizer.encode_label(label) for label in self.labels]
        pixels = (config.pixel_mean, config.pixel_std)
        generator: nn.Module
        match task.search(config.gen_type), task.has_picture():
            case "traverse", True:
                generator = LabelScorer(self.model, *pixels, prompt_type, labels)
            case "traverse", False:
                generator = TextLabelScorer(self.model, prompt_type, labels)
            case "beam", True:
                generator = Generator(self.model, search, *pixels, tokenizer.unk_id, labels)
            case _:
                generator = TextGenerator(self.model, search, tokenizer.unk_id, labels)
        return generator.eval()


def load_checkpoint(
    folder: Path, configuration: Path | None = None, task: str | None = None
) -> Checkpoint:
    """Read a checkpoint folder.

    Args:
        folder: as published.
        configuration: read in place of the folder's own `configuration.json`, because one weight
            file may do several tasks.
        task: ModelScope's name of a task, to be used in place of the configuration's.

    Raises:
        CheckpointError: a file is missing or malformed, the files contradict each other, or the
            folder asks for what is not supported.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint folder {folder} does not exist")
    try:
        config = ModelConfig.from_dict(read_json(folder / "config.json"))
        task_config = _read_task_config(folder, configuration, task)
        tokenizer = load_tokenizer(task_config.language, folder)
        _check_vocabulary(config, task_config, tokenizer)
        labels = _read_labels(folder, task_config, tokenizer)
        _check_patch_grid(config, task_config)
        weights = _find_weights(folder)
        model = _load_model(config, _read_weights(weights))
    except CheckpointError as error:
        raise CheckpointError(f"{folder.name}: {error}") from error
    return Checkpoint(folder, model, task_config, labels, _sha256(weights))


def _read_task_config(folder: Path, configuration: Path | None, task: str | None) -> TaskConfig:
    path = configuration or folder / "configuration.json"
    # Hugging Face's folders have no such file.
    is_there = configuration is not None or path.exists()
    values = read_json(path) if is_there else {}
    if task is not None:
        if task not in TASKS:
            raise CheckpointError(f"task {task!r} is not supported; known are {', '.join(TASKS)}")
        return TaskConfig.from_dict({**values, "task": task})
    config = TaskConfig.from_dict(values)
    if config.task in _OTHER_TASKS:
        raise CheckpointError(
            f"configuration.json: task {config.task!r} is not supported; "
            f"supported are {', '.join(TASKS)}"
        )
    # A folder that names no task that anyone could ask for is a pretrained model.
    return config if config.task in TASKS else replace(config, task=_PRETRAINED)


def _read_labels(folder: Path, task_config: TaskConfig, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Labels in the order of their file; the numbers that stand beside them play no part."""
    name = task_config.label_file
    if name is None:
        return ()
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"configuration.json: answer2label {name!r} is outside of the folder")
    labels = tuple(read_json(folder / name))
    if not labels:
        raise CheckpointError(f"{name} holds no labels")
    if task_config.search.constraint_range is not None:
        raise CheckpointError(
            "configuration.json: answer2label and beam_search.constraint_range exclude each other"
        )
    by_ids: dict[tuple[int, ...], str] = {}
    for label in labels:
        ids = tuple(tokenizer.encode_label(label))
        if ids in by_ids:
            raise CheckpointError(f"{name}: {by_ids[ids]!r} and {label!r} have the same tokens")
        if not ids:
            raise CheckpointError(f"{name}: the label {label!r} has no tokens")
        by_ids[ids] = label
    return labels


def _check_vocabulary(config: ModelConfig, task_config: TaskConfig, tokenizer: Tokenizer) -> None:
    sizes = [tokenizer.vocab_size]
    # ModelScope adds codes and bins to every preprocessor's tokenizer, but not to that of an
    # ofasys model (`ofa_for_all_tasks.py`), which may do without rows for them.
    if config.use_ofasys and task_config.task not in _CODED_TASKS:
        sizes.append(tokenizer.first_code_id)
    if config.vocab_size not in sizes:
        raise CheckpointError(
            f"config.json has vocab_size {config.vocab_size}, but {tokenizer.files[0]} with "
            f"codes and bins gives {tokenizer.vocab_size}"
        )
    bounds = task_config.search.constraint_range
    if bounds is not None and bounds[1] > config.vocab_size:
        raise CheckpointError(
            f"configuration.json: beam_search.constraint_range ends at {bounds[1]}; "
            f"the vocabulary has {config.vocab_size} tokens"
        )
    ours = (config.bos_token_id, config.pad_token_id, config.eos_token_id)
    theirs = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id)
    if ours != theirs:
        raise CheckpointError(
            f"config.json numbers BOS, PAD and EOS {ours}, but {tokenizer.files[0]} {theirs}"
        )


def _check_patch_grid(config: ModelConfig, task_config: TaskConfig) -> None:
    sizes = config.picture_sizes
    if task_config.patch_image_size not in sizes:
        raise CheckpointError(
            f"configuration.json: patch_image_size is {task_config.patch_image_size}; "
            f"the position table allows {sizes[0]} to {sizes[-1]}"
        )


def _find_weights(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{' or '.join(WEIGHT_FILES)} is missing")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name as stored, without a trainer's prefix."""
    tensors = read_tensors(path, load_file if path.suffix == ".safetensors" else read_pickle)
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _load_model(config: ModelConfig, tensors: dict[str, Tensor]) -> OFAModel:
    with torch.device("meta"):
        model = OFAModel(config)
    expected = model.state_dict()
    tensors[_TIED_NAMES[0]] = tensors[_TIED_NAMES[1]] = _take_tied(tensors).float()
    _take_buffers(config, tensors)
    for name in expected:
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.tensor(0))
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"the weights lack {len(missing)} tensors, such as {missing[0]}")
    if surplus:
        raise CheckpointError(
            f"the weights hold {len(surplus)} unknown tensors, such as {surplus[0]}"
        )
    for name, meta in expected.items():
        if tensors[name].shape != meta.shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(tensors[name].shape)}; "
                f"config.json asks for {list(meta.shape)}"
            )
        tensors[name] = tensors[name].to(meta.dtype)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _take_tied(tensors: dict[str, Tensor]) -> Tensor:
    """Remove the token embedding's names and return the matrix."""
    found = [tensors.pop(name) for name in _TIED_NAMES if name in tensors]
    if not found:
        raise CheckpointError(f"the weights lack {_TIED_NAMES[0]}")
    if not all(torch.equal(found[0], other) for other in found[1:]):
        raise CheckpointError(f"the weights differ between {' and '.join(_TIED_NAMES)}")
    return found[0]


def _take_buffers(config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Remove what can be computed, after a look whether it says the same."""
    size = config.image_bucket_size
    token_pairs = token_buckets(config.token_bucket_size, MAX_TEXT_LENGTH)
    cell_pairs = code_buckets(size, size, size)
    for side in ("encoder", "decoder"):
        stored = tensors.pop(f"{side}.token_rp_bucket", token_pairs)
        if not torch.equal(stored, token_pairs):
            raise CheckpointError(f"{side}.token_rp_bucket is not OFA's bucket function")
        stored = tensors.pop(f"{side}.image_rp_bucket", cell_pairs)
        if not torch.equal(stored, cell_pairs):
            raise CheckpointError(f"{side}.image_rp_bucket is not OFA's bucket function")
    tensors.pop("decoder.image_position_idx", None)
