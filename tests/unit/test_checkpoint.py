"""What a checkpoint folder may look like, and the sentence for each that it may not."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ofa.checkpoint import load_checkpoint
from ofa.errors import CheckpointError
from ofa.model import OFAModel
from ofa.model.positions import code_buckets, token_buckets
from ofa.options import OptionLimits
from ofa.tasks import TASKS
from tests.unit import tiny

State = dict[str, Tensor]

WEIGHTS = "pytorch_model.bin"
TIED = [
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
]


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def change_weights(folder: Path, change: Callable[[State], State | None]) -> None:
    """Write the weights again after `change`, which edits them or returns others."""
    state = torch.load(folder / WEIGHTS, weights_only=True)
    torch.save(change(state) or state, folder / WEIGHTS)


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: t for name, t in state.items() if not name.endswith(names)}


def assert_same_weights(model: OFAModel, expected: OFAModel) -> None:
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == state[name].dtype
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name]), name


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith("ofa_tiny: ")
    assert "\n" not in message
    return message.removeprefix("ofa_tiny: ")


def test_a_modelscope_folder_is_read(checkpoint_folder: Path, tiny_model: OFAModel) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    assert_same_weights(checkpoint.model, tiny_model)
    assert checkpoint.model.config == tiny_model.config
    assert not any(module.training for module in checkpoint.model.modules())
    assert checkpoint.task_config.defaults == tiny.make_options(num_hypotheses=2)
    content = (checkpoint_folder / WEIGHTS).read_bytes()
    assert checkpoint.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_a_hugging_face_folder_is_read_with_the_librarys_defaults(
    checkpoint_folder: Path, tiny_model: OFAModel
) -> None:
    (checkpoint_folder / "configuration.json").unlink()
    # The default of 480 pixels is a grid of 30 x 30.
    model = tiny.make_model(tiny.make_config(image_bucket_size=30))
    torch.save(model.state_dict(), checkpoint_folder / WEIGHTS)
    change_json(checkpoint_folder / "config.json", lambda c: c.update(image_bucket_size=30))
    checkpoint = load_checkpoint(checkpoint_folder)
    assert_same_weights(checkpoint.model, model)
    defaults = checkpoint.task_config.defaults
    assert (defaults.num_hypotheses, defaults.beam_size, defaults.max_length) == (1, 5, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(
    checkpoint_folder: Path, tiny_model: OFAModel, dtype: torch.dtype
) -> None:
    def halve(state: State) -> State:
        return {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }

    change_weights(checkpoint_folder, halve)
    model = load_checkpoint(checkpoint_folder).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = OFAModel(tiny_model.config)
    expected.load_state_dict({n: t.to(dtype) for n, t in tiny_model.state_dict().items()})
    assert_same_weights(model, expected)


BUCKETS = {
    "token_rp_bucket": token_buckets(256, 1024),
    "image_rp_bucket": code_buckets(6, 6, 6),
}


def with_buffers(state: State) -> State:
    buffers = {
        f"{side}.{name}": buckets
        for side in ("encoder", "decoder")
        for name, buckets in BUCKETS.items()
    }
    return {**state, **buffers, "decoder.image_position_idx": torch.zeros(1025).long()}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"model.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        without("num_batches_tracked"),
        without(TIED[1], TIED[2]),
        without(TIED[0], TIED[2]),
        without(TIED[0], TIED[1]),
        with_buffers,
    ],
    ids=[
        "prefix model",
        "prefix module",
        "no batch counters",
        "only the encoder's embedding",
        "only the decoder's embedding",
        "only the output projection",
        "stored buffers",
    ],
)
def test_harmless_differences_are_accepted(
    checkpoint_folder: Path, tiny_model: OFAModel, change: Callable[[State], State]
) -> None:
    change_weights(checkpoint_folder, change)
    assert_same_weights(load_checkpoint(checkpoint_folder).model, tiny_model)


def test_embeddings_stay_one_matrix(checkpoint_folder: Path) -> None:
    model = load_checkpoint(checkpoint_folder).model
    assert model.encoder.embed_tokens is model.decoder.embed_tokens
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in OFAModel(model.config).parameters()
    )


def test_a_file_of_an_old_torch_is_read(checkpoint_folder: Path, tiny_model: OFAModel) -> None:
    state = tiny.published_state(tiny_model)
    torch.save(state, checkpoint_folder / WEIGHTS, _use_new_zipfile_serialization=False)
    assert_same_weights(load_checkpoint(checkpoint_folder).model, tiny_model)


def test_safetensors_are_read_and_preferred(checkpoint_folder: Path, tiny_model: OFAModel) -> None:
    path = checkpoint_folder / "model.safetensors"
    save_file(tiny.published_state(tiny_model), path)
    (checkpoint_folder / WEIGHTS).write_bytes(b"not looked at")
    checkpoint = load_checkpoint(checkpoint_folder)
    assert_same_weights(checkpoint.model, tiny_model)
    assert checkpoint.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_stored_stem_path_is_ignored(checkpoint_folder: Path, tiny_model: OFAModel) -> None:
    """The reference would load a pickle from it."""
    change_json(
        checkpoint_folder / "config.json", lambda c: c.update(resnet_model_path="/nowhere.pth")
    )
    assert_same_weights(load_checkpoint(checkpoint_folder).model, tiny_model)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^checkpoint folder .*nowhere does not exist$"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "merges.txt"])
def test_a_missing_file_is_refused(checkpoint_folder: Path, name: str) -> None:
    (checkpoint_folder / name).unlink()
    assert refusal(checkpoint_folder) == f"{name} is missing"


def test_missing_weights_are_refused(checkpoint_folder: Path) -> None:
    (checkpoint_folder / WEIGHTS).unlink()
    assert refusal(checkpoint_folder) == "model.safetensors or pytorch_model.bin is missing"


@pytest.mark.parametrize("name", ["config.json", "configuration.json"])
def test_malformed_json_is_refused(checkpoint_folder: Path, name: str) -> None:
    (checkpoint_folder / name).write_text("{'d_model': 32}", "utf-8")
    assert refusal(checkpoint_folder).startswith(f"{name} cannot be read: Expecting property name")
    (checkpoint_folder / name).write_bytes(b"\xff\xfe{}")
    assert refusal(checkpoint_folder).startswith(f"{name} cannot be read: 'utf-8' codec")
    (checkpoint_folder / name).write_text("[1]", "utf-8")
    assert refusal(checkpoint_folder) == f"{name} must hold an object"


@pytest.mark.parametrize("task", ["sudoku", "text2sql", "auto-speech-recognition"])
def test_the_task_of_another_model_is_refused(checkpoint_folder: Path, task: str) -> None:
    change_json(checkpoint_folder / "configuration.json", lambda c: c.update(task=task))
    assert refusal(checkpoint_folder) == (
        f"configuration.json: task {task!r} is not supported; supported are {', '.join(TASKS)}"
    )


def test_a_folder_without_a_task_of_its_own_takes_any_prompt(checkpoint_folder: Path) -> None:
    configuration = checkpoint_folder / "configuration.json"
    for change in (lambda c: c.update(task="ofa-pretrained-tasks"), lambda c: c.pop("task")):
        change_json(configuration, change)
        assert load_checkpoint(checkpoint_folder).task_config.task == "generate"
        checkpoint = load_checkpoint(checkpoint_folder, task="image-captioning")
        assert checkpoint.task_config.task == "image-captioning"


def test_another_configuration_can_be_read(checkpoint_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "vqa.json"
    other.write_text('{"task": "visual-question-answering", "model": {"patch_image_size": 32}}')
    config = load_checkpoint(checkpoint_folder, configuration=other).task_config
    assert (config.task, config.patch_image_size) == ("visual-question-answering", 32)
    other.unlink()
    with pytest.raises(CheckpointError, match=r"vqa\.json is missing"):
        load_checkpoint(checkpoint_folder, configuration=other)


def write_labels(folder: Path, content: str, **model: Any) -> None:
    (folder / "labels.json").write_text(content, "utf-8")
    change_json(
        folder / "configuration.json",
        lambda c: c["model"].update({"answer2label": "labels.json", **model}),
    )


def test_labels_keep_the_order_of_their_file(checkpoint_folder: Path) -> None:
    write_labels(checkpoint_folder, '{"yes": 9, "no": 2, "a small dog": 5}')
    assert load_checkpoint(checkpoint_folder).labels == ("yes", "no", "a small dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "labels.json holds no labels"),
        ('["yes", "no"]', "labels.json must hold an object"),
    ],
)
def test_malformed_labels_are_refused(checkpoint_folder: Path, content: str, message: str) -> None:
    write_labels(checkpoint_folder, content)
    assert refusal(checkpoint_folder) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"猫": 0, "Dog": 1, "dog": 2}', "'Dog' and 'dog' have the same tokens"),
        ('{"猫": 0, " ": 1}', "the label ' ' has no tokens"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(
    checkpoint_folder: Path, content: str, message: str
) -> None:
    num_entries = len(json.loads((checkpoint_folder / "vocab.json").read_text("utf-8")))
    words = ["<s>", "<pad>", "</s>", "<unk>", "猫", "dog"]
    words += [f"word{number}" for number in range(num_entries - len(words) - 1)] + ["<mask>"]
    (checkpoint_folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    write_labels(checkpoint_folder, content, language="zh")
    assert refusal(checkpoint_folder) == f"labels.json: {message}"


def test_labels_outside_of_the_folder_are_refused(checkpoint_folder: Path) -> None:
    write_labels(checkpoint_folder, "{}", answer2label="../labels.json")
    assert refusal(checkpoint_folder) == (
        "configuration.json: answer2label '../labels.json' is outside of the folder"
    )


def test_labels_and_a_range_of_tokens_exclude_each_other(checkpoint_folder: Path) -> None:
    write_labels(checkpoint_folder, '{"yes": 0}', beam_search={"constraint_range": "4,9"})
    assert refusal(checkpoint_folder) == (
        "configuration.json: answer2label and beam_search.constraint_range exclude each other"
    )


def test_a_picture_that_outgrows_the_position_table_is_refused(checkpoint_folder: Path) -> None:
    path = checkpoint_folder / "configuration.json"
    change_json(path, lambda c: c["model"].update(patch_image_size=97))
    assert refusal(checkpoint_folder) == (
        "configuration.json: patch_image_size is 97; the position table allows 1 to 96"
    )
    change_json(path, lambda c: c["model"].update(patch_image_size=96))
    load_checkpoint(checkpoint_folder)


def test_a_vocabulary_of_another_size_is_refused(checkpoint_folder: Path) -> None:
    change_json(checkpoint_folder / "vocab.json", lambda v: v.update({"madeup": len(v)}))
    assert refusal(checkpoint_folder) == (
        "config.json has vocab_size 9593, but vocab.json with codes and bins gives 9594"
    )


def test_a_range_outside_of_the_vocabulary_is_refused(checkpoint_folder: Path) -> None:
    search = {"beam_search": {"constraint_range": "58457,59457"}}
    change_json(checkpoint_folder / "configuration.json", lambda c: c["model"].update(search))
    with pytest.raises(CheckpointError, match=r"constraint_range ends at 59457; the vocabulary"):
        load_checkpoint(checkpoint_folder)


def test_an_unknown_task_is_refused(checkpoint_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"task 'caption' is not supported; known are image-"):
        load_checkpoint(checkpoint_folder, task="caption")


@pytest.mark.parametrize("task", ["visual-grounding", "text-summarization"])
def test_a_prompt_without_a_place_for_the_text_is_refused(
    checkpoint_folder: Path, task: str
) -> None:
    prompt = {"prompt": " what does the image describe?"}
    change_json(checkpoint_folder / "configuration.json", lambda c: c["model"].update(prompt))
    checkpoint = load_checkpoint(checkpoint_folder, task=task)
    with pytest.raises(CheckpointError, match=r"has no {} for the caller's text"):
        checkpoint.build_task(checkpoint.default_limits())


def test_an_empty_prompt_is_one(checkpoint_folder: Path) -> None:
    """The reference falls back to its own only where there is none."""
    change_json(checkpoint_folder / "configuration.json", lambda c: c["model"].update(prompt=""))
    checkpoint = load_checkpoint(checkpoint_folder)
    task = checkpoint.build_task(checkpoint.default_limits())
    row = task.preprocess(task.example_request())
    assert row["source_ids"].tolist() == [task.tokenizer.bos_id, task.tokenizer.eos_id]


def test_other_special_ids_are_refused(checkpoint_folder: Path) -> None:
    change_json(checkpoint_folder / "config.json", lambda c: c.update(eos_token_id=5))
    assert refusal(checkpoint_folder) == (
        "config.json numbers BOS, PAD and EOS (0, 1, 5), but vocab.json (0, 1, 2)"
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "use_gamma_feature",
            True,
            "config.json: use_gamma_feature=True is not supported (only False is)",
        ),
        ("w_resid", 1, "config.json: unknown field w_resid; it may change the mathematics"),
        ("encoder_layers", 0, "config.json: encoder_layers must be positive, got 0"),
        (
            "encoder_layers",
            3,
            "the weights lack 23 tensors, such as encoder.image_rel_pos_table_list.2.weight",
        ),
        (
            "share_attn_bias",
            True,
            "the weights hold 4 unknown tensors, such as decoder.image_rel_pos_table_list.1.weight",
        ),
        (
            "encoder_ffn_dim",
            48,
            "tensor encoder.layers.0.fc1.weight has shape [64, 32]; config.json asks for [48, 32]",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    checkpoint_folder: Path, field: str, value: object, message: str
) -> None:
    change_json(checkpoint_folder / "config.json", lambda c: c.update({field: value}))
    assert refusal(checkpoint_folder) == message


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[name] = change(state[name])

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(*TIED), "the weights lack encoder.embed_tokens.weight"),
        (
            without("encoder.pos_ln.weight"),
            "the weights lack 1 tensors, such as encoder.pos_ln.weight",
        ),
        (
            lambda state: {**state, "encoder.w_resid": torch.ones(3)},
            "the weights hold 1 unknown tensors, such as encoder.w_resid",
        ),
        (
            replaced("encoder.pos_ln.weight", lambda tensor: tensor[:-1]),
            "tensor encoder.pos_ln.weight has shape [31]; config.json asks for [32]",
        ),
        (
            replaced(TIED[2], lambda tensor: tensor + 1e-3),
            f"the weights differ between {' and '.join(TIED)}",
        ),
        (
            replaced(TIED[1], lambda tensor: tensor[1:]),
            f"the weights differ between {' and '.join(TIED)}",
        ),
        (
            lambda state: {
                name: tensor[1:] if name in TIED else tensor for name, tensor in state.items()
            },
            f"tensor {TIED[0]} has shape [9592, 32]; config.json asks for [9593, 32]",
        ),
    ],
    ids=[
        "no embedding",
        "missing",
        "unknown",
        "other shape",
        "untied",
        "untied shape",
        "other vocabulary",
    ],
)
def test_weights_that_do_not_fit_are_refused(
    checkpoint_folder: Path, change: Callable[[State], State | None], message: str
) -> None:
    change_weights(checkpoint_folder, change)
    assert refusal(checkpoint_folder) == message


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("name", BUCKETS)
@pytest.mark.parametrize(
    "change",
    [lambda t: t.flip(0), lambda t: t[1:], lambda t: t[0], lambda t: t[0, 0]],
    ids=["other values", "smaller", "one row", "one number"],
)
def test_a_bucket_buffer_of_another_function_is_refused(
    checkpoint_folder: Path, side: str, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    buffer = f"{side}.{name}"
    change_weights(checkpoint_folder, lambda state: {**state, buffer: change(BUCKETS[name])})
    assert refusal(checkpoint_folder) == f"{buffer} is not OFA's bucket function"


class Malice:
    """Runs a program when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("as_torch_file", [True, False])
