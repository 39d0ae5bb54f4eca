"""Texts as the reference's own functions give them, recorded from modelscope 1.40.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.errors import CheckpointError
from ofa.text import clean_caption, clean_question, clean_sentence, count_slots, join_chinese

#: Text, what `pre_caption` makes of it, what `pre_question` does, both with at most 4 words.
CLEANED = [
    ("", "", ""),
    ("   ", "", ""),
    ("A Man-eating Shark", "a man eating shark", "a man eating shark"),
    ("...?!what is THIS?", "what is this?", "what is this?"),
    (".,!?*#:;~ a, b.", "a, b.", "a, b."),
    (" . a", ". a", ". a"),
    ("and/or", "and or", "and or"),
    ("a -- b", "a b", "a b"),
    ("a  \t b\n", "a b", "a b"),
    ("a\n\nb", "a b", "a b"),
    ("line\nbreak\n", "line\nbreak", "line\nbreak"),
    ("tab\tstays", "tab\tstays", "tab\tstays"),
    ("\n", "", ""),
    ("<person> rides", "person rides", "<person> rides"),
    ("<PERSON> <person>", "person person", "<person> <person>"),
    ("<per-son>", "<per son>", "<per son>"),
    ("</person>", "< person>", "< person>"),
    ("!<person>", "person", "<person>"),
    ("a\u3000b", "a\u3000b", "a\u3000b"),
    ("a\u3000\u3000b", "a b", "a b"),
    ("one two three four five", "one two three four", "one two three four"),
    ("one  two   three four", "one two three four", "one two three four"),
    ("  lead and trail  ", "lead and trail", "lead and trail"),
    ("ΟΔΥΣΣΕΥΣ - ΣΑΣ", "οδυσσευς σας", "οδυσσευς σας"),
    ("İ", "i\u0307", "i\u0307"),
    ("一只-小狗？", "一只 小狗？", "一只 小狗？"),
    ("{} {0} }{", "{} {0} }{", "{} {0} }{"),
    ("a?\n", "a?", "a?"),
    ("- a", "a", "a"),
    ("a -", "a", "a"),
    ("-a-b-c-d-e", "a b c d", "a b c d"),
]


@pytest.mark.parametrize(("text", "caption", "question"), CLEANED)
def test_texts_are_cleaned_as_the_references(text: str, caption: str, question: str) -> None:
    assert clean_caption(text, 4) == caption
    assert clean_question(text, 4) == question


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ""),
        (" A\tMan-eating\n\nSHARK , \u3000at sea", "a man-eating shark ,"),
        ("...<person>", "...<person>"),
    ],
)
def test_sentences_keep_their_marks(text: str, sentence: str) -> None:
    assert clean_sentence(text, 4) == sentence


@given(text=st.text(), max_words=st.integers(0, 5))
def test_words_are_counted(text: str, max_words: int) -> None:
    for clean in (clean_caption, clean_question):
        assert len(clean(text, max_words).split(" ")) <= max(max_words, 1)
    assert len(clean_sentence(text, max_words).split()) <= max_words


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        (
            "我 不 想 说 话 iphone 13 pro ， hello world 。",
            "我不想说话iphone 13 pro，hello world。",
        ),
        ("a b", "a b"),
        ("a  b 猫  c", "a  b猫c"),
        ("红 色 ( 3 . 5 ) 的", "红色(3 . 5)的"),
        ("你 好 ! 我 , 是 : 谁 ?", "你好!我,是:谁?"),
        ("< bin > 1 % 2", "<bin>1%2"),
        ("  猫 ", "猫"),
        (" a 猫b", " a猫b"),
        ("\u3000 猫", "\u3000猫"),
    ],
)
def test_spaces_around_chinese_vanish_as_the_references(text: str, joined: str) -> None:
    assert join_chinese(text) == joined


@pytest.mark.parametrize(
    ("template", "num_slots"),
    [("", 0), (" what is it?", 0), ('"{}"?', 1), ("{}{}", 2), ("{{}} {} {{", 1)],
)
def test_slots_are_counted(template: str, num_slots: int) -> None:
    assert count_slots(template, 2) == num_slots


@pytest.mark.parametrize("template", ["{", "}", "{} {", "{}}", "{0}", "{text}", "{!r}", "{:d}"])
def test_other_braces_are_refused(template: str) -> None:
    with pytest.raises(CheckpointError, match=r"^prompt '"):
        count_slots(template, 2)


def test_more_slots_than_texts_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"^prompt '{}{}' takes 2 texts; the task has 1$"):
        count_slots("{}{}", 1)
