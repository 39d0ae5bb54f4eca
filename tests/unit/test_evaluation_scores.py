"""The metrics of `ofa evaluate`: the examples of the papers that define them, and their rules."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap.spice import get_stanford_models

from ofa_server.evaluation.benchmark import EvaluationError
from ofa_server.evaluation.boxes import overlap
from ofa_server.evaluation.captions import score_captions
from ofa_server.evaluation.questions import accuracy, normalize

needs_java = pytest.mark.skipif(
    shutil.which("java") is None,
    reason="METEOR and the Penn treebank's words need Java, which is not on PATH "
    "(apt-get install default-jre-headless); the other metrics are tested without it",
)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


# Papineni et al. 2002, section 2.1, examples 1 and 2.
REFERENCES = """\
It is a guide to action that ensures that the military will forever heed Party commands.
It is the guiding principle which guarantees the military forces always being under the command of \
the Party.
It is the practical guide for the army always to heed the directions of the party.
""".splitlines()
FLUENT = (
    "It is a guide to action which ensures that the military always obeys the commands of the "
    "party."
)


def test_bleu_is_that_of_its_paper(no_java: None) -> None:
    scores = score_captions({"1": REFERENCES}, {"1": [FLUENT]})
    assert scores["BLEU-1"] == pytest.approx(100 * 17 / 18)
    assert scores["BLEU-2"] == pytest.approx(100 * (17 / 18 * 10 / 17) ** 0.5)

    references = ["The cat is on the mat.", "There is a cat on the mat."]
    scores = score_captions({"1": references}, {"1": ["the the the the the the the"]})
    assert scores["BLEU-1"] == pytest.approx(100 * 2 / 7)


def test_rouge_is_that_of_its_paper(no_java: None) -> None:
    """Lin 2004, section 3: common subsequences, not common words."""
    reference = {"1": ["police killed the gunman"]}
    for candidate, share in (("police kill the gunman", 0.75), ("the gunman kill police", 0.5)):
        scores = score_captions(reference, {"1": [candidate]})
        assert scores["ROUGE-L"] == pytest.approx(100 * share)


CAPTIONS = {
    "1": ["a man rides a brown horse on the beach"],
    "2": ["two small dogs play with a ball"],
    "3": ["a red apple lies on a table"],
}


def test_cider_weighs_what_few_pictures_share(no_java: None) -> None:
    """Ten for a candidate that is the only reference, nothing for words that all have or none."""
    assert score_captions(CAPTIONS, CAPTIONS)["CIDEr"] == pytest.approx(1000)
    common = {key: ["a a a a"] for key in CAPTIONS}
    assert score_captions(CAPTIONS, common)["CIDEr"] == 0
    mixed = {"1": CAPTIONS["1"], "2": ["nothing of this"], "3": ["nor that"]}
    assert score_captions(CAPTIONS, mixed)["CIDEr"] == pytest.approx(1000 / 3)


def test_without_java_the_rest_is_scored(no_java: None, capsys: pytest.CaptureFixture[str]) -> None:
    written = {"1": ["A man rides a brown horse, on the Beach!"], "2": CAPTIONS["2"], "3": [""]}
    scores = score_captions(CAPTIONS, written)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert scores["ROUGE-L"] == pytest.approx(200 / 3)
    assert "Java is not on PATH" in capsys.readouterr().err


@needs_java
def test_a_caption_of_two_lines_is_one_caption() -> None:
    """Java's tokenizer would take a carriage return for the end of a caption."""
    written = {"1": ["a man rides\r\na brown horse\u2028on the beach"], "2": CAPTIONS["2"]}
    references = {key: CAPTIONS[key] for key in written}
    assert score_captions(references, written)["BLEU-4"] == pytest.approx(100)


def test_the_rest_is_scored_where_meteor_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    java = tmp_path / "java"
    # As the tokenizer it copies its input file; as METEOR it says nothing.
    java.write_text(
        '#!/bin/sh\ncase "$*" in *PTBTokenizer*) for last; do :; done; cat "$last";; esac\n'
    )
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    scores = score_captions(CAPTIONS, CAPTIONS)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert "METEOR is left out" in capsys.readouterr().err


