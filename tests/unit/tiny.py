"""A made-up OFA, so small that a test can run it hundreds of times.

Its weights are random, but it behaves: its answers depend on the picture, differ in length and
repeat themselves, so that every rule of the search has something to do.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor

from ofa.generation import Generator
from ofa.model import ModelConfig, OFAModel
from ofa.options import GenerationOptions, OptionLimits
from ofa.task_config import SearchConfig
from ofa.tasks import Task, TaskSettings
from ofa.tasks.task import option_tensors
from ofa.tokenizer import EnglishTokenizer

IMAGE_SIZE = 64
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
BOS, PAD, EOS, UNK = range(4)
NUM_CODES_AND_BINS = 9192
EOS_BONUS = 20.0

#: What the byte-level BPE is trained on: the prompt, plain captions, and text that few tokenizers
#: agree about.
CORPUS = [
    " what does the image describe?",
    " a red apple to the left of a doughnut",
    " a small dog and two cats on a wooden table in the snow",
    "It's 10% off; they've said we'll go, don't you think?  I'd say so.",
    "naïve café, Ünïcödé über alles",
    "日本語のテキスト 图片描述了什么内容?",
    "🍎🍩👩‍👩‍👧‍👦 🇫🇷",
    "1234567890 3.14159 ½ ٣ ४",
    "tabs\tand\n\nnewlines\r\n    runs of     spaces   ",
]


def write_tokenizer(folder: Path) -> int:
    """Write `vocab.json` and `merges.txt`; returns the size of the vocabulary."""
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        CORPUS, vocab_size=400, min_frequency=1, show_progress=False, special_tokens=SPECIAL_TOKENS
    )
    trainer.save_model(str(folder))
    vocab = trainer.get_vocab()
    vocab["<mask>"] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    return len(vocab)


#: What the Chinese vocabulary can spell, beside ASCII; its words are looked up whole.
CHINESE_TEXT = (
    "图片描述了什么内容?上的文字是这段哪个区域？一只小狗和两猫在雪地里，。！“”《》（）、：；…—"
)
CHINESE_WORDS = ["iphone", "hello", "world", "##ing", "##er", "##s", "13", "pro", "cafe", "σας"]


def write_chinese_tokenizer(folder: Path) -> int:
    """Write `vocab.txt` in the published layout; returns the size of the vocabulary."""
    printable = [chr(code) for code in range(33, 127)]
    pieces = [f"##{char}" for char in printable if char.isalnum()]
    bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*SPECIAL_TOKENS, *bert, *printable, *pieces, *CHINESE_WORDS, *CHINESE_TEXT, "<mask>"]
    entries = list(dict.fromkeys(entries))
    (folder / "vocab.txt").write_text("\n".join(entries) + "\n", "utf-8")
    return len(entries)


def make_config(**changes: Any) -> ModelConfig:
    """Two layers of width 32, pictures of up to 96 pixels."""
    values = {
        "vocab_size": 400 + 1 + NUM_CODES_AND_BINS,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
        "resnet_type": "resnet18",
        "image_bucket_size": 6,
    }
    return ModelConfig(**{**values, **changes})


def make_model(config: ModelConfig, seed: int = 0) -> OFAModel:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = OFAModel(config)
    embedding = model.decoder.embed_tokens.weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("c_attn"):
                parameter.uniform_(0.5, 1.5)
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(2)  # else attention is flat and the picture lost in an average
        # What was read counts for more than the last token, else it would follow itself for ever.
        model.decoder.layernorm_embedding.weight.mul_(0.3)
        # Text is likelier than codes and bins, and EOS likely enough to end some answers early.
        embedding[-NUM_CODES_AND_BINS:] *= 0.1
        end = embedding[config.eos_token_id]
        model.decoder.layer_norm.bias.copy_(EOS_BONUS * end / end.square().sum())
        # Statistics of real activations, so that the picture is not lost on its way.
        for module in model.encoder.embed_images.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        features = model.encoder.embed_images(make_pictures(16, seed) / 127.5 - 1)
        model.eval()
        image_proj = model.encoder.image_proj
        image_proj.bias.zero_()
        patches = image_proj(features.flatten(2).transpose(1, 2)).flatten(0, 1)
        image_proj.weight.mul_(3 / patches.std())
        image_proj.bias.copy_(-3 / patches.std() * patches.mean(0))
    return model


def published_state(model: OFAModel) -> dict[str, Tensor]:
    """The state dict with the token embedding under all three of its published names."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"].clone()
    return state


def write_checkpoint(folder: Path, model: OFAModel, tokenizer_folder: Path) -> None:
    """A checkpoint folder in ModelScope's layout."""
    for name in EnglishTokenizer.files:
        shutil.copy(tokenizer_folder / name, folder)
    (folder / "config.json").write_text(json.dumps(asdict(model.config)), "utf-8")
    settings = {
        "framework": "pytorch",
        "task": "image-captioning",
        "model": {
            "type": "ofa",
            "patch_image_size": IMAGE_SIZE,
            "max_src_length": 54,
            "num_return_sequences": 2,
            "beam_search": {"beam_size": 3, "max_len_b": 8},
        },
        "pipeline": {"type": "image-captioning"},
    }
    (folder / "configuration.json").write_text(json.dumps(settings), "utf-8")
    torch.save(published_state(model), folder / "pytorch_model.bin")


def make_generator(
    model: OFAModel, search: SearchConfig | None = None, mean: float = 0.5, std: float = 0.5
) -> Generator:
    """A generator around `model`."""
    return Generator(model, search or SearchConfig(), (mean,) * 3, (std,) * 3, UNK).eval()


def make_pictures(count: int, seed: int = 0, size: int = IMAGE_SIZE) -> Tensor:
    """Blocks of colour, uint8 [count, 3, size, size]."""
    random = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (count, 3, 8, 8), generator=random, dtype=torch.uint8)
    return blocks.repeat_interleave(size // 8, 2).repeat_interleave(size // 8, 3)


def stack_options(rows: list[GenerationOptions]) -> list[Tensor]:
    """Options of a batch as the generator's arguments, [B, 1] each."""
    columns = zip(*(option_tensors(row).values() for row in rows), strict=True)
    return [torch.from_numpy(np.stack(column)) for column in columns]


def make_options(**changes: Any) -> GenerationOptions:
    """Options whose every beam is returned."""
    values: dict[str, Any] = {
        "num_hypotheses": changes.get("beam_size", 3),
        "beam_size": 3,
        "max_length": 8,
        "min_length": 1,
        "no_repeat_ngram_size": 3,
        "length_penalty": 1.0,
        "temperature": 1.0,
    }
    return GenerationOptions(**{**values, **changes})


def make_settings(task: type[Task], **changes: Any) -> TaskSettings:
    """Settings of a checkpoint for `task`, English and found by beam search."""
    values: dict[str, Any] = {
        "task": task.name,
        "language": "en",
        "search": "beam",
        "prompt": task.default_prompt,
        "prompt_type": "none",
        "labels": (),
        "patch_image_size": IMAGE_SIZE,
        "max_image_size": 512,
        "is_document": False,
        "max_source_length": 256,
        "defaults": make_options(num_hypotheses=1),
        "limits": OptionLimits(max_beam_size=5, max_length=16),
    }
    return TaskSettings(**{**values, **changes})
