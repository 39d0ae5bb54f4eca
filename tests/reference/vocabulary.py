"""Made-up vocabularies in the layouts of the English and of the Chinese OFA checkpoints.

English: byte-level BPE. The merges are enumerated by a rule, so nothing is downloaded or trained: a
list of English words (the prompt's among them) grown letter by letter, some byte sequences that
split UTF-8 characters, then pronounceable pseudo-words until the wanted size is reached.

Chinese: WordPiece. Marks and ASCII characters, alone and as continuations, some words, the
characters of the prompts, then ideographs in the order of Unicode.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")

_SPACE = "Ġ"
_WORDS = (
    "what does the image describe a an of in on at to and with is are it one two three red blue "
    "green white black yellow small large old young man woman child people dog cat bird horse boat "
    "car bus train street road house window table chair plate food water sky tree grass flower "
    "ball standing sitting walking riding holding wearing next near left right above under behind "
    "front"
)
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"
_WHOLE_PIECES = ("10", "2024", "'s", "n't", "...", "é", "ö", "日", "🍎", "ing", "The", "Café", "--")


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE uses for the bytes 0 to 255.

    Printable Latin-1 bytes stand for themselves; the others get the code points from 256 on, in
    byte order (Radford et al. 2019, GPT-2).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(256)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _spellings() -> Iterator[str]:
    """Texts, in stand-in characters, of which every prefix of two or more becomes a token."""
    alphabet = byte_alphabet()
    for word in _WORDS.split():
        yield _SPACE + word
    for piece in _WHOLE_PIECES:
        yield "".join(alphabet[byte] for byte in piece.encode())
    for num_syllables in itertools.count(1):
        syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
        for parts in itertools.product(syllables, repeat=num_syllables):
            word = "".join(parts)
            yield _SPACE + word
            yield word


def write_vocabulary(folder: Path, num_entries: int) -> None:
    """Write `vocab.json` and `merges.txt` of `num_entries` entries, specials and mask included."""
    alphabet = byte_alphabet()
    tokens = [*SPECIAL_TOKENS, *alphabet]
    known = set(tokens)
    merges: list[str] = []
    num_before_mask = num_entries - 1
    for spelling in _spellings():
        for end in range(2, len(spelling) + 1):
            token = spelling[:end]
            if token not in known and len(tokens) < num_before_mask:
                known.add(token)
                tokens.append(token)
                merges.append(f"{token[:-1]} {token[-1]}")
        if len(tokens) == num_before_mask:
            break
    tokens.append("<mask>")
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


_CHINESE_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHINESE_TEXT = (
    "图片描述了什么内容上的文字是这段哪个区域请用一句简单总结文：红蓝绿白黑黄大小男女人孩狗猫鸟马船车树"
    "草花球站坐走左右前后在有和不没可能二三四五六七八九十我你他她它们想说话"
)
_CHINESE_PUNCTUATION = "，。！？；（）《》“”、…·"
_LATIN_WORDS = ("pro", "iphone", "hello", "world", "cafe", "the", "2024", "10")
_CONTINUATIONS = ("ing", "s", "ed", "er", "pro", "24")
_IDEOGRAPHS = range(0x4E00, 0xA000)


def _chinese_entries() -> Iterator[str]:
    """WordPiece entries: marks, letters, words, what the prompts need, then all ideographs."""
    yield from _CHINESE_SPECIALS
    printable = [chr(code) for code in range(0x21, 0x7F)]
    yield from (character for character in printable if not character.isupper())
    yield from (f"##{c}" for c in printable if c.islower() or c.isdigit())
    yield from _LATIN_WORDS
    yield from (f"##{piece}" for piece in _CONTINUATIONS)
    yield from _CHINESE_PUNCTUATION
    yield from _CHINESE_TEXT
    yield from map(chr, _IDEOGRAPHS)


def write_chinese_vocabulary(folder: Path, num_entries: int) -> None:
    """Write the `vocab.txt` of `num_entries` lines, specials and mask included."""
    words = list(dict.fromkeys(_chinese_entries()))[: num_entries - len(SPECIAL_TOKENS) - 1]
    lines = [*SPECIAL_TOKENS, *words, "<mask>"]
    assert len(lines) == num_entries, f"no more than {len(lines)} entries are known"
    (folder / "vocab.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
