"""Ids and texts against the tokenizer that the reference's own one is a subclass of."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BartTokenizer

from ofa.errors import CheckpointError
from ofa.tokenizer import EnglishTokenizer
from tests.unit import tiny

# A failing example is shown with its fixtures, and a tokenizer with 9,192 added tokens shows large.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

ODD_TEXTS = [
    "",
    " ",
    "   ",
    " what does the image describe?",
    "what does the image describe?",
    *tiny.CORPUS,
    "runs   of    spaces and a trailing one ",
    "it's they've I'm we'll you'd don't can't 'tis 's 'S IT'S o'clock ''s",
    "tab\tnewline\nreturn\r\nvertical\x0bform\x0cnull\x00escape\x1b",
    "no-break\u00a0thin\u2009ideographic\u3000zero\u200bwidth\ufeffmark\u2028line",
    "1/2 3,000.50 -7 1e-9 ½ ² ٣ ४ Ⅷ ①",
    "ÀÉÎõü ß ŁŒ ŉ ǆ ﬁ ﬀ İi I\u0131",
    "e\u0301 o\u0308 n\u0303\u0303 \u0301",
    "日本語テキスト\uff0c图片描述了什么内容\uff1f 한국어 조선말",
    "العربية עברית ไทย हिन्दी தமிழ் ქართული",
    "🍎 🍩🍩 👩‍👩‍👧‍👦 👋🏽 🇫🇷 ✈️ ☺ \U0001d518\U0001d52b\U0001d526 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\U0010ffff \ue000 \ufffd \ud7ff",
    "!!! ??? ... --- ___ #@$%^&*()[]{}<>|\\/~`\"'",
    "camelCaseWords UPPER lower MiXeD a1b2c3",
    "x" * 300,
    " ".join(["word"] * 100),
    "the Ġ stand-in Ċ of a space Ā",
]


@pytest.fixture(scope="module")
def ours(tokenizer_folder: Path) -> EnglishTokenizer:
    return EnglishTokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def reference(tokenizer_folder: Path) -> BartTokenizer:
    """As modelscope sets its own up: codes and bins are added tokens."""
    tokenizer = BartTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_tokens([f"<code_{number}>" for number in range(8192)])
    tokenizer.add_tokens([f"<bin_{number}>" for number in range(1000)])
    return tokenizer


@pytest.fixture(scope="module")
def reference_without_specials(tokenizer_folder: Path) -> BartTokenizer:
    """Takes special-token strings for text, as ours does on purpose."""
    return BartTokenizer.from_pretrained(tokenizer_folder, split_special_tokens=True)


def reference_ids(tokenizer: BartTokenizer, text: str, max_length: int = 10_000) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=max_length)
    return [tokenizer.bos_token_id, *ids["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_ids_equal_the_references(
    ours: EnglishTokenizer, reference: BartTokenizer, text: str
) -> None:
    assert ours.encode(text, 10_000) == reference_ids(reference, text)


@pytest.mark.parametrize("max_length", [0, 1, 2, 5])
def test_long_texts_are_cut_as_the_references(
    ours: EnglishTokenizer, reference: BartTokenizer, max_length: int
) -> None:
    text = " what does the image describe?"
    ids = ours.encode(text, max_length)
    assert len(ids) == max_length + 2
    assert ids == [*reference_ids(reference, text)[: max_length + 1], tiny.EOS]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
SPECIALS = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "<code_7>", "<bin_999>"]


@settings(max_examples=200)
@given(text=TEXTS.filter(lambda text: not any(special in text for special in SPECIALS)))
def test_ids_of_any_text_equal_the_references(
    ours: EnglishTokenizer, reference: BartTokenizer, text: str
) -> None:
    assert ours.encode(text, 10_000) == reference_ids(reference, text)


@settings(max_examples=100)
@given(parts=st.lists(TEXTS | st.sampled_from(SPECIALS), max_size=6))
def test_special_tokens_in_a_text_stay_text(
    ours: EnglishTokenizer, reference_without_specials: BartTokenizer, parts: list[str]
) -> None:
    """The reference would let a caller's `</s>` end the prompt; this is ours on purpose."""
    text = "".join(parts)
    ids = ours.encode(text, 10_000)
    assert ids == reference_ids(reference_without_specials, text)
    assert not {tiny.BOS, tiny.PAD, tiny.EOS, tiny.UNK} & set(ids[1:-1])
    assert max(ids) < ours.first_code_id


#: Tokens that a prompt may hold if it is allowed to, what looks like them, and text.
ALLOWED_AND_NOT = [
    *("<mask>", " <mask>", "<bin_0>", " <bin_999>", "<code_0>", "<code_8191> "),
    *("<bin_1000>", "<code_8192>", "<bin_01>", "<bin_-1>", "<bin_>", "<Bin_1>", "<mask", "<"),
    *("<bin_1<bin_1>", " a dog", "dog ", "  ", "\t", "?", " <", "1>"),
]


@settings(max_examples=200)
@given(parts=st.lists(st.sampled_from(ALLOWED_AND_NOT), max_size=8))
def test_allowed_special_tokens_are_found_as_the_reference_finds_them(
    ours: EnglishTokenizer, reference: BartTokenizer, parts: list[str]
) -> None:
    text = "".join(parts)
    assert ours.encode(text, 10_000, allow_special_tokens=True) == reference_ids(reference, text)


@pytest.mark.parametrize("special", ["<s>", "</s>", "<pad>", "<unk>"])
def test_ends_and_padding_stay_text_even_where_special_tokens_are_allowed(
    ours: EnglishTokenizer, special: str
) -> None:
    text = f" a{special} dog"
    ids = ours.encode(text, 99)
    assert ours.encode(text, 99, allow_special_tokens=True) == ids
    assert not {tiny.BOS, tiny.PAD, tiny.EOS, tiny.UNK} & set(ids[1:-1])


