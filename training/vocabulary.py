"""The small vocabulary: every word that captions and the prompt use is one token."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.things import load_things

# The constant prompt of OFA's captioning task.
PROMPT = " what does the image describe?"
BOS_ID, PAD_ID, EOS_ID = 0, 1, 2
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
# Picture codes and coordinate bins that every OFA checkpoint has rows for after its words.
NUM_CODES_AND_BINS = 8192 + 1000


def _corpus() -> Iterable[str]:
    yield PROMPT
    yield " to the left of above and"
    for thing in load_things():
        yield f" {thing.phrase}"


def train_tokenizer() -> Tokenizer:
    """Learns byte-level merges until no word is in pieces; the same on every run."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_000_000,
        min_frequency=1,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


def vocab_size(tokenizer: Tokenizer) -> int:
    """Rows of the model's embedding: words, codes and bins."""
    return int(tokenizer.get_vocab_size()) + NUM_CODES_AND_BINS


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes vocab.json and merges.txt as BART's tokenizer reads them."""
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = json.dumps(dict(vocab), ensure_ascii=False)
    (directory / "vocab.json").write_text(text + "\n", encoding="utf-8")
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