def test_a_pickle_that_runs_a_program_is_refused(
    checkpoint_folder: Path, tiny_model: OFAModel, tmp_path: Path, as_torch_file: bool
) -> None:
    witness = tmp_path / "witness"
    content = {**tiny_model.state_dict(), "encoder.extra": Malice(witness)}
    if as_torch_file:
        torch.save(content, checkpoint_folder / WEIGHTS)
    else:
        (checkpoint_folder / WEIGHTS).write_bytes(pickle.dumps(content))
    assert refusal(checkpoint_folder) == (
        "pytorch_model.bin is not a weight file that can be read safely"
    )
    assert not witness.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped"])
def test_a_damaged_weight_file_is_refused(
    checkpoint_folder: Path, tiny_model: OFAModel, name: str, damage: str
) -> None:
    path = checkpoint_folder / name
    if name == "model.safetensors":
        save_file(tiny.published_state(tiny_model), path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "garbage": b"garbage " * 1000,
            "flipped": bytes(byte ^ 0x55 for byte in content[:5000]) + content[5000:],
        }[damage]
    )
    assert refusal(checkpoint_folder) == f"{name} is not a weight file that can be read safely"


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {7: torch.ones(2)}], ids=str)
def test_a_file_of_something_else_is_refused(checkpoint_folder: Path, content: object) -> None:
    torch.save(content, checkpoint_folder / WEIGHTS)
    assert refusal(checkpoint_folder) == "pytorch_model.bin must hold tensors by name"