def test_a_tokenizer_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(EvaluationError, match="the PTB tokenizer's Java program failed"):
        score_captions(CAPTIONS, CAPTIONS)


@needs_java
def test_with_java_words_are_those_of_the_penn_treebank() -> None:
    written = {
        "1": ["A man rides a brown horse, on the Beach!"],
        "2": ['Two small dogs "play" with a ball.'],
        "3": ["a red apple lies on a table"],
    }
    scores = score_captions(CAPTIONS, written)
    assert scores["BLEU-4"] == pytest.approx(100)
    assert scores["METEOR"] == pytest.approx(100)
    assert scores["CIDEr"] == pytest.approx(1000)
    # "n't" is a word of its own.
    scores = score_captions({"1": ["they do not"]}, {"1": ["they don't"]})
    assert scores["ROUGE-L"] == pytest.approx(100 * 2 / 3)
    assert 0 < scores["METEOR"] < 100


class Spice:
    """Stands in for the package's, whose Java program needs 400 MB of models."""

    def compute_score(self, references: Any, candidates: Any) -> tuple[float, list[Any]]:
        if candidates["1"] == ["break"]:
            raise subprocess.CalledProcessError(1, "java")
        return 0.25, []


@needs_java
def test_spice_is_scored_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Spice)
    monkeypatch.setattr(get_stanford_models, "SPICEDIR", str(tmp_path))
    references = {"1": ["an apple"]}
    assert "SPICE" not in score_captions(references, references)
    assert "Stanford CoreNLP" in capsys.readouterr().err
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stanford-corenlp-3.6.0.jar").touch()
    assert score_captions(references, references)["SPICE"] == 25
    assert "SPICE" not in score_captions(references, {"1": ["break"]})
    assert "made for Java 8" in capsys.readouterr().err


def test_three_of_ten_people_make_an_answer_right() -> None:
    given = ["blue"] * 4 + ["red"] * 3 + ["green"] * 2 + ["grey"]
    assert accuracy("blue", given) == 1
    # Leaving out one of the three who said so, two are left: 2/3 in three cases out of ten.
    assert accuracy("red", given) == pytest.approx((7 * 1 + 3 * 2 / 3) / 10)
    assert accuracy("green", given) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert accuracy("grey", given) == pytest.approx((9 * 1 / 3 + 0) / 10)
    assert accuracy("black", given) == 0


def test_answers_are_compared_as_they_are_where_all_agree() -> None:
    """As the official script does, which normalises only where people differ."""
    assert accuracy("the cat", ["the cat"] * 10) == 1
    assert accuracy("The cat\n", ["the cat"] * 10) == 0
    assert accuracy("The cat", ["the cat"] * 9 + ["dog"]) == 1
    assert accuracy(" the\tcat\n", ["the cat"] * 10) == 1
    assert accuracy("cat", ["cat"]) == 1
    assert accuracy("dog", ["cat"]) == 0


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dog", "dog"),
        ("a cat and an owl", "cat and owl"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("10.5 m.", "10.5 m"),
        ("U.S.A.", "usa"),
        ("1,000", "1000"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("don't", "don't"),
        ("dont", "don't"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("10:30", "10:30"),
        ("stop!", "stop"),
        ("yes, it is", "yes it is"),
        ("why?", "why"),
        ("left-right", "left right"),
    ],
)
def test_answers_are_normalised(answer: str, normal: str) -> None:
    assert normalize(answer) == normal


@pytest.mark.parametrize(
    ("other", "share"),
    [
        ([0, 0, 10, 10], 1),
        ([0, 0, 10, 5], 0.5),
        ([5, 0, 15, 10], 1 / 3),
        ([-10, -10, 20, 20], 1 / 9),
        ([10, 0, 20, 10], 0),
        ([30, 30, 40, 40], 0),
        ([8, 8, 2, 2], 0),
    ],
)
def test_overlap_is_intersection_over_union(other: list[float], share: float) -> None:
    assert overlap([0, 0, 10, 10], other) == pytest.approx(share)
    assert overlap(other, [0, 0, 10, 10]) == pytest.approx(share)