def test_a_label_has_a_space_in_front_and_no_ends(ours: EnglishTokenizer) -> None:
    assert ours.encode_label("small dog") == ours.encode(" small dog", 99)[1:-1]


def test_numbers_of_codes_and_bins_are_the_references(
    ours: EnglishTokenizer, reference: BartTokenizer
) -> None:
    assert ours.vocab_size == len(reference)
    for token, token_id in (
        ("<code_0>", ours.first_code_id),
        ("<code_8191>", ours.first_code_id + 8191),
        ("<bin_0>", ours.first_bin_id),
        ("<bin_999>", ours.vocab_size - 1),
    ):
        assert reference.convert_tokens_to_ids(token) == token_id
    assert (ours.bos_id, ours.pad_id, ours.eos_id, ours.unk_id) == (
        reference.bos_token_id,
        reference.pad_token_id,
        reference.eos_token_id,
        reference.unk_token_id,
    )


def reference_text(tokenizer: BartTokenizer, token_ids: list[int]) -> str:
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text


@settings(max_examples=200)
@given(data=st.data())
def test_any_ids_decode_as_the_references(
    ours: EnglishTokenizer, reference: BartTokenizer, data: st.DataObject
) -> None:
    """Broken UTF-8, special tokens in the middle, codes and bins next to text and each other."""
    text_ids = st.integers(0, ours.first_code_id - 1)
    odd_ids = st.integers(0, 3) | st.integers(ours.first_code_id - 1, ours.vocab_size - 1)
    token_ids = data.draw(st.lists(text_ids | odd_ids, max_size=20))
    assert ours.decode(token_ids) == reference_text(reference, token_ids)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_decoding_gives_the_text_back(ours: EnglishTokenizer, text: str) -> None:
    assert ours.decode(ours.encode(text, 10_000)) == text


def test_codes_and_bins_stand_apart(ours: EnglishTokenizer, reference: BartTokenizer) -> None:
    word = ours.encode(" apple", 10)[1:-1]
    code, location = ours.first_code_id + 7, ours.first_bin_id + 42
    token_ids = [tiny.BOS, *word, location, location, *word, code, tiny.EOS, tiny.PAD]
    expected = " apple <bin_42> <bin_42>  apple <code_7>"
    assert ours.decode(token_ids) == expected == reference_text(reference, token_ids)


@given(text=st.text(st.sampled_from("ab .?!,'nmsvret"), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_marks_are_joined_where_the_folder_says_so(folder: Path, text: str) -> None:
    (folder / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    ids = EnglishTokenizer(folder).encode(text, 256)
    ours = EnglishTokenizer(folder).decode(ids)
    assert ours == BartTokenizer.clean_up_tokenization(text)
    (folder / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": false}')
    assert EnglishTokenizer(folder).decode(ids) == text


def test_a_saved_tokenizer_joins_marks_too(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    saved = tmp_path / "saved"
    saved.mkdir()
    EnglishTokenizer(folder).save(saved)
    again = EnglishTokenizer(saved)
    assert again.decode(again.encode(" off .", 256)) == " off."


def test_saved_files_give_the_same_tokenizer(ours: EnglishTokenizer, tmp_path: Path) -> None:
    ours.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]
    again = EnglishTokenizer(tmp_path)
    assert [again.encode(text, 99) for text in ODD_TEXTS] == [
        ours.encode(text, 99) for text in ODD_TEXTS
    ]


@pytest.mark.parametrize("ending", ["\n", "", "\n\n"], ids=ascii)
@pytest.mark.parametrize("header", ["#version: 0.2\n", "#version: 0.1 - trained by x\n"])
def test_merges_files_are_read_as_the_reference_reads_them(
    tokenizer_folder: Path, tmp_path: Path, header: str, ending: str
) -> None:
    shutil.copy(tokenizer_folder / "vocab.json", tmp_path)
    lines = (tokenizer_folder / "merges.txt").read_text("utf-8").split("\n")[1:-1]
    (tmp_path / "merges.txt").write_text(header + "\n".join(lines) + ending, "utf-8")
    ours, reference = EnglishTokenizer(tmp_path), BartTokenizer.from_pretrained(tmp_path)
    for text in ODD_TEXTS:
        assert ours.encode(text, 10_000) == reference_ids(reference, text)


@pytest.fixture
def folder(tokenizer_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    for name in EnglishTokenizer.files:
        shutil.copy(tokenizer_folder / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"^{name} is missing$"):
        EnglishTokenizer(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", ""),
        ("vocab.json", "[]"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", '{"a": -1}'),
        ("merges.txt", "#version: 0.2\na b c\n"),
        ("merges.txt", "#version: 0.2\nq z\nqz qz\n"),
    ],
)
def test_a_malformed_file_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(CheckpointError, match=r"^vocab\.json or merges\.txt is malformed$"):
        EnglishTokenizer(folder)


def test_a_vocabulary_without_a_special_token_is_refused(folder: Path) -> None:
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocab["<other>"] = vocab.pop("<mask>")
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    with pytest.raises(CheckpointError, match=r"^vocab\.json lacks the special token <mask>$"):
        EnglishTokenizer(folder)


@pytest.mark.parametrize("wrong_id", [0, 1000])
def test_a_vocabulary_with_gaps_or_twins_is_refused(folder: Path, wrong_id: int) -> None:
    """Codes and bins are counted from the end of the vocabulary."""
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocab["<mask>"] = wrong_id
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    with pytest.raises(CheckpointError, match="must number its entries from 0 without gaps"):
        EnglishTokenizer(folder)
