"""Visual question answering: the accuracy of the VQA challenge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_client import OFAClient
from ofa_server.evaluation.benchmark import (
    Benchmark,
    EvaluationError,
    Example,
    Prediction,
    Source,
    read_document,
    read_lines,
)

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""
#: A word that lacks one of its apostrophes gets it back. The last entry is the script's own.
_MENDED = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTIONS.split()
    for at, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}


class QuestionBenchmark(Benchmark):
    """Two JSON files as VQA publishes them, or JSON Lines with `image`, `question`, `answers`."""

    noun = "questions"

    def __init__(self, examples: Sequence[Example], answers: Mapping[str, Sequence[str]]) -> None:
        self.examples = examples
        self._answers = answers

    @classmethod
    def load(cls, source: Source) -> QuestionBenchmark:
        """Read annotations; there are no splits."""
        annotations, questions = source.annotations, source.questions
        if questions is None:
            lines = read_lines(annotations, _parse_line)
            examples = [Example(key, image, text) for key, (image, text, _) in lines.items()]
            return cls(examples, {key: answers for key, (_, _, answers) in lines.items()})
        answers = read_document(annotations, _parse_answers)
        examples = read_document(questions, _parse_questions)
        unanswered = [example.key for example in examples if example.key not in answers]
        if unanswered:
            raise EvaluationError(
                f"{annotations.name} has no answers to question {unanswered[0]} of {questions.name}"
            )
        return cls(examples, answers)

    def ask(self, client: OFAClient, images: Path, example: Example) -> Prediction:
        """The best answer."""
        return client.answer(images / example.image, example.text).text

    def score(self, predictions: Mapping[str, Prediction]) -> Mapping[str, float]:
        """Mean accuracy over all questions."""
        accuracies = [
            accuracy(str(answer), self._answers[key]) for key, answer in predictions.items()
        ]
        return {"Accuracy": 100 * sum(accuracies) / len(accuracies)}


def _parse_line(line: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    return str(line["image"]), str(line["question"]), _not_empty(line["answers"])


def _parse_answers(document: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        str(entry["question_id"]): _not_empty([given["answer"] for given in entry["answers"]])
        for entry in document["annotations"]
    }


def _parse_questions(document: Mapping[str, Any]) -> list[Example]:
    folder = document["data_subtype"]
    return [
        Example(
            str(entry["question_id"]),
            f"COCO_{folder}_{entry['image_id']:012d}.jpg",
            entry["question"],
        )
        for entry in document["questions"]
    ]


def _not_empty(answers: Sequence[str]) -> list[str]:
    if not answers or isinstance(answers, str):
        raise ValueError("answers must be a list of at least one")
    return [str(answer) for answer in answers]


def accuracy(answer: str, given: Sequence[str]) -> float:
    """How many people gave this answer, as a number from 0 to 1.

    Three people make it right; that is averaged over leaving out one of the people at a time. With
    a single answer given, it is 1 or 0. Source: `vqaEval.py` of GT-Vision-Lab/VQA (a013f00).
    """
    given = [_one_line(other) for other in given]
    answer = _one_line(answer)
    if len(set(given)) > 1:
        given = [normalize(other) for other in given]
        answer = normalize(answer)
    if len(given) == 1:
        return float(answer == given[0])
    num_equal = given.count(answer)
    left_out = [min(1.0, (num_equal - (other == answer)) / 3) for other in given]
    return sum(left_out) / len(left_out)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize(answer: str) -> str:
    """Lower case without punctuation and articles, numbers up to ten as digits, "dont" as "don't".

    Source: `processPunctuation` and `processDigitArticle` of the same script.
    """
    text = answer
    has_number = re.search(r"\d,\d", answer) is not None
    for mark in _PUNCTUATION:
        stands_alone = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if stands_alone or has_number else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)
