"""The file that answers are kept in, so that a second run goes on where the first ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ofa_server.evaluation.benchmark import EvaluationError, Prediction

if TYPE_CHECKING:
    from typing import Self


class PredictionFile:
    """JSON Lines: first what was asked and of whom, then one example a line with its prediction.

    Attributes:
        predictions: by the example's key, those of earlier runs included.
    """

    def __init__(self, path: Path, origin: Mapping[str, str]) -> None:
        """Opens the file for appending.

        Args:
            path: created if it does not exist.
            origin: what predictions must have in common to stand in one file.

        Raises:
            EvaluationError: the file cannot be read or written, or has another origin.
        """
        try:
            whole, _, half = _text(path).rpartition("\n")
            if half:  # of a line: the last run was killed
                os.truncate(path, len(whole.encode()) + 1 if whole else 0)
            self.predictions = _parse(path, whole, origin) if whole else {}
            self._file = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise EvaluationError(
                f"{path} cannot be read and written ({error}); name another file with --predictions"
            ) from error
        if not whole:
            self._write(origin)

    def append(self, key: str, prediction: Prediction) -> None:
        """Keeps a prediction."""
        self.predictions[key] = prediction
        self._write({"key": key, "prediction": prediction})

    def _write(self, entry: Mapping[str, Prediction]) -> None:
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise EvaluationError(f"{self._file.name} cannot be written ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def _text(path: Path) -> str:
    try:
        # Half a line may end in the middle of a character.
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _parse(path: Path, text: str, origin: Mapping[str, str]) -> dict[str, Prediction]:
    try:
        first, *entries = [json.loads(line) for line in text.split("\n")]
        predictions = {entry["key"]: entry["prediction"] for entry in entries}
        different = [name for name in origin if first.get(name) != origin[name]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{path} holds something else than predictions") from error
    if different:
        name = different[0]
        raise EvaluationError(
            f"{path} holds predictions for {name} {first.get(name)}, not {origin[name]}; "
            "name another file with --predictions"
        )
    return predictions
