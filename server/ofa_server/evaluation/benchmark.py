"""What the benchmarks of all tasks have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from ofa.errors import OFAError
from ofa_client import OFAClient

Prediction = str | list[float] | None
"""An answer as it is kept in a file: a text, a box, or None where there was no box."""

T = TypeVar("T")


class EvaluationError(OFAError):
    """A file is unfit, something is not installed, or pictures went without an answer."""


class Example(NamedTuple):
    """What is asked once.

    Attributes:
        key: unique in the annotations.
        image: name of the picture in its folder.
        text: what is asked about it, empty for captions.
    """

    key: str
    image: str
    text: str = ""


class Source(NamedTuple):
    """Where a benchmark is read from.

    Attributes:
        annotations: what is true.
        questions: what is asked, where the annotations do not say it.
        split: which part of annotations that hold several.
    """

    annotations: Path
    questions: Path | None = None
    split: str = "test"


class Benchmark(ABC):
    """Examples with the truth about them.

    Attributes:
        noun: what an example is called.
        examples: in the order of the annotations.
    """

    noun: ClassVar[str]
    examples: Sequence[Example]

    @classmethod
    @abstractmethod
    def load(cls, source: Source) -> Benchmark:
        """Read annotations.

        Raises:
            EvaluationError: a file cannot be read or says something else than it should.
        """

    @abstractmethod
    def ask(self, client: OFAClient, images: Path, example: Example) -> Prediction:
        """The server's best answer about a picture in `images`; the client's errors pass."""

    @abstractmethod
    def score(self, predictions: Mapping[str, Prediction]) -> Mapping[str, float]:
        """Every metric in percent, by its name, over the examples that have a prediction."""


def read_lines(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> dict[str, T]:
    """What `parse` makes of every line of a JSON Lines file, by the line's number.

    Raises:
        EvaluationError: the file cannot be read, or a line lacks something.
    """
    parsed: dict[str, T] = {}
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            parsed[str(number)] = parse(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EvaluationError(f"{path.name}, line {number}: {_reason(error)}") from error
    return parsed


def read_document(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """What `parse` makes of a JSON file.

    Raises:
        EvaluationError: the file cannot be read, or lacks something.
    """
    try:
        return parse(json.loads(_read(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{path.name}: {_reason(error)}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path.name} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the field {error} is missing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
