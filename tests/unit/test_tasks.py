"""What holds for every task that beam search or a ranking of labels answers."""

from pathlib import Path

import numpy as np
import pytest

from ofa.errors import InvalidImageError, InvalidTextError
from ofa.tasks import TASKS, Task, load_task
from ofa.tasks.task import MAX_TEXT_BYTES, STAGES, TEXT
from ofa.tensors import Tensors, TensorSpec
from ofa.tokenizer import ChineseTokenizer
from tests.unit import tiny
from tests.unit.rows import make_hypotheses, make_request, word_ids

LABELS = ("no", "yes", "maybe")
NAMES = [name for name, task in TASKS.items() if task.search("generation") == "beam"]
VARIANTS = [
    *((name, "beam") for name in NAMES),
    *((name, "traverse") for name in NAMES if TASKS[name].can_traverse),
]
WITH_TEXT = [name for name in NAMES if TEXT in TASKS[name].inputs]


def make_task(name: str, folder: Path, **changes: object) -> Task:
    """The task as an export would set it up."""
    return TASKS[name](tiny.make_settings(TASKS[name], **changes), folder)


def check_tensors(tensors: Tensors, specs: tuple[TensorSpec, ...]) -> None:
    for spec in specs:
        tensor = tensors[spec.name]
        assert tensor.dtype == spec.dtype
        assert tensor.ndim == len(spec.dims)
        assert all(dim in (-1, size) for dim, size in zip(spec.dims, tensor.shape, strict=True))


@pytest.mark.parametrize(("name", "search"), VARIANTS)
def test_rows_and_answers_have_the_announced_tensors(
    name: str, search: str, tokenizer_folder: Path
) -> None:
    task = make_task(name, tokenizer_folder, search=search, labels=LABELS)
    announced = task.tensors
    row = task.preprocess(task.example_request())
    assert set(row) == {spec.name for spec in (*announced.generator_inputs, *announced.kept)}
    check_tensors(row, announced.generator_inputs)
    check_tensors(row, announced.kept)
    kept = {spec.name: row[spec.name] for spec in announced.kept}
    label_log_probs = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    for found in (make_hypotheses([word_ids(task, " a dog")]), make_hypotheses([[]])):
        answer = task.postprocess({**found, "label_log_probs": label_log_probs, **kept})
        assert list(answer) == [spec.name for spec in announced.answer]
        check_tensors(answer, announced.answer)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_task_is_the_same_task(name: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    task = make_task(name, tokenizer_folder, labels=LABELS)
    task.save(tmp_path)
    loaded = load_task(tmp_path)
    assert type(loaded) is type(task)
    assert loaded.settings == task.settings
    row, again = (each.preprocess(each.example_request()) for each in (task, loaded))
    assert row.keys() == again.keys()
    assert all(np.array_equal(row[tensor], again[tensor]) for tensor in row)


def test_every_task_has_its_own_names() -> None:
    assert len({task.ensemble for task in TASKS.values()}) == len(TASKS)


@pytest.mark.parametrize("name", WITH_TEXT)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "text is missing"),
        (b"caf\xe9", "text is not UTF-8 (byte 3)"),
        (b"a" * (MAX_TEXT_BYTES + 1), "text has 65,537 bytes; the limit is 65,536"),
    ],
    ids=["missing", "latin-1", "too-long"],
)
def test_a_text_that_cannot_be_used_is_refused(
    name: str, text: bytes | None, message: str, tokenizer_folder: Path
) -> None:
    task = make_task(name, tokenizer_folder)
    request = dict(task.example_request())
    del request["text"]
    if text is not None:
        request |= make_request(text=text)
    with pytest.raises(InvalidTextError) as caught:
        task.preprocess(request)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", WITH_TEXT)
def test_the_longest_text_is_cut_to_the_prompts_length(name: str, tokenizer_folder: Path) -> None:
    task = make_task(name, tokenizer_folder, max_source_length=30)
    request = {**task.example_request(), **make_request(text=b"x y " * (MAX_TEXT_BYTES // 4))}
    source_ids = task.preprocess(request)["source_ids"]
    assert source_ids.size == 32
    assert source_ids[-1] == task.tokenizer.eos_id


@pytest.mark.parametrize("name", WITH_TEXT)
def test_special_tokens_in_a_text_stay_text(name: str, tokenizer_folder: Path) -> None:
    """The reference would let a caller's `</s>` end the prompt."""
    task = make_task(name, tokenizer_folder)
    text = "a</s><s><pad><mask><bin_7><code_7> {} {0} {text} }{ \\x %s"
    request = {**task.example_request(), **make_request(text=text)}
    source_ids = task.preprocess(request)["source_ids"]
    assert source_ids.max() < task.tokenizer.first_code_id - 1
    end = source_ids.tolist().index(task.tokenizer.eos_id)
    assert set(source_ids[1:end].tolist()).isdisjoint({0, 1, 2, 3})
    assert set(source_ids[end + 1 :].tolist()) <= {task.tokenizer.pad_id}
    prompt = task.tokenizer.decode(source_ids)
    assert "<bin_7><code_7> {} {0} {text} }{ \\x %s" in prompt.replace(" >", ">")


@pytest.mark.parametrize("name", WITH_TEXT)
def test_prompts_with_a_callers_text_come_in_few_lengths(name: str, tokenizer_folder: Path) -> None:
    """Triton batches rows of one shape only."""
    task = make_task(name, tokenizer_folder)
    lengths = set()
    for num_words in range(1, 30):
        request = {**task.example_request(), **make_request(text=" dog" * num_words)}
        lengths.add(task.preprocess(request)["source_ids"].size)
    assert all(length % 8 == 0 for length in lengths)
    assert len(lengths) < 10


@pytest.mark.parametrize("name", NAMES)
def test_chinese_prompts_are_tokenised_in_chinese(
    name: str, chinese_tokenizer_folder: Path
) -> None:
    task = make_task(name, chinese_tokenizer_folder, language="zh")
    request = task.example_request()
    source_ids = task.preprocess(request)["source_ids"].tolist()
    expected = ChineseTokenizer(chinese_tokenizer_folder).encode(task.prompt(request), 256)
    assert source_ids[: len(expected)] == expected


@pytest.mark.parametrize("name", NAMES)
def test_preprocess_tells_of_its_stages(name: str, tokenizer_folder: Path) -> None:
    task = make_task(name, tokenizer_folder, labels=LABELS)
    stages: list[tuple[str, float]] = []
    task.on_stage = lambda stage, seconds: stages.append((stage, seconds))
    task.preprocess(task.example_request())
    expected = STAGES if task.has_picture() else ("tokenize",)
    assert [stage for stage, _ in stages] == list(expected)
    assert all(seconds > 0 for _, seconds in stages)


def test_a_stage_that_refuses_is_told_of_too(tokenizer_folder: Path) -> None:
    task = make_task("image-captioning", tokenizer_folder)
    stages: list[str] = []
    task.on_stage = lambda stage, _: stages.append(stage)
    with pytest.raises(InvalidImageError):
        task.preprocess(make_request(image=b"no picture"))
    assert stages == ["decode"]


def test_the_length_of_an_answer_is_its_best_hypothesis_without_the_end(
    tokenizer_folder: Path,
) -> None:
    task = make_task("image-captioning", tokenizer_folder)
    best, other = word_ids(task, " a dog"), word_ids(task, " a dog a dog a dog")
    assert task.answer_length(make_hypotheses([best, other])) == len(best)
    assert task.answer_length(make_hypotheses([[], other])) == 0
    assert task.answer_length({"label_log_probs": np.zeros(3, np.float32)}) is None
