"""Records the reference tokenizer: ids of texts, and texts of ids."""

import json
import tempfile
from pathlib import Path

from tests.reference.vocabulary import write_vocabulary

import tests.reference.oracle.environment  # noqa: F401  # isort: skip  # stand-ins before modelscope
from modelscope.models.multi_modal.ofa import OFATokenizer  # isort: skip

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
NUM_ENTRIES = (1000, 50265)
DECODED = (
    [0, 263, 267, 2],
    [0, 1, 2, 3, 999, 1000, 1001, 9191, 9192, 10191],
    [200, 201, 202, 7, 300, 3, 301],
    list(range(4, 300, 7)),
)


def record_tokens(path: Path) -> None:
    """Write what the tokenizer with code and bin tokens makes of `TEXTS` and `DECODED`."""
    recorded = {}
    for num_entries in NUM_ENTRIES:
        with tempfile.TemporaryDirectory() as folder:
            write_vocabulary(Path(folder), num_entries)
            tokenizer = OFATokenizer.from_pretrained(folder)
        tokenizer.add_tokens([f"<code_{index}>" for index in range(8192)])
        tokenizer.add_tokens([f"<bin_{index}>" for index in range(1000)])
        recorded[num_entries] = {
            "ids": [
                [text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS
            ],
            "texts": [
                [ids, tokenizer.batch_decode([ids], skip_special_tokens=True)[0]] for ids in DECODED
            ],
        }
    path.write_text(json.dumps(recorded, ensure_ascii=False, indent=1), encoding="utf-8")
