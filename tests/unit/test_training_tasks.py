"""What the small checkpoint is taught: every question has one true answer, as the task words it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ofa.image import resize_scene
from ofa.task_config import TaskConfig
from ofa.tasks import TASKS
from ofa.text import clean_caption, clean_sentence
from ofa.tokenizer import load_tokenizer
from training.batches import ALPHABET, letters_in_cells
from training.configurations import chinese_files, english_files
from training.looking import find_answer, find_words
from training.scenes import Placement, Scene, are_held_out, compose
from training.tasks import (
    ABOUT_SCENES,
    ABOUT_TEXTS,
    PROMPTS,
    QUALITIES,
    Example,
    claims,
    claims_given,
    questions,
    source_of,
)
from training.things import Thing, load_things
from training.vocabulary import (
    chinese_tokenizer,
    first_bin_id,
    save_tokenizer,
    task_corpus,
    train_tokenizer,
)
from training.words import Letter, compose_sign, load_words

APPLE = Thing("🍎", "a red apple", "红苹果")
GRAPES = Thing("🍇", "grapes", "葡萄")
CAT = Thing("🐈", "a cat", "猫")
STYLES_OF = tuple((thing, ("flat",)) for thing in load_things())


def scene_of(*centres: tuple[Thing, float, float]) -> Scene:
    return Scene(
        tuple(
            Placement(thing, "flat", x, y, 0.3, 0.0, 1.0, mirrored=False) for thing, x, y in centres
        ),
        background_seed=0,
    )


def random_examples(task: str, count: int = 200) -> list[Example]:
    """Examples of a task about random scenes; none has a box of its own."""
    examples = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        if task in ABOUT_TEXTS:
            examples.append(ABOUT_TEXTS[task](rng))
            continue
        num_things = 1 if task == "classification" else 1 + seed % 3
        scene = compose(rng, STYLES_OF, num_things, unseen=False)
        examples.append(ABOUT_SCENES[task](rng, scene, [(0.1, 0.2, 0.3, 0.4)] * num_things))
    return examples


def test_questions_about_two_things_have_the_answers_that_are_true() -> None:
    answers = dict(questions(scene_of((CAT, 0.7, 0.5), (APPLE, 0.2, 0.5)), GRAPES))
    assert answers["what is left of the cat?"] == "a red apple"
    assert answers["what is to the right of the red apple?"] == "a cat"
    assert answers["what is right of the cat?"] == "nothing"
    assert answers["what is on the left?"] == "a red apple"
    assert answers["how many things are there?"] == "two"
    assert answers["do you see grapes?"] == "no"
    assert "what is above the cat?" not in answers


def test_questions_about_three_things_name_neighbours_only() -> None:
    scene = scene_of((CAT, 0.8, 0.5), (APPLE, 0.2, 0.5), (GRAPES, 0.5, 0.5))
    answers = dict(questions(scene, Thing("🐕", "a dog", "狗")))
    assert answers["what is left of the grapes?"] == "a red apple"
    assert answers["what is right of the grapes?"] == "a cat"
    assert answers["what is in the middle?"] == "grapes"
    assert "what is left of the cat?" not in answers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_question_has_one_answer_and_every_claim_one_label(count: int) -> None:
    for seed in range(100):
        scene = compose(np.random.default_rng(seed), STYLES_OF, count, unseen=False)
        shown = {placement.thing for placement in scene.placements}
        absent = next(thing for thing in load_things() if thing not in shown)
        asked = [question for question, _ in questions(scene, absent)]
        assert len(asked) == len(set(asked))
        claimed = [text for texts in claims(scene, absent, "old").values() for text in set(texts)]
        assert len(claimed) == len(set(claimed))


def test_claims_about_a_scene() -> None:
    labelled = claims(scene_of((APPLE, 0.5, 0.2), (GRAPES, 0.5, 0.8)), CAT, "old")
    assert {"a red apple above grapes", "grapes below a red apple"} <= set(labelled["yes"])
    assert {"grapes above a red apple", "there is a cat", "a cat"} <= set(labelled["no"])
    assert set(labelled["maybe"]) == {"the red apple is old", "the grapes is old"}


def test_claims_that_follow_from_a_premise() -> None:
    labelled = claims_given(APPLE, "old", CAT)
    assert labelled["yes"] == ["the red apple is old"]
    assert labelled["no"] == ["the red apple is new"]
    assert set(labelled["maybe"]) == {"the red apple is cheap", "the cat is old"}
    assert all(QUALITIES[QUALITIES[quality]] == quality for quality in QUALITIES)


@pytest.mark.parametrize("task", [*ABOUT_SCENES, *ABOUT_TEXTS])
def test_texts_are_as_the_reference_cleans_them(task: str) -> None:
    clean = clean_sentence if task == "text_classification" else clean_caption
    for example in random_examples(task):
        assert all(clean(text, 256) == text for text in example.texts)


@pytest.mark.parametrize("task", ["caption", "grounding", "summarization", "text_classification"])
def test_prompts_are_the_tasks_own(task: str) -> None:
    (cls,) = (cls for cls in TASKS.values() if cls.ensemble == task)
    assert PROMPTS[task] == cls.default_prompt


def test_the_claim_comes_last_in_entailment_of_two_texts() -> None:
    assert source_of("entailment", Example(("a cat", "the cat is old"))) == (
        ' can image and text1 " the cat is old " imply text2 " a cat "?'
    )


@pytest.mark.parametrize(
    "task", [task for task, prompt in PROMPTS.items() if prompt.isascii() and task != "ocr"]
)
def test_every_english_word_is_one_token(task: str) -> None:
    tokenizer = train_tokenizer(task_corpus())
    for example in random_examples(task, 50):
        for text in (source_of(task, example), f" {example.answer}"):
            pieces = tokenizer.pre_tokenizer.pre_tokenize_str(text)
            assert tokenizer.encode(text).tokens == [piece for piece, _ in pieces]


def test_chinese_captions_have_no_unknown_character(tmp_path: Path) -> None:
    save_tokenizer(chinese_tokenizer(), tmp_path)
    tokenizer = load_tokenizer("zh", tmp_path)
    for example in (*random_examples("caption_zh"), *random_examples("second_caption_zh")):
        ids = tokenizer.encode(example.answer, 256)
        assert tokenizer.unk_id not in ids
        assert ids[1:-1] == chinese_tokenizer().encode(example.answer).ids


def test_configurations_are_what_the_library_reads() -> None:
    tokenizer = train_tokenizer(task_corpus())
    files = english_files(tokenizer, 96)
    configs = {
        path: TaskConfig.from_dict(content) for path, content in files.items() if "task" in content
    }
    english = {task for task, prompt in PROMPTS.items() if prompt.isascii()}
    assert {TASKS[config.task].ensemble for config in configs.values()} == english | {"generate"}
    assert all(config.label_file in {None, *files} for config in configs.values())
    bins = configs["tasks/grounding.json"].search.constraint_range
    assert bins == (first_bin_id(tokenizer), first_bin_id(tokenizer) + 1000)
    chinese = TaskConfig.from_dict(chinese_files(96)["configuration.json"])
    assert chinese.language == "zh"
    assert chinese.defaults.num_hypotheses == 2


def test_letters_are_found_again_after_the_resize() -> None:
    """A dark square stands in for a letter: its cell must be the darkest."""
    for aspect, x, y in ((1.5, 0.2, 0.3), (3.0, 0.9, 0.8), (1.0, 0.5, 0.1)):
        image = Image.new("RGB", (round(128 * aspect), 128), "white")
        centre_x, centre_y = x * image.width, y * image.height
        ImageDraw.Draw(image).rectangle(
            (centre_x - 9, centre_y - 9, centre_x + 9, centre_y + 9), fill="black"
        )
        cells = letters_in_cells([Letter("q", x, y)], aspect, 96)
        pixels = resize_scene(image, 96)[0].reshape(6, 16, 6, 16).mean(axis=(1, 3))
        assert cells.sum() == 1
        assert cells[pixels.argmin(), ALPHABET.index("q")] == 1


@pytest.mark.parametrize("unseen", [False, True])
def test_signs_show_one_or_two_words(unseen: bool) -> None:
    signs = [
        compose_sign(np.random.default_rng(seed), ("serif",), unseen=unseen) for seed in range(200)
    ]
    for sign in signs:
        words = sign.text.split()
        assert len(words) in (1, 2)
        assert set(words) <= set(load_words())
        assert len(words) == 1 or are_held_out(*words) == unseen
    assert {len(sign.lines) for sign in signs} == {1, 2}


def test_words_and_patches_that_belong_together() -> None:
    tokenizer = train_tokenizer(task_corpus())
    things = load_things()
    dog, cat = (
        next(index for index, thing in enumerate(things) if thing.phrase == phrase)
        for phrase in ("a dog", "a cat")
    )
    labels = np.array([dog, dog, cat, -100, len(things)])  # the last cell is background
    words = ["<s>", *tokenizer.encode(" is there a cat or a bear").tokens]
    source = [tokenizer.token_to_id(word) for word in words]
    finds = find_words(source, labels, tokenizer)
    first = len(labels)
    named, absent = first + words.index("Ġcat"), first + words.index("Ġbear")
    looks = {
        position: np.flatnonzero(row).tolist() for position, row in enumerate(finds) if row.any()
    }
    assert looks == {0: [first], 1: [first], 2: [named], 4: [first], named: [2], absent: [first]}

    target = [*tokenizer.encode(" a dog above a bear").ids, first_bin_id(tokenizer) + 7]
    sees = find_answer(target, finds, labels, tokenizer)
    assert [np.flatnonzero(row).tolist() for row in sees] == [[0, 1], [0, 1], [], [], [], [2]]
