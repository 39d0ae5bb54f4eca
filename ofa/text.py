"""What the reference does to a caller's text before a prompt, and to an answer after it.

Checkpoints were trained on texts of this form, so every step and its order are the reference's
(modelscope `preprocessors/ofa/base.py`, `ofa_for_all_tasks.py`).
"""

from __future__ import annotations

import re
from string import Formatter

from ofa.errors import CheckpointError

_WHITE_SPACE_RUN = re.compile(r"\s{2,}")

#: Spaces next to a character that is no space, ASCII letter, digit or mark of a Latin sentence.
_CHINESE_SPACES = re.compile(r"(?<=[^ a-zA-Z0-9.,:!?]) +| +(?=[^ a-zA-Z0-9.,:!?])")


def clean_caption(text: str, max_words: int) -> str:
    """A statement about a picture, or an article, as prompts hold it (`pre_caption`).

    Lower case; no marks in front; hyphens and slashes as spaces; `<person>` without its brackets;
    at most `max_words` words that a space separates.
    """
    return clean_question(text.lower().replace("<person>", "person"), max_words)


def clean_question(text: str, max_words: int) -> str:
    """A question as prompts hold it (`pre_question`): `clean_caption` but for `<person>`."""
    text = text.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ")
    text = _WHITE_SPACE_RUN.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_sentence(text: str, max_words: int) -> str:
    """A sentence of a pair as prompts hold it: lower case, at most `max_words` words."""
    return " ".join(text.lower().split()[:max_words])


def join_chinese(text: str) -> str:
    """A decoded Chinese text without the spaces between its tokens.

    Spaces between words of ASCII letters and digits stay.
    """
    return _CHINESE_SPACES.sub("", text)


def check_one_slot(template: str) -> None:
    """Refuse a prompt template that does not take one text.

    Raises:
        CheckpointError: there is no `{}` or more than one, or other braces.
    """
    if count_slots(template, max_slots=1) == 0:
        raise CheckpointError(f"prompt {template!r} has no {{}} for the caller's text")


def count_slots(template: str, max_slots: int) -> int:
    """The number of texts that a prompt template takes, each for one `{}`.

    Raises:
        CheckpointError: the braces do not pair, hold something, or are more than `max_slots`.
    """
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        raise CheckpointError(f"prompt {template!r}: {error}") from error
    if any(field != ["", "", None] for field in fields):
        raise CheckpointError(
            f"prompt {template!r}: a text goes into {{}}, with nothing in between"
        )
    if len(fields) > max_slots:
        raise CheckpointError(
            f"prompt {template!r} takes {len(fields)} texts; the task has {max_slots}"
        )
    return len(fields)
