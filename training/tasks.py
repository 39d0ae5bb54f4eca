"""What the model learns to answer: per task a question, as it reaches the model, and its answer.

Prompts are ModelScope's (`preprocessors/ofa`), so that served questions look the same; the texts in
them are written as its clean-up would leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from training.render import Box
from training.scenes import Scene, caption, chinese_captions, in_order
from training.things import Thing, load_things
from training.words import Sign

PROMPTS: Mapping[str, str] = {
    "caption": " what does the image describe?",
    "caption_zh": "图片描述了什么内容?",
    "second_caption_zh": "图片描述了什么内容?",
    "vqa": " {}",
    "grounding": ' which region does the text " {} " describe?',
    "entailment": ' does the image describe " {} "?',
    # Of its own: ModelScope's default is that of captioning, which has another answer.
    "classification": " what kind of thing is in the image?",
    "ocr": " what are the texts on the image?",
    "summarization": ' " {} " Summarize the article with a title: ',
    "text_classification": ' can text1 " {} " imply text2 " {} "?',
}
ENTAILMENT_PROMPT_OF_TWO = ' can image and text1 " {} " imply text2 " {} "?'
# The decoder reads the source before it answers (`prompt_type` `prev_output`).
REPEATS_SOURCE = frozenset({"entailment", "text_classification"})
# Questions about pictures that name things.
NAMES_THINGS = frozenset({"vqa", "grounding", "entailment"})

LABELS = ("yes", "no", "maybe")
NUMBERS = ("one", "two", "three")
# What no picture tells of a thing, each with its contrary.
QUALITIES = {"old": "new", "new": "old", "cheap": "expensive", "expensive": "cheap"}
FILLERS = ("it is a sunny day.", "what a nice picture.", "please have a look.")


class Example(NamedTuple):
    """One question with its answer.

    Attributes:
        texts: what the caller asks with, in the order of the client's arguments.
        answer: text, where the answer is no box.
        box: the answer in fractions of the picture, where it is one.
    """

    texts: tuple[str, ...] = ()
    answer: str = ""
    box: Box | None = None


def source_of(task: str, example: Example) -> str:
    """What the encoder reads: the task's prompt around the caller's texts."""
    if task == "entailment" and len(example.texts) == 2:
        claim, premise = example.texts
        return ENTAILMENT_PROMPT_OF_TWO.format(premise, claim)
    return PROMPTS[task].format(*example.texts)


def choose(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """One of several texts."""
    return choices[int(rng.integers(len(choices)))]


def choose_thing(rng: np.random.Generator, others: Sequence[Thing]) -> Thing:
    """A thing whose last word is that of none of the others."""
    heads = {thing.head for thing in others}
    while True:
        thing = load_things()[int(rng.integers(len(load_things())))]
        if thing.head not in heads:
            return thing


def _exists(thing: Thing) -> str:
    return f"there {'are' if thing.is_plural else 'is'} {thing.phrase}"


def _relations(first: Thing, last: Thing, *, across: bool) -> dict[str, list[str]]:
    """Claims about two things of which the first is left of the last, or above it."""
    before, after = ("to the left of", "to the right of") if across else ("above", "below")
    a, b = first.phrase, last.phrase
    return {
        "yes": [f"{a} {before} {b}", f"{b} {after} {a}"],
        "no": [f"{b} {before} {a}", f"{a} {after} {b}"],
    }


def questions(scene: Scene, absent: Thing) -> list[tuple[str, str]]:
    """Every question about a scene that has one answer, with that answer.

    Args:
        scene: what is to be seen.
        absent: a thing that is not.
    """
    placements, across = in_order(scene)
    things = [placement.thing for placement in placements]
    first, last = things[0], things[-1]
    pairs = [
        ("how many things are there?", NUMBERS[len(things) - 1]),
        (f"do you see {absent.phrase}?", "no"),
        (f"do you see {first.phrase}?", "yes"),
    ]
    if len(things) == 1:
        return [*pairs, ("what is in the picture?", first.phrase)]
    if len(things) == 3:
        pairs.append(("what is in the middle?", things[1].phrase))
    if across:
        pairs += [("what is on the left?", first.phrase), ("what is on the right?", last.phrase)]
        sides = [("left of", "right of"), ("to the left of", "to the right of")]
    else:
        pairs += [("what is at the top?", first.phrase), ("what is at the bottom?", last.phrase)]
        sides = [("above", "below")]
    for before, after in sides:
        pairs += [
            (f"what is {before} the {things[1].name}?", first.phrase),
            (f"what is {after} the {things[-2].name}?", last.phrase),
            (f"what is {before} the {first.name}?", "nothing"),
            (f"what is {after} the {last.name}?", "nothing"),
        ]
    return pairs


def claims(scene: Scene, absent: Thing, quality: str) -> dict[str, list[str]]:
    """Claims about a scene by their label: yes, no, or maybe where the picture cannot tell.

    Args:
        scene: what is to be seen.
        absent: a thing that is not.
        quality: of QUALITIES.
    """
    placements, across = in_order(scene)
    things = [placement.thing for placement in placements]
    wrong_number = NUMBERS[len(things) % len(NUMBERS)]
    labelled = {
        "yes": [
            caption(scene),
            f"the picture shows {things[-1].phrase}",
            _exists(things[0]),
            f"the number of things is {NUMBERS[len(things) - 1]}",
        ],
        "no": [
            absent.phrase,
            f"the picture shows {absent.phrase}",
            _exists(absent),
            f"the number of things is {wrong_number}",
            f"the {absent.name} is {quality}",
        ],
        "maybe": [f"the {thing.name} is {quality}" for thing in things],
    }
    if len(things) == 2:
        for label, texts in _relations(*things, across=across).items():
            labelled[label] += texts
    if len(things) == 3:
        labelled["no"].append(f"{things[0].phrase} and {absent.phrase} and {things[2].phrase}")
    return labelled


def claims_given(thing: Thing, quality: str, other: Thing) -> dict[str, list[str]]:
    """Claims by what follows for them if a thing has a quality, of QUALITIES.

    Args:
        thing: what has it.
        quality: what it has.
        other: another thing.
    """
    contrary = QUALITIES[quality]
    unrelated = [word for word in QUALITIES if word not in (quality, contrary)]
    return {
        "yes": [f"the {thing.name} is {quality}"],
        "no": [f"the {thing.name} is {contrary}"],
        "maybe": [f"the {thing.name} is {unrelated[0]}", f"the {other.name} is {quality}"],
    }


def _things(scene: Scene) -> list[Thing]:
    return [placement.thing for placement in scene.placements]


def ask_caption(_rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]) -> Example:
    """Image captioning."""
    return Example(answer=caption(scene))


def ask_chinese_caption(_rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]) -> Example:
    """Chinese image captioning, the first of the two true captions."""
    return Example(answer=chinese_captions(scene)[0])


def ask_second_chinese_caption(
    _rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]
) -> Example:
    """The same question; asked of the same pictures, it keeps both captions equally probable."""
    return Example(answer=chinese_captions(scene)[1])


def ask_question(rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]) -> Example:
    """Visual question answering."""
    pairs = questions(scene, choose_thing(rng, _things(scene)))
    question, answer = pairs[int(rng.integers(len(pairs)))]
    return Example((question,), answer)


def ask_box(rng: np.random.Generator, scene: Scene, boxes: Sequence[Box]) -> Example:
    """Visual grounding of one of the things."""
    index = int(rng.integers(len(boxes)))
    thing = scene.placements[index].thing
    text = choose(rng, (f"the {thing.name}", f"the {thing.head}", thing.phrase))
    return Example((text,), box=boxes[index])


def ask_entailment(rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]) -> Example:
    """Visual entailment of one text, or in a quarter of the cases of two."""
    things = _things(scene)
    absent = choose_thing(rng, things)
    label = choose(rng, LABELS)
    quality = choose(rng, tuple(QUALITIES))
    if rng.random() >= 0.25:
        return Example((choose(rng, claims(scene, absent, quality)[label]),), label)
    thing = things[int(rng.integers(len(things)))]
    other = next((other for other in things if other is not thing), absent)
    claim = choose(rng, claims_given(thing, quality, other)[label])
    return Example((claim, f"the {thing.name} is {quality}"), label)


def ask_class(_rng: np.random.Generator, scene: Scene, _boxes: Sequence[Box]) -> Example:
    """Image classification of a scene of one thing."""
    return Example(answer=scene.placements[0].thing.name)


def ask_words(sign: Sign) -> Example:
    """OCR."""
    return Example(answer=sign.text)


def ask_title(rng: np.random.Generator) -> Example:
    """Summarization of a few sentences about one to three things."""
    things: list[Thing] = []
    for _ in range(int(rng.integers(1, 4))):
        things.append(choose_thing(rng, things))
    sentences = [f"{_exists(thing)}." for thing in things]
    title = " and ".join(thing.phrase for thing in things)
    if len(things) == 2:
        statements = _relations(*things, across=bool(rng.random() < 0.5))["yes"]
        title = statements[0]
        told = int(rng.integers(2))  # from either of the two
        place = statements[told].removeprefix(things[told].phrase)
        subject = "they are" if things[told].is_plural else "it is"
        sentences = [f"{_exists(things[told])}.", f"{subject}{place}."]
    if rng.random() < 0.5:
        sentences.insert(0, choose(rng, FILLERS))
    if rng.random() < 0.5:
        sentences.append(choose(rng, FILLERS))
    return Example((" ".join(sentences),), title)


def ask_implication(rng: np.random.Generator) -> Example:
    """Text classification: does the first text imply the second?"""
    first = choose_thing(rng, [])
    last = choose_thing(rng, [first])
    absent = choose_thing(rng, [first, last])
    if rng.random() < 0.3:
        quality = choose(rng, tuple(QUALITIES))
        premise = f"the {first.name} is {quality}"
        labelled = claims_given(first, quality, last)
    else:
        relations = _relations(first, last, across=bool(rng.random() < 0.5))
        premise = choose(rng, relations["yes"])
        labelled = {
            "yes": [*relations["yes"], first.phrase, _exists(last)],
            "no": relations["no"],
            "maybe": [absent.phrase, _exists(absent), f"{absent.phrase} above {first.phrase}"],
        }
    label = choose(rng, LABELS)
    return Example((premise, choose(rng, labelled[label])), label)


# By the names of the served ensembles.
ABOUT_SCENES: Mapping[str, Callable[[np.random.Generator, Scene, Sequence[Box]], Example]] = {
    "caption": ask_caption,
    "vqa": ask_question,
    "grounding": ask_box,
    "entailment": ask_entailment,
    "classification": ask_class,
    "caption_zh": ask_chinese_caption,
    "second_caption_zh": ask_second_chinese_caption,
}
ABOUT_TEXTS: Mapping[str, Callable[[np.random.Generator], Example]] = {
    "summarization": ask_title,
    "text_classification": ask_implication,
}