def test_default_limits_are_the_folders_own(checkpoint_folder: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    limits = checkpoint.default_limits()
    assert limits == OptionLimits(max_beam_size=3, max_length=8)
    settings = checkpoint.build_task(limits).settings
    assert settings.limits == limits
    assert settings.prompt == " what does the image describe?"
    assert settings.patch_image_size == tiny.IMAGE_SIZE


def test_the_folders_prompt_replaces_the_tasks(checkpoint_folder: Path) -> None:
    change_json(
        checkpoint_folder / "configuration.json", lambda c: c["model"].update(prompt=" a dog?")
    )
    checkpoint = load_checkpoint(checkpoint_folder)
    assert checkpoint.build_task(checkpoint.default_limits()).settings.prompt == " a dog?"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (OptionLimits(2, 8), "the largest beam size is 2; the checkpoint's own beam size is 3"),
        (OptionLimits(3, 7), "the largest length is 7; the checkpoint's own length is 8"),
        (OptionLimits(3, 64), "the largest length is 64; the position table allows up to 63"),
    ],
)
def test_limits_that_do_not_fit_are_refused(
    checkpoint_folder: Path, limits: OptionLimits, message: str
) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.build_task(limits)
    assert str(caught.value) == message
    checkpoint.build_task(OptionLimits(max_beam_size=9, max_length=63))


