"""The small vocabularies: every English word of the training is one token, every Chinese character.

Picture codes and location bins follow the words by arithmetic, as in every OFA checkpoint.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training import tasks
from training.things import load_things
from training.words import load_words

BOS_ID, PAD_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
NUM_CODES, NUM_BINS = 8192, 1000


def caption_corpus() -> Iterable[str]:
    """All words of English captions and of their prompt."""
    yield tasks.PROMPTS["caption"]
    yield " to the left of above and"
    for thing in load_things():
        yield f" {thing.phrase}"


def task_corpus() -> Iterable[str]:
    """All words of the English tasks."""
    yield from caption_corpus()
    for prompt in (*tasks.PROMPTS.values(), tasks.ENTAILMENT_PROMPT_OF_TWO):
        if prompt.isascii() and prompt != tasks.PROMPTS["caption"]:
            yield prompt.format("", "")
    for words in (tasks.LABELS, tasks.NUMBERS, tasks.QUALITIES, tasks.FILLERS, load_words()):
        yield from (f" {word}" for word in words)
    yield " how many things are there? do you see what is in the picture? nothing left of right of"
    yield " to the right of below on the left at the top bottom middle"
    yield " the picture shows the number of things is. there is it is they are."


def train_tokenizer(corpus: Iterable[str]) -> Tokenizer:
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
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([MASK])
    return tokenizer


def chinese_tokenizer() -> Tokenizer:
    """BERT's tokenizer over the characters of the prompt, the captions and the names."""
    texts = [tasks.PROMPTS["caption_zh"], "一张图片里有", "位于的左边右边上面下面中间，"]
    texts.append("从左往右看是、和")
    texts += [thing.chinese for thing in load_things()]
    characters = sorted(set("".join(texts)))
    tokens = [*SPECIAL_TOKENS, "[UNK]", *characters, MASK]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=SPECIAL_TOKENS[UNK_ID]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def first_bin_id(tokenizer: Tokenizer) -> int:
    """Id of the first location bin."""
    return int(tokenizer.get_vocab_size()) + NUM_CODES


def vocab_size(tokenizer: Tokenizer) -> int:
    """Rows of the model's embedding: words, codes and bins."""
    return first_bin_id(tokenizer) + NUM_BINS


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes vocab.json and merges.txt as BART's tokenizer reads them, or vocab.txt as BERT's."""
    vocab = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] == "WordPiece":
        (directory / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
        return
    text = json.dumps(vocab, ensure_ascii=False)
    (directory / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
