"""Captioning: BLEU, METEOR, ROUGE-L, CIDEr and SPICE by `pycocoevalcap`, as papers report them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
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

Texts = Mapping[str, Sequence[str]]
"""The captions of every picture, by the picture's key; words are separated by spaces."""


class CaptionBenchmark(Benchmark):
    """COCO's annotations, Karpathy's, or JSON Lines with `image` and `captions`."""

    noun = "pictures"

    def __init__(self, examples: Sequence[Example], references: Texts) -> None:
        self.examples = examples
        self._references = references

    @classmethod
    def load(cls, source: Source) -> CaptionBenchmark:
        """Read annotations; only Karpathy's hold splits.

        Raises:
            EvaluationError: also if `pycocoevalcap` is not installed.
        """
        if importlib.util.find_spec("pycocoevalcap") is None:
            raise EvaluationError(
                "captions are scored by pycocoevalcap, which is not installed; in a checkout: "
                "pip install '.[evaluate]'"
            )
        if source.annotations.suffix == ".jsonl":
            captioned = read_lines(source.annotations, _parse_line)
        else:
            captioned = read_document(
                source.annotations, lambda document: _parse(document, source.split)
            )
        examples = [Example(key, image) for key, (image, _) in captioned.items()]
        return cls(examples, {key: captions for key, (_, captions) in captioned.items()})

    def ask(self, client: OFAClient, images: Path, example: Example) -> Prediction:
        """The best caption."""
        return client.caption(images / example.image).text

    def score(self, predictions: Mapping[str, Prediction]) -> Mapping[str, float]:
        """Every metric that this machine can compute; standard error says what it cannot."""
        references = {key: self._references[key] for key in predictions}
        candidates = {key: [str(caption)] for key, caption in predictions.items()}
        return score_captions(references, candidates)


def _parse_line(line: Mapping[str, Any]) -> tuple[str, list[str]]:
    return str(line["image"]), _not_empty(line["captions"])


def _parse(document: Mapping[str, Any], split: str) -> dict[str, tuple[str, list[str]]]:
    if "annotations" in document:
        captions: dict[int, list[str]] = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            if annotation["image_id"] in captions:  # else the pictures are a part of all
                captions[annotation["image_id"]].append(str(annotation["caption"]))
        return {
            str(image["id"]): (image["file_name"], _not_empty(captions[image["id"]]))
            for image in document["images"]
        }
    chosen = {
        str(image["cocoid"]): (
            f"{image['filepath']}/{image['filename']}",
            _not_empty([sentence["raw"] for sentence in image["sentences"]]),
        )
        for image in document["images"]
        if image["split"] == split
    }
    if not chosen:
        splits = sorted({image["split"] for image in document["images"]})
        raise ValueError(f"there is no split {split!r}, only {', '.join(splits)}")
    return chosen


def _not_empty(captions: Sequence[str]) -> list[str]:
    if not captions or isinstance(captions, str):
        raise ValueError("every picture needs at least one caption")
    return [str(caption) for caption in captions]


def score_captions(references: Texts, candidates: Texts) -> dict[str, float]:
    """Every metric that this machine can compute, in percent.

    Args:
        references: one or more captions of every picture.
        candidates: one caption of every picture.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    has_java = shutil.which("java") is not None
    if has_java:
        references, candidates = _tokenize(references), _tokenize(candidates)
    else:
        _warn(
            "Java is not on PATH: METEOR and SPICE are left out, and words are split without the "
            "PTB tokenizer, so that the other scores can differ from published ones"
        )
        references, candidates = _split_words(references), _split_words(candidates)

    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    scores = {f"BLEU-{order}": value for order, value in enumerate(bleu, start=1)}
    meteor = _meteor(references, candidates) if has_java else None
    if meteor is not None:
        scores["METEOR"] = meteor
    scores["ROUGE-L"], _ = Rouge().compute_score(references, candidates)
    scores["CIDEr"], _ = Cider().compute_score(references, candidates)
    spice = _spice(references, candidates) if has_java else None
    if spice is not None:
        scores["SPICE"] = spice
    return {name: 100 * float(value) for name, value in scores.items()}


def _tokenize(captions: Texts) -> Texts:
    """Lower-case words without punctuation, as the Penn Treebank has them."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The tokenizer gives one line a caption back, and Java knows more ends of a line than "\n".
    texts = {
        key: [{"caption": " ".join(text.split())} for text in given]
        for key, given in captions.items()
    }
    try:
        tokenized: Texts = PTBTokenizer().tokenize(texts)
    except OSError as error:
        raise EvaluationError(f"pycocoevalcap cannot write into its own folder: {error}") from error
    if {key: len(given) for key, given in tokenized.items()} != {
        key: len(given) for key, given in captions.items()
    }:
        raise EvaluationError("the PTB tokenizer's Java program failed; see its message above")
    return tokenized


def _split_words(captions: Texts) -> Texts:
    """What comes close to `_tokenize` without Java."""
    return {
        key: [" ".join(re.findall(r"[^\W_]+(?:'\w+)?", text.lower())) for text in given]
        for key, given in captions.items()
    }


def _meteor(references: Texts, candidates: Texts) -> float | None:
    """None, after a sentence on standard error, where its Java program fails."""
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    try:
        score, _ = meteor.compute_score(references, candidates)
    except (OSError, ValueError):
        _warn("METEOR is left out: its Java program failed")
        return None
    finally:
        if meteor.lock.locked():  # its __del__ would wait for it for ever
            meteor.lock.release()
        # It would end its process some time, after writing what a broken one no longer takes.
        with suppress(BrokenPipeError):
            meteor.meteor_p.stdin.close()
        meteor.meteor_p.kill()
        meteor.meteor_p.wait()
        meteor.meteor_p.stdout.close()
        meteor.meteor_p.stderr.close()
    return float(score)


def _spice(references: Texts, candidates: Texts) -> float | None:
    """None, after a sentence on standard error, where SPICE does not run."""
    from pycocoevalcap.spice import get_stanford_models as corenlp
    from pycocoevalcap.spice.spice import Spice

    if not (Path(corenlp.SPICEDIR) / corenlp.SPICELIB / f"{corenlp.JAR}.jar").exists():
        _warn(
            "SPICE is left out: it needs Stanford CoreNLP 3.6.0 (400 MB), which "
            f"`python -m {corenlp.__name__}` downloads"
        )
        return None
    try:
        score, _ = Spice().compute_score(references, candidates)
    except (OSError, subprocess.CalledProcessError):
        _warn("SPICE is left out: its Java program failed; it is made for Java 8")
        return None
    return float(score)


def _warn(sentence: str) -> None:
    print(f"ofa evaluate: {sentence}", file=sys.stderr)
