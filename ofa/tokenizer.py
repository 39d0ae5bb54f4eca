"""Text to token ids and back.

The vocabulary of a checkpoint is its tokenizer's own entries followed by 8,192 picture codes and
1,000 location bins. The reference appends those as 9,192 added tokens; here they are arithmetic.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ofa.errors import CheckpointError

NUM_CODES = 8192
NUM_BINS = 1000
#: The first token ids, which a range of allowed ids says nothing about (modelscope
#: `sequence_generator.py`).
NUM_SPECIAL_TOKENS = 4

#: Strings of the special tokens; decoding leaves them out (modelscope `tokenization_ofa.py`).
_BOS, _PAD, _EOS, _UNK, _MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"

#: Read for one key, in either language's folder.
_CONFIG_FILE = "tokenizer_config.json"

#: Characters of a Chinese tokenizer's word above which it is unknown, whatever its pieces.
_MAX_WORD_LENGTH = 100

#: What may stand for one token where `allow_special_tokens` is set; numbers have no leading zeros.
_SPECIAL = re.compile(r"(?P<mask><mask>)|<(?P<kind>code|bin)_(?P<number>0|[1-9][0-9]{0,3})>")


class Tokenizer(ABC):
    """What the tokenizers of both languages have in common.

    Attributes:
        files: names of the files in a checkpoint folder that it is read from.
        bos_id: BOS.
        pad_id: padding.
        eos_id: EOS.
        unk_id: what stands for unknown words.
        first_code_id: picture code 0.
        first_bin_id: location bin 0.
        vocab_size: entries, codes and bins.
    """

    files: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, vocab: Mapping[str, int]) -> None:
        """Number the tokens.

        Args:
            folder: where `files` are.
            vocab: id of every entry.

        Raises:
            CheckpointError: a special token is missing, the ids have gaps or twins, or
                `tokenizer_config.json` is malformed.
        """
        self._folder = folder
        self._joins_marks = _reads_joined_marks(folder)
        name = self.files[0]
        missing = [token for token in (_BOS, _PAD, _EOS, _UNK, _MASK) if token not in vocab]
        if missing:
            raise CheckpointError(f"{name} lacks the special token {', '.join(missing)}")
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise CheckpointError(f"{name} must number its entries from 0 without gaps")
        self.bos_id, self.pad_id, self.eos_id = vocab[_BOS], vocab[_PAD], vocab[_EOS]
        self.unk_id, self._mask_id = vocab[_UNK], vocab[_MASK]
        self._special_ids = frozenset(vocab[t] for t in (_BOS, _PAD, _EOS, _UNK, _MASK))
        self.first_code_id = len(vocab)
        self.first_bin_id = self.first_code_id + NUM_CODES
        self.vocab_size = self.first_bin_id + NUM_BINS

    @abstractmethod
    def _encode_text(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""

    @abstractmethod
    def _decode_text(self, token_ids: list[int]) -> str:
        """Text of ids that are neither special, codes nor bins."""

    def encode(
        self, text: str, max_length: int, *, allow_special_tokens: bool = False
    ) -> list[int]:
        """BOS, at most `max_length` ids of `text`, EOS.

        Special-token strings inside `text` stay text. With `allow_special_tokens`, `<mask>`,
        `<code_n>` and `<bin_n>` stand for their tokens; the others, which mark beginnings, ends
        and padding, stay text even so.
        """
        ids = self._encode_parts(text) if allow_special_tokens else self._encode_text(text)
        return [self.bos_id, *ids[:max_length], self.eos_id]

    def encode_label(self, label: str) -> list[int]:
        """Ids of a label as the decoder writes it: with a space in front, without BOS and EOS."""
        return self._encode_text(f" {label}")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens.

        Codes and bins read `<code_7>` and `<bin_7>`; a space sets them apart from their neighbours
        and from text, as the reference's tokenizer joins added tokens.
        """
        kept = (token_id for token_id in token_ids if token_id not in self._special_ids)
        parts: list[str] = []
        for is_text, group in groupby(kept, key=lambda token_id: token_id < self.first_code_id):
            if is_text:
                parts.append(self._decode_text(list(group)))
            else:
                parts.extend(self._name_added(token_id) for token_id in group)
        text = " ".join(parts)
        return _join_marks(text) if self._joins_marks else text

    def save(self, directory: Path) -> None:
        """Copy the tokenizer's files into `directory`."""
        for name in (*self.files, _CONFIG_FILE):
            if (self._folder / name).is_file():
                shutil.copyfile(self._folder / name, directory / name)

    def _encode_parts(self, text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for token_id, match in self._find_special(text):
            before = text[start : match.start()]
            # The reference's <mask> takes the spaces in front of it for its own.
            ids += self._encode_text(before.rstrip() if token_id == self._mask_id else before)
            ids.append(token_id)
            start = match.end()
        return ids + self._encode_text(text[start:])

    def _find_special(self, text: str) -> Iterator[tuple[int, re.Match[str]]]:
        for match in _SPECIAL.finditer(text):
            if match["mask"]:
                yield self._mask_id, match
            elif match["kind"] == "code" and int(match["number"]) < NUM_CODES:
                yield self.first_code_id + int(match["number"]), match
            elif match["kind"] == "bin" and int(match["number"]) < NUM_BINS:
                yield self.first_bin_id + int(match["number"]), match

    def _name_added(self, token_id: int) -> str:
        if token_id < self.first_bin_id:
            return f"<code_{token_id - self.first_code_id}>"
        return f"<bin_{token_id - self.first_bin_id}>"


class EnglishTokenizer(Tokenizer):
    """GPT-2's byte-level BPE with BART's special tokens, from `vocab.json` and `merges.txt`.

    No space is put in front of a text.
    """

    files = ("vocab.json", "merges.txt")

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: a file is missing or malformed, or a special token is not in it.
        """
        vocab_file, merges_file = _find_files(folder, self.files)
        try:
            vocab: dict[str, int] = json.loads(vocab_file.read_text("utf-8"))
            # As the reference has it: a header, then merges, each up to its line break.
            lines = merges_file.read_text("utf-8").split("\n")[1:-1]
            merges = [tuple(line.split()) for line in lines if line]
            model = models.BPE(vocab, merges, unk_token=_UNK)
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(
                f"{vocab_file.name} or {merges_file.name} is malformed"
            ) from error
        super().__init__(folder, vocab)
        self._bpe = tokenizers.Tokenizer(model)
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.decoder = decoders.ByteLevel()

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def _decode_text(self, token_ids: list[int]) -> str:
        text: str = self._bpe.decode(token_ids, skip_special_tokens=False)
        return text


class ChineseTokenizer(Tokenizer):
    """BERT's words and WordPiece, from `vocab.txt`: one entry a line, its id the line's number.

    A word that the vocabulary cannot spell is `<unk>`, not BERT's `[UNK]`.
    """

    files = ("vocab.txt",)

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or malformed, or a special token is not in it.
        """
        (vocab_file,) = _find_files(folder, self.files)
        try:
            lines = vocab_file.read_text("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{vocab_file.name} is malformed") from error
        # The last line's break starts no entry. Twins leave a gap, which the base class refuses.
        entries = lines if lines[-1] else lines[:-1]
        vocab = {entry: token_id for token_id, entry in enumerate(entries)}
        super().__init__(folder, vocab)
        self._entries = entries
        self._wordpiece = tokenizers.Tokenizer(
            models.WordPiece(vocab, unk_token=_UNK, max_input_chars_per_word=_MAX_WORD_LENGTH)
        )

    def _encode_text(self, text: str) -> list[int]:
        words = _split_words(text)
        ids: list[int] = self._wordpiece.encode(
            words, is_pretokenized=True, add_special_tokens=False
        ).ids
        return ids

    def _decode_text(self, token_ids: list[int]) -> str:
        pieces = (self._entries[token_id] for token_id in token_ids)
        return " ".join(pieces).replace(" ##", "").strip()


def _reads_joined_marks(folder: Path) -> bool:
    """Whether an optional `tokenizer_config.json` asks for marks without a space in front."""
    path = folder / _CONFIG_FILE
    if not path.is_file():
        return False
    try:
        joins_marks = json.loads(path.read_text("utf-8")).get("clean_up_tokenization_spaces")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{_CONFIG_FILE} is malformed") from error
    return joins_marks is True


def _join_marks(text: str) -> str:
    """What transformers 4.57 does (`tokenization_utils_base.py`, `clean_up_tokenization`)."""
    for mark in (".", "?", "!", ","):
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text


def load_tokenizer(language: str, folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        language: "en" or "zh".
        folder: holds the tokenizer's files.

    Raises:
        CheckpointError: another language, or a file is missing or malformed.
    """
    kinds: dict[str, type[EnglishTokenizer | ChineseTokenizer]] = {
        "en": EnglishTokenizer,
        "zh": ChineseTokenizer,
    }
    if language not in kinds:
        raise CheckpointError(f"language {language!r} is not supported; known are en and zh")
    return kinds[language](folder)


def _find_files(folder: Path, names: Sequence[str]) -> list[Path]:
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{name} is missing")
    return [folder / name for name in names]


#: What BERT takes for Chinese characters: CJK ideographs, neither kana nor hangul.
_IDEOGRAPH = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def _split_words(text: str) -> list[str]:
    """Lower-case words without accents; every ideograph and punctuation mark is one of its own.

    The rules and their order are those of transformers 4.57 (`tokenization_bert.py`,
    `BasicTokenizer`), which differ from the fast tokenizers' in rare characters.
    """
    # By character, so that a sigma at a word's end is like any other.
    lowered = "".join(char.lower() for char in text)
    cleaned = "".join(map(_clean, lowered))
    spaced = _IDEOGRAPH.sub(r" \g<0> ", cleaned)
    chars = unicodedata.normalize("NFD", spaced)
    bare = (char for char in chars if unicodedata.category(char) != "Mn")
    return "".join(f" {char} " if _is_punctuation(char) else char for char in bare).split()


def _clean(char: str) -> str:
    """A space for white space, nothing for controls, formats, and code points without meaning."""
    if char in "\t\n\r":
        return " "
    category = unicodedata.category(char)
    if category.startswith("C") or char == "\ufffd":
        return ""
    return " " if category == "Zs" else char


def _is_punctuation(char: str) -> bool:
    """Whether BERT splits at `char`: Unicode's punctuation, and every other mark of ASCII."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")
