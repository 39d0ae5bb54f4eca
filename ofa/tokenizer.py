"""Text to token ids and back.

The vocabulary of a checkpoint is its tokenizer's own entries followed by 8,192 picture codes and
1,000 location bins. The reference appends those as 9,192 added tokens; here they are arithmetic.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ofa.errors import CheckpointError

NUM_CODES = 8192
NUM_BINS = 1000

_VOCAB_FILE = "vocab.json"
_MERGES_FILE = "merges.txt"
#: Strings of the special tokens; decoding leaves them out (modelscope `tokenization_ofa.py`).
_BOS, _PAD, _EOS, _UNK, _MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"


class EnglishTokenizer:
    """GPT-2's byte-level BPE with BART's special tokens, from `vocab.json` and `merges.txt`.

    No space is put in front of a text, and special-token strings inside it stay text.
    """

    files = (_VOCAB_FILE, _MERGES_FILE)

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: a file is missing or malformed, or a special token is not in it.
        """
        self._folder = folder
        for name in self.files:
            if not (folder / name).is_file():
                raise CheckpointError(f"{name} is missing")
        try:
            vocab: dict[str, int] = json.loads((folder / _VOCAB_FILE).read_text("utf-8"))
            # As the reference has it: a header, then merges, each up to its line break.
            lines = (folder / _MERGES_FILE).read_text("utf-8").split("\n")[1:-1]
            merges = [tuple(line.split()) for line in lines if line]
            model = models.BPE(vocab, merges, unk_token=_UNK)
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{_VOCAB_FILE} or {_MERGES_FILE} is malformed") from error
        missing = [token for token in (_BOS, _PAD, _EOS, _UNK, _MASK) if token not in vocab]
        if missing:
            raise CheckpointError(f"{_VOCAB_FILE} lacks the special token {', '.join(missing)}")
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise CheckpointError(f"{_VOCAB_FILE} must number its entries from 0 without gaps")
        self.bos_id, self.pad_id, self.eos_id = vocab[_BOS], vocab[_PAD], vocab[_EOS]
        self.unk_id = vocab[_UNK]
        self._special_ids = frozenset(vocab[t] for t in (_BOS, _PAD, _EOS, _UNK, _MASK))
        self.first_code_id = len(vocab)
        self.first_bin_id = self.first_code_id + NUM_CODES
        self.vocab_size = self.first_bin_id + NUM_BINS
        self._bpe = Tokenizer(model)
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.decoder = decoders.ByteLevel()

    def encode(self, text: str, max_length: int) -> list[int]:
        """BOS, at most `max_length` ids of `text`, EOS."""
        ids = self._bpe.encode(text, add_special_tokens=False).ids
        return [self.bos_id, *ids[:max_length], self.eos_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens.

        Codes and bins read `<code_7>` and `<bin_7>`; a space sets them apart from their neighbours
        and from text, as the reference's tokenizer joins added tokens.
        """
        kept = (token_id for token_id in token_ids if token_id not in self._special_ids)
        parts: list[str] = []
        for is_text, group in groupby(kept, key=lambda token_id: token_id < self.first_code_id):
            if is_text:
                parts.append(self._bpe.decode(list(group), skip_special_tokens=False))
            else:
                parts.extend(self._name_added(token_id) for token_id in group)
        return " ".join(parts)

    def _name_added(self, token_id: int) -> str:
        if token_id < self.first_bin_id:
            return f"<code_{token_id - self.first_code_id}>"
        return f"<bin_{token_id - self.first_bin_id}>"

    def save(self, directory: Path) -> None:
        """Copy the tokenizer's files into `directory`."""
        for name in self.files:
            shutil.copyfile(self._folder / name, directory / name)