def test_a_length_that_grows_with_the_prompt_counts_its_longest(checkpoint_folder: Path) -> None:
    change_json(
        checkpoint_folder / "configuration.json",
        lambda c: c["model"].update(
            max_src_length=20, beam_search={"max_len_a": 2.5, "max_len_b": 8}
        ),
    )
    checkpoint = load_checkpoint(checkpoint_folder)
    checkpoint.build_task(OptionLimits(5, 8))  # 8 + 2.5 * (20 + 2) = 63
    with pytest.raises(CheckpointError, match="the largest length is 64"):
        checkpoint.build_task(OptionLimits(5, 9))


def test_bucket_distances_bound_a_longer_position_table(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    model = tiny.make_model(tiny.make_config(max_position_embeddings=1100))
    tiny.write_checkpoint(tmp_path, model, tokenizer_folder)
    checkpoint = load_checkpoint(tmp_path)
    checkpoint.build_task(OptionLimits(3, 1023))
    with pytest.raises(CheckpointError, match="the position table allows up to 1023"):
        checkpoint.build_task(OptionLimits(3, 1024))


def test_prompts_that_outgrow_the_position_table_are_refused(checkpoint_folder: Path) -> None:
    def read(max_src_length: int) -> None:
        change_json(
            checkpoint_folder / "configuration.json",
            lambda c: c["model"].update(max_src_length=max_src_length),
        )
        checkpoint = load_checkpoint(checkpoint_folder)
        checkpoint.build_task(checkpoint.default_limits())

    read(62)  # 64 with BOS and EOS
    with pytest.raises(CheckpointError, match="max_src_length is 63; the position table has room"):
        read(63)


@pytest.mark.parametrize("task", ["image-classification", "text-classification"])
def test_traverse_needs_labels(checkpoint_folder: Path, task: str) -> None:
    change_json(
        checkpoint_folder / "configuration.json",
        lambda c: (c.update(task=task), c["model"].update(gen_type="traverse")),
    )
    checkpoint = load_checkpoint(checkpoint_folder)
    with pytest.raises(CheckpointError, match="gen_type traverse needs labels"):
        checkpoint.build_task(checkpoint.default_limits())
    write_labels(checkpoint_folder, '{"yes": 0, "no": 1}')
    checkpoint = load_checkpoint(checkpoint_folder)
    task_settings = checkpoint.build_task(checkpoint.default_limits()).settings
    assert task_settings.defaults.num_hypotheses == 2
    assert task_settings.search == "traverse"


def test_a_label_that_outgrows_the_position_table_is_refused(checkpoint_folder: Path) -> None:
    change_json(
        checkpoint_folder / "configuration.json",
        lambda c: (
            c.update(task="visual-entailment"),
            c["model"].update(gen_type="traverse", prompt_type="src"),
        ),
    )
    write_labels(checkpoint_folder, '{"yes": 0, "' + "0 " * 20 + '": 1}')
    checkpoint = load_checkpoint(checkpoint_folder)
    with pytest.raises(CheckpointError, match=r"the label '0 .*' has \d+ tokens; .* room for 8$"):
        checkpoint.build_task(checkpoint.default_limits())
