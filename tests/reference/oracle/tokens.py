"""Records the reference tokenizers: ids of texts, and texts of ids."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.reference.vocabulary import write_chinese_vocabulary, write_vocabulary

import tests.reference.oracle.environment  # noqa: F401  # isort: skip  # stand-ins before modelscope
from modelscope.models.multi_modal.ofa import OFATokenizer, OFATokenizerZH  # isort: skip

TEXTS = (
    " what does the image describe?",
    "what does the image describe?",
    " What's on the PLATE, it's 10% off!  two  spaces ",
    "naïve café 日本 🍎 \u00a0 \t tab\nline",
    " <code_8192> <bin_1000> </S> <Mask>",
    "",
    " ",
    " babebi bobuba kilo",
)
# Read as one id each, wherever they stand.
SPECIAL_TEXTS = (
    "<bin_3> <bin_4>",
    " what does the region describe? region: <bin_10><bin_200> <bin_999> <bin_0>x",
    " the old   <mask>  man<mask>.",
    "<code_0><code_8191>",
)
CHINESE_TEXTS = (
    "图片描述了什么内容?",
    '这段文字" 一个圆头的蓝色宝可梦 "描述的是哪个区域？',
    "红花 和 白花，Hello World。iPhone 10 Pro",
    "naïve CAFÉ Ångström İstanbul ﬁ Ⅷ ｆｕｌｌ",  # noqa: RUF001  # wide on purpose
    "\u3000全角 空格\u00a0\u200b零宽\ufeff\x00\ufffd\x07控制\tTab\r\n行",
    "日本 한국 🍎 𠀀 ﷽ e\u0301 \u0301",
    "a_b-c/d.e…·“引号”（括号）《书名》¥$^`~+=|<>",
    "2024 helloing prohello " + "a" * 100 + " " + "a" * 101,
    "[UNK] [MASK] [CLS]",
    " <code_8192> <bin_1000>",
    "",
    " ",
)
NUM_ENTRIES = (1000, 50265)
CHINESE_NUM_ENTRIES = (1000, 21133)
DECODED = (
    [0, 263, 267, 2],
    [0, 1, 2, 3, 999, 1000, 1001, 9191, 9192, 10191],
    [200, 201, 202, 7, 300, 3, 301],
    list(range(4, 300, 7)),
)
CHINESE_DECODED = (
    *DECODED,
    [0, 150, 3, 151, 152, 2],
    # Words with continuations, marks between ideographs and words.
    [117, 121, 122, 118, 126, 200, 119, 120, 210, 211, 9, 20, 22, 32, 117, 90, 91, 125, 220, 127],
)


def _record(tokenizer: Any, texts: Sequence[str], decoded: Sequence[list[int]]) -> dict[str, Any]:
    tokenizer.add_tokens([f"<code_{index}>" for index in range(8192)])
    tokenizer.add_tokens([f"<bin_{index}>" for index in range(1000)])
    return {
        "ids": [[text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts],
        "special_ids": [
            [text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in SPECIAL_TEXTS
        ],
        "texts": [
            [ids, tokenizer.batch_decode([ids], skip_special_tokens=True)[0]] for ids in decoded
        ],
    }


def record_tokens(path: Path) -> None:
    """Write what the tokenizers with code and bin tokens make of the texts and the ids above."""
    recorded: dict[str, dict[str, Any]] = {"en": {}, "zh": {}}
    for num_entries in NUM_ENTRIES:
        with tempfile.TemporaryDirectory() as folder:
            write_vocabulary(Path(folder), num_entries)
            tokenizer = OFATokenizer.from_pretrained(folder)
        recorded["en"][str(num_entries)] = _record(tokenizer, TEXTS, DECODED)
    for num_entries in CHINESE_NUM_ENTRIES:
        with tempfile.TemporaryDirectory() as folder:
            write_chinese_vocabulary(Path(folder), num_entries)
            tokenizer = OFATokenizerZH.from_pretrained(folder)
        recorded["zh"][str(num_entries)] = _record(tokenizer, CHINESE_TEXTS, CHINESE_DECODED)
    path.write_text(json.dumps(recorded, ensure_ascii=False, indent=1), encoding="utf-8")
