"""Ids and texts against BERT's slow tokenizer, whose rules the reference's own one repeats."""

import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from ofa.errors import CheckpointError
from ofa.tokenizer import ChineseTokenizer, EnglishTokenizer, load_tokenizer
from tests.unit import tiny
from tests.unit.test_tokenizer import ALLOWED_AND_NOT, ODD_TEXTS, SPECIALS, TEXTS
from tests.unit.tiny import BOS, EOS, PAD, UNK

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

CHINESE_TEXTS = [
    *ODD_TEXTS,
    "图片描述了什么内容?",
    '这段文字" 一只小狗 "是哪个区域？',
    "iphone 13 pro，Hello WORLD。helloing worlders",
    "[UNK] [MASK] [CLS] ##ing # ##",
    "ΣΑΣ Σας σΑΣ' ΟΔΥΣΣΕΥΣ",
    "caf\u00e9 cafe\u0301 İSTANBUL ß ẞ ŒUVRE ǅ",
    "soft\u00adhyphen zero\u200bwidth \ufeffmark un\u0378assigned priv\ue000ate re\ufffdplaced",
    "word\u2028line\u2029paragraph\x85next\x1cfile",
    "猫" * 101,
    "a" * 100 + " " + "a" * 101 + " " + "á" * 101,
    "한국어 ひらがな カタカナ \u3007 \u2e80 㐀 豈 \U00020000 \U0002f800 \U0002ebf0",
]


@pytest.fixture(scope="module")
def ours(chinese_tokenizer_folder: Path) -> ChineseTokenizer:
    return ChineseTokenizer(chinese_tokenizer_folder)


def make_reference(folder: Path, **changes: bool) -> BertTokenizer:
    """With the special tokens of modelscope's `OFATokenizerZH`."""
    special_tokens = {
        **dict.fromkeys(["bos_token", "cls_token"], "<s>"),
        **dict.fromkeys(["eos_token", "sep_token"], "</s>"),
        **{f"{name}_token": f"<{name}>" for name in ("pad", "unk", "mask")},
    }
    vocab_file = folder / "vocab.txt"
    return BertTokenizer(
        vocab_file, clean_up_tokenization_spaces=False, **special_tokens, **changes
    )


@pytest.fixture(scope="module")
def reference(chinese_tokenizer_folder: Path) -> BertTokenizer:
    tokenizer = make_reference(chinese_tokenizer_folder)
    tokenizer.add_tokens([f"<code_{number}>" for number in range(8192)])
    tokenizer.add_tokens([f"<bin_{number}>" for number in range(1000)])
    return tokenizer


@pytest.fixture(scope="module")
def reference_without_specials(chinese_tokenizer_folder: Path) -> BertTokenizer:
    return make_reference(chinese_tokenizer_folder, split_special_tokens=True)


def reference_ids(tokenizer: BertTokenizer, text: str) -> list[int]:
    return [BOS, *tokenizer(text, add_special_tokens=False)["input_ids"], EOS]


@pytest.mark.parametrize("text", CHINESE_TEXTS, ids=ascii)
def test_ids_equal_the_references(
    ours: ChineseTokenizer, reference_without_specials: BertTokenizer, text: str
) -> None:
    assert ours.encode(text, 10_000) == reference_ids(reference_without_specials, text)


ODD_CHARACTERS = st.sampled_from(
    "\u3000\u2028\u0085\u00ad\u0301\u0345Σς#，。?“ \t图片猫ßİ\ufffd\u302e"
)
CHINESE = st.text(st.sampled_from(tiny.CHINESE_TEXT), max_size=10)
NASTY_TEXTS = st.lists(
    TEXTS | CHINESE | st.text(ODD_CHARACTERS, max_size=10) | st.sampled_from(tiny.CHINESE_WORDS),
    max_size=6,
).map("".join)


@settings(max_examples=300)
@given(text=NASTY_TEXTS)
def test_ids_of_any_text_equal_the_references(
    ours: ChineseTokenizer, reference_without_specials: BertTokenizer, text: str
) -> None:
    assert ours.encode(text, 10_000) == reference_ids(reference_without_specials, text)


def test_every_character_is_treated_as_the_references(tmp_path: Path) -> None:
    """Dropped, a space, a word of its own, or a part of one: with a vocabulary that spells all."""
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    every = [char for char in every if unicodedata.category(char) not in ("Cn", "Co", "Cs")]
    spelled = sorted(set("".join(unicodedata.normalize("NFD", char.lower()) for char in every)))
    letters = [char for char in spelled if char not in "\r\n"]
    entries = [*tiny.SPECIAL_TOKENS, *letters, *(f"##{char}" for char in letters), "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n", "utf-8", newline="")
    ours, reference = ChineseTokenizer(tmp_path), make_reference(tmp_path)
    text = " ".join(f"a{char}b" for char in every)
    ids = reference_ids(reference, text)
    assert ours.encode(text, len(ids)) == ids
    assert len(set(ids)) > 100_000


