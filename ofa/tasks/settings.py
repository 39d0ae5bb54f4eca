"""`task.json`: what pre- and postprocessing need to know of a checkpoint.

`ofa export` derives it from the checkpoint folder and puts it into the version directory of the
models that need it, so that a new version of a checkpoint brings its own prompt and defaults.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ofa.errors import CheckpointError
from ofa.options import GenerationOptions, OptionLimits

_FILE = "task.json"


@dataclass(frozen=True)
class TaskSettings:
    """One checkpoint's task.

    Attributes:
        task: name of the task in `ofa.tasks.TASKS`.
        language: "en" or "zh".
        search: "beam", "traverse" (all labels are scored) or "sampling" (picture codes).
        prompt: text in front of the model; a leading space matters.
        prompt_type: what the decoder starts with before a label: "none", "prev_output" (the
            prompt without EOS) or "src" (the whole prompt).
        labels: what the answer is one of; empty if it can be anything.
        patch_image_size: pixels on a side of the square that the picture is resized to.
        max_image_size: pixels that the location tokens' range stands for.
        is_document: whether text is read from a wide line of it, not from a scene.
        max_source_length: most tokens of the prompt, BOS and EOS not counted.
        defaults: options of a request that names none.
        limits: what the exported generator is bounded by.
    """

    task: str
    language: str
    search: str
    prompt: str
    prompt_type: str
    labels: tuple[str, ...]
    patch_image_size: int
    max_image_size: int
    is_document: bool
    max_source_length: int
    defaults: GenerationOptions
    limits: OptionLimits

    def save(self, directory: Path) -> None:
        """Write `task.json` into `directory`."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (directory / _FILE).write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, directory: Path) -> TaskSettings:
        """Read `task.json` in `directory`.

        Raises:
            CheckpointError: the file is missing or not one of ours.
        """
        try:
            values = json.loads((directory / _FILE).read_text("utf-8"))
            values["labels"] = tuple(values["labels"])
            values["defaults"] = GenerationOptions(**values["defaults"])
            values["limits"] = OptionLimits(**values["limits"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{_FILE} is missing or malformed; run `ofa export` again"
            ) from error
