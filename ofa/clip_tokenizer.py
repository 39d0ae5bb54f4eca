"""Text to the token ids of CLIP.

Source: modelscope `models/multi_modal/mmr/models/tokenization_clip.py` (OpenAI's SimpleTokenizer)
and `ofa_for_text_to_image_synthesis_model.py`, clip_tokenize.
"""

from __future__ import annotations

import gzip
import html
import shutil
from pathlib import Path

import ftfy
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from ofa.errors import CheckpointError, InvalidTextError

#: Tokens of a text with its start, end and padding; the same for every CLIP.
CONTEXT_LENGTH = 77

_FILE = "bpe_simple_vocab_16e6.txt.gz"
#: Merges that CLIP was trained with; the file holds more.
_NUM_MERGES = 48_894
_END_OF_WORD = "</w>"
_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class CLIPTokenizer:
    """Byte-level BPE of lower-cased words; special-token strings inside a text stay text."""

    files = (_FILE,)

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or malformed.
        """
        self._folder = folder
        try:
            with gzip.open(folder / _FILE, "rt", encoding="utf-8") as file:
                lines = file.read().split("\n")[1 : _NUM_MERGES + 1]
        except FileNotFoundError as error:
            raise CheckpointError(f"{_FILE} is missing") from error
        except (OSError, EOFError, ValueError) as error:
            raise CheckpointError(f"{_FILE} cannot be read as compressed text") from error
        merges = [tuple(line.split()) for line in lines if line]
        if not all(len(merge) == 2 for merge in merges):
            raise CheckpointError(f"{_FILE} must hold two symbols a line")
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*alphabet, *(letter + _END_OF_WORD for letter in alphabet)]
        tokens += ["".join(merge) for merge in merges]
        self.start_id, self.end_id = len(tokens), len(tokens) + 1
        self.vocab_size = len(tokens) + 2
        vocab = {token: token_id for token_id, token in enumerate(tokens)}
        try:
            model = models.BPE(vocab, merges, end_of_word_suffix=_END_OF_WORD)
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{_FILE} merges symbols that it does not know") from error
        self._bpe = Tokenizer(model)
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def encode(self, text: str) -> list[int]:
        """Start, the ids of `text`, end, and zeros up to `CONTEXT_LENGTH`.

        Raises:
            InvalidTextError: the text is too long; CLIP's reference refuses to cut it, too.
        """
        cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
        ids = self._bpe.encode(" ".join(cleaned.split()).lower(), add_special_tokens=False).ids
        if len(ids) + 2 > CONTEXT_LENGTH:
            raise InvalidTextError(
                f"text has {len(ids)} tokens for CLIP; the limit is {CONTEXT_LENGTH - 2}"
            )
        return [self.start_id, *ids, self.end_id, *[0] * (CONTEXT_LENGTH - 2 - len(ids))]

    def save(self, directory: Path) -> None:
        """Copy the tokenizer's file into `directory`."""
        for name in self.files:
            shutil.copyfile(self._folder / name, directory / name)