@settings(max_examples=100)
@given(parts=st.lists(TEXTS | st.sampled_from(SPECIALS), max_size=6))
def test_special_tokens_in_a_text_stay_text(ours: ChineseTokenizer, parts: list[str]) -> None:
    ids = ours.encode("".join(parts), 10_000)
    assert not {BOS, PAD, EOS, ours.first_code_id - 1} & set(ids[1:-1])
    assert max(ids) < ours.first_code_id


def test_unknown_words_are_not_berts(ours: ChineseTokenizer) -> None:
    """ModelScope maps them to `<unk>`, although the vocabulary has BERT's `[UNK]` too."""
    assert ours.encode("鼎 한 café☺", 10) == [BOS, UNK, UNK, UNK, EOS]
    assert UNK == 3


def test_words_are_looked_up_whole_and_else_in_pieces(ours: ChineseTokenizer) -> None:
    assert ours.decode(ours.encode("Hello helloing CAFÉ s", 10)) == "hello helloing cafe s"
    assert len(ours.encode("Hello helloing CAFÉ s", 10)) == 7


def test_long_texts_are_cut(ours: ChineseTokenizer) -> None:
    whole = ours.encode("图片描述了什么内容?", 99)
    assert ours.encode("图片描述了什么内容?", 4) == [*whole[:5], EOS]


def test_a_label_has_no_ends(ours: ChineseTokenizer) -> None:
    assert ours.encode_label("小狗") == ours.encode("小狗", 9)[1:-1]


#: The reference lowers a text before it looks for tokens; here a token is written one way only.
LOWER_CASE = st.sampled_from([part for part in ALLOWED_AND_NOT if part.islower()])


@settings(max_examples=200)
@given(parts=st.lists(CHINESE | LOWER_CASE, max_size=8))
def test_allowed_special_tokens_are_found_as_the_reference_finds_them(
    ours: ChineseTokenizer, reference: BertTokenizer, parts: list[str]
) -> None:
    text = "".join(parts)
    assert ours.encode(text, 999, allow_special_tokens=True) == reference_ids(reference, text)


@settings(max_examples=200)
@given(data=st.data())
def test_any_ids_decode_as_the_references(
    ours: ChineseTokenizer, reference: BertTokenizer, data: st.DataObject
) -> None:
    token_ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=20))
    token_ids += data.draw(st.lists(st.integers(0, ours.first_code_id + 1), max_size=20))
    expected = reference.decode(token_ids, skip_special_tokens=True)
    assert ours.decode(token_ids) == expected


def test_numbers_of_codes_and_bins_are_the_references(
    ours: ChineseTokenizer, reference: BertTokenizer
) -> None:
    assert ours.vocab_size == len(reference)
    assert ours.first_code_id == reference.convert_tokens_to_ids("<code_0>")
    assert ours.first_bin_id == reference.convert_tokens_to_ids("<bin_0>")


def test_saved_files_give_the_same_tokenizer(ours: ChineseTokenizer, tmp_path: Path) -> None:
    ours.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]
    again = load_tokenizer("zh", tmp_path)
    assert [again.encode(text, 99) for text in CHINESE_TEXTS] == [
        ours.encode(text, 99) for text in CHINESE_TEXTS
    ]


@pytest.mark.parametrize("ending", ["", "\n"], ids=ascii)
@pytest.mark.parametrize("line_break", ["\n", "\r\n"], ids=ascii)
def test_line_breaks_are_read_as_the_reference_reads_them(
    chinese_tokenizer_folder: Path, tmp_path: Path, line_break: str, ending: str
) -> None:
    entries = (chinese_tokenizer_folder / "vocab.txt").read_text("utf-8").split("\n")[:-1]
    entries.insert(10, "\u2028")  # a line break to some, an entry here
    content = line_break.join(entries) + ending
    (tmp_path / "vocab.txt").write_text(content, "utf-8", newline="")
    ours, reference = ChineseTokenizer(tmp_path), make_reference(tmp_path)
    assert ours.first_code_id == len(reference) == len(entries)
    text = "图片描述了什么内容?"
    assert ours.encode(text, 99) == reference_ids(reference, text)


def test_the_language_chooses_the_tokenizer(
    tokenizer_folder: Path, chinese_tokenizer_folder: Path
) -> None:
    assert isinstance(load_tokenizer("en", tokenizer_folder), EnglishTokenizer)
    assert isinstance(load_tokenizer("zh", chinese_tokenizer_folder), ChineseTokenizer)
    with pytest.raises(CheckpointError, match=r"^language 'fr' is not supported"):
        load_tokenizer("fr", tokenizer_folder)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^vocab\.txt is missing$"):
        ChineseTokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is malformed"),
        (b"", "lacks the special token <s>, <pad>, </s>, <unk>, <mask>"),
        (b"<s>\n<pad>\n</s>\n<unk>\na\n", "lacks the special token <mask>"),
        (b"<s>\n<pad>\n</s>\n<unk>\na\na\n<mask>\n", "must number its entries"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^vocab\\.txt {message}"):
        ChineseTokenizer(tmp_path)


def test_a_blank_line_is_an_entry(chinese_tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copy(chinese_tokenizer_folder / "vocab.txt", tmp_path)
    with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert ChineseTokenizer(tmp_path).vocab_size == len(make_reference(tmp_path)) + 9192
