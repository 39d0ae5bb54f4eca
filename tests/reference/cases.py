"""What is asked of the reference: checkpoint, settings and requests of every recording."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.reference.checkpoints import RECIPES, Calibration, digest, write_checkpoint
from tests.reference.draw_pictures import FOLDER as PICTURES

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "checkpoints"
SAMPLES = ROOT / "samples"

# Cases that turn on a margin below 2e-5 nat, where rounding may decide otherwise: "case/request".
TIES: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked once.

    Attributes:
        image: File name of a picture, None for a task without.
        text: The first text, None for a task without.
        text2: The second text.
    """

    image: str | None = None
    text: str | None = None
    text2: str | None = None

    @property
    def name(self) -> str:
        """What the recording calls it."""
        return " | ".join(part for part in dataclasses.astuple(self) if part is not None)


def _pictures(*names: str) -> tuple[Request, ...]:
    return tuple(Request(name) for name in names)


ALL_PICTURES = _pictures(*sorted(path.name for path in PICTURES.iterdir()))
THREE_PICTURES = _pictures("scene.jpg", "turned.jpg", "palette.png")
PUBLISHED_SEARCH = {"beam_size": 5, "max_len_b": 16, "min_len": 1, "no_repeat_ngram_size": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording.

    Attributes:
        name: File name of the recording.
        checkpoint: Name of a recipe, or of a checkpoint that the project ships.
        settings: The `model` block of `configuration.json`; a shipped checkpoint has its own.
        requests: What is asked.
        task: ModelScope's name, or "generate", our own.
        labels: What `answer2label` holds.
        picture_folder: Where the pictures are.
        ensemble: What a shipped checkpoint is served as; "caption" is its own `configuration.json`.
    """

    name: str
    checkpoint: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    requests: tuple[Request, ...] = THREE_PICTURES
    task: str = "image-captioning"
    labels: tuple[str, ...] = ()
    picture_folder: Path = PICTURES
    ensemble: str = "caption"

    @property
    def size(self) -> str:
        """What `make parity PARITY_SIZES=…` calls it: a published size, small or bundled."""
        return self.checkpoint.partition("-")[0] if self.checkpoint in RECIPES else "bundled"

    def prepare(self, scratch: Path) -> Path:
        """Build or copy the checkpoint's folder below `scratch`, as the reference reads it."""
        folder = scratch / self.name
        if self.checkpoint in RECIPES:
            recipe = RECIPES[self.checkpoint]
            calibration = Calibration.load(recipe)
            write_checkpoint(folder, recipe, calibration, self.settings, self.task, self.labels)
            return folder
        shutil.copytree(CHECKPOINTS / self.checkpoint, folder)
        if self.ensemble != "caption":
            # The reference reads `configuration.json` only.
            shutil.copy(folder / "tasks" / f"{self.ensemble}.json", folder / "configuration.json")
        return folder


def weights_sha256(folder: Path) -> str:
    """The digest of a checkpoint folder's stored weights."""
    path = folder / "pytorch_model.bin"
    return digest(torch.load(path, weights_only=True, mmap=True))


def _search(name: str, checkpoint: str = "small", **beam_search: Any) -> Case:
    """A case whose `beam_search` block differs from the published one."""
    return Case(name, checkpoint, {"beam_search": {**PUBLISHED_SEARCH, **beam_search}})


CAPTIONING = (
    Case("tiny", "tiny", {"beam_search": PUBLISHED_SEARCH}, ALL_PICTURES),
    Case("medium", "medium", {"beam_search": PUBLISHED_SEARCH}, _pictures("scene.jpg")),
    Case("base", "base", {"beam_search": PUBLISHED_SEARCH}),
    Case("large", "large", {"beam_search": PUBLISHED_SEARCH}, _pictures("scene.jpg", "turned.jpg")),
    Case("huge", "huge", {"beam_search": PUBLISHED_SEARCH}, _pictures("scene.jpg")),
    _search("heads-of-80", "small-heads-of-80"),
    _search("beam-1", beam_size=1),
    _search("beam-2", beam_size=2),
    _search("beam-12", beam_size=12),
    _search("length-penalty-0", len_penalty=0.0),
    _search("length-penalty-0.6", len_penalty=0.6),
    _search("length-penalty-1.8", len_penalty=1.8),
    _search("ngram-0", no_repeat_ngram_size=0),
    _search("ngram-1", no_repeat_ngram_size=1),
    _search("ngram-2", no_repeat_ngram_size=2),
    _search("temperature-0.7", temperature=0.7),
    _search("temperature-1.6", temperature=1.6),
    _search("max-length-1", max_len_b=1),
    _search("max-length-40", max_len_b=40),
    _search("min-length-0", min_len=0),
    _search("min-length-9", min_len=9),
    _search("exact-length-4", min_len=4, max_len_b=4),
    _search("length-by-prompt", max_len_a=1.3, max_len_b=1),
    _search("match-source-length", match_source_len=True),
    _search("unnormalized", normalize_scores=False),
    # A penalty below zero makes the unknown token likelier than any other.
    _search("unknown-wanted", unk_penalty=-41.0),
    Case("defaults", "small"),
    Case("three-captions", "small", {"num_return_sequences": 3}),
    Case("imagenet-statistics", "small", {"imagenet_default_mean_and_std": True}),
    Case("256-pixels", "small", {"patch_image_size": 256}),
    Case("672-pixels", "small", {"patch_image_size": 672}),
    Case("other-prompt", "small", {"prompt": "  What's on the naïve 日本 plate, <bin_1000>?"}),
    Case("cut-prompt", "small", {"max_src_length": 3}),
    Case("shared-bias", "small-shared-bias"),
    Case("interpolated", "small-interpolated"),
    Case("float16", "small-float16"),
    Case(
        "everything",
        "small-shared-bias",
        {
            "beam_search": {
                "beam_size": 7,
                "max_len_a": 0.5,
                "max_len_b": 18,
                "min_len": 3,
                "no_repeat_ngram_size": 2,
                "len_penalty": 0.8,
                "temperature": 0.9,
                "unk_penalty": 0.5,
            },
            "num_return_sequences": 3,
            "imagenet_default_mean_and_std": True,
            "patch_image_size": 384,
            "prompt": " what is on the plate?",
        },
    ),
)

# Fewer pixels than published, for speed; one case a task has the published 480 or 512.
_FEW_PIXELS = {"patch_image_size": 224}

# MUGE and the meme captioner: the search of `generate_caption_cn.sh`, shortened.
_CHINESE_PROMPT = {"prompt": "图片描述了什么内容?"}
_MUGE = {**_CHINESE_PROMPT, "beam_search": {"beam_size": 8, "max_len_b": 24}}
_MEME = {**_CHINESE_PROMPT, "language": "cn", "num_return_sequences": 2}

CHINESE_CAPTIONING = (
    Case("captioning-muge", "small-zh", _MUGE),
    Case("captioning-meme", "small-zh", {**_MEME, **_FEW_PIXELS}),
    Case("tiny-zh", "tiny-zh", _MUGE, _pictures("scene.jpg", "portrait.jpg")),
    Case("base-zh", "base-zh", _MUGE, _pictures("scene.jpg")),
    Case("large-zh", "large-zh", _MEME, _pictures("scene.jpg", "turned.jpg")),
)

_QUESTIONS = (
    Request("scene.jpg", "what is on the table?"),
    Request("turned.jpg", " ?!.#What's  left/right of the red-white\tball's \n chair"),
    Request("palette.png", '日本 naïve 🍎 <person>, {} "10%" off … ~'),
)
# Labels that begin like others, that share no token, with odd characters and of one letter.
_ANSWERS = (
    *("yes", "yes it is", "yes it is red", "no", "not at all", "no, it's not", "one", "one red"),
    *("one red ball", "two", "white", "日本", "10%", "a", "black and white", "standing near water"),
)

QUESTION_ANSWERING = tuple(
    Case(
        name, "small", {**_FEW_PIXELS, **settings}, _QUESTIONS, "visual-question-answering", labels
    )
    for name, settings, labels in (
        ("vqa-generation", {}, ()),
        ("vqa-two-answers", {"num_return_sequences": 2, "beam_search": {"len_penalty": 0.5}}, ()),
        ("vqa-cut-question", {"max_src_length": 5}, ()),
        ("vqa-trie", {"beam_search": {"max_len_b": 30}}, _ANSWERS),
        (
            "vqa-trie-all",
            {"beam_search": {"beam_size": 16, "max_len_b": 30, "normalize_scores": False}},
            _ANSWERS,
        ),
        ("vqa-trie-ngram", {"beam_search": {"no_repeat_ngram_size": 1, "max_len_b": 9}}, _ANSWERS),
        ("vqa-traverse", {"gen_type": "traverse"}, _ANSWERS),
        (
            "vqa-traverse-after-question",
            {"gen_type": "traverse", "prompt_type": "prev_output", "valid_batch_size": 5},
            _ANSWERS,
        ),
        ("vqa-traverse-source", {"gen_type": "traverse", "prompt_type": "src"}, _ANSWERS),
    )
)

_REGIONS = (
    Request("scene.jpg", "A red-white  ball, on the table"),
    Request("turned.jpg", '..the <person> under/behind "the" {tree}'),
    Request("strip.png", "dog"),
)
_CHINESE_REGIONS = (
    Request("portrait.jpg", " 一个圆头的蓝色宝可梦"),
    Request("mirrored.png", "左边的 iPhone 10，Café/红花"),
)
# `evaluate_refcoco.sh`; the range is OFA-Compress's.
_FOUR_TOKENS = {"beam_size": 5, "max_len_b": 4, "min_len": 4}
_SMALL_RANGE = {**_FOUR_TOKENS, "constraint_range": "9192,10192"}
_REGION_PROMPT = {"prompt": '这段文字" {} "描述的是哪个区域？'}

GROUNDING = (
    *(
        Case(name, recipe, settings, _REGIONS, "visual-grounding")
        for name, recipe, settings in (
            ("grounding", "small", {"patch_image_size": 512, "beam_search": _SMALL_RANGE}),
            ("grounding-480", "small", {"beam_search": _SMALL_RANGE}),
            (
                "grounding-wide",
                "small",
                {**_FEW_PIXELS, "max_image_size": 640, "beam_search": _SMALL_RANGE},
            ),
            ("grounding-free", "small-bins", {**_FEW_PIXELS, "beam_search": _FOUR_TOKENS}),
        )
    ),
    Case(
        "grounding-zh",
        "small-zh",
        {**_REGION_PROMPT, **_FEW_PIXELS, "beam_search": _SMALL_RANGE},
        _CHINESE_REGIONS,
        "visual-grounding",
    ),
)

_PREMISES = (
    Request("scene.jpg", "There is a small cat, on the chair.", "a dog/cat is  SITTING"),
    Request("turned.jpg", "...a woman is riding", "<person> - riding"),
    Request("palette.png", "日本"),
    Request("scene.jpg", "two people walking near the water"),
)
_SHORT_PREMISES = tuple(dataclasses.replace(request, text2=None) for request in _PREMISES)
_JUDGEMENTS = ("no", "yes", "maybe")
_AFTER_SOURCE = {"prompt_type": "prev_output", **_FEW_PIXELS}

ENTAILMENT = (
    *(
        Case(name, "small", {**_FEW_PIXELS, **settings}, _PREMISES, "visual-entailment", labels)
        for name, settings, labels in (
            ("entailment-traverse", {**_AFTER_SOURCE, "gen_type": "traverse"}, _JUDGEMENTS),
            ("entailment-traverse-none", {"gen_type": "traverse"}, _JUDGEMENTS),
            (
                "entailment-traverse-source",
                {"gen_type": "traverse", "prompt_type": "src"},
                _JUDGEMENTS,
            ),
            (
                "entailment-trie",
                {**_AFTER_SOURCE, "beam_search": {"beam_size": 3, "max_len_b": 60}},
                _JUDGEMENTS,
            ),
            (
                "entailment-trie-none",
                {"beam_search": {"beam_size": 3}, "num_return_sequences": 3},
                _JUDGEMENTS,
            ),
            ("entailment-free", {**_AFTER_SOURCE, "beam_search": {"max_len_b": 60}}, ()),
            # Longer than the shorter prompts, which suspend it while they last.
            (
                "entailment-min-length",
                {**_AFTER_SOURCE, "beam_search": {"max_len_b": 48, "min_len": 30}},
                (),
            ),
            (
                "entailment-free-cut",
                {**_AFTER_SOURCE, "beam_search": {"max_len_b": 12, "no_repeat_ngram_size": 2}},
                (),
            ),
        )
    ),
    Case(
        "entailment-one-slot",
        "small",
        {**_AFTER_SOURCE, "gen_type": "traverse", "prompt": ' is " {} " right?'},
        _PREMISES[:2],
        "visual-entailment",
        ("yes", "no"),
    ),
    Case(
        "entailment-zh",
        "small-zh",
        {
            **_AFTER_SOURCE,
            "prompt": "图片描述了 {} ？",
            "beam_search": {"beam_size": 2, "max_len_b": 40},
        },
        (Request("scene.jpg", "红花"), Request("turned.jpg", "没有 iPhone/人")),
        "visual-entailment",
        ("是", "不是", "可能"),
    ),
)


def _names(count: int) -> tuple[str, ...]:
    """Labels in the manner of ImageNet's: one to three names, commas between."""
    words = ("red", "blue", "green", "white", "black", "small", "large", "old", "young", "wearing")
    things = ("cat", "dog", "bird", "horse", "boat", "car", "bus", "train", "chair", "ball")
    pairs = [f"{word} {thing}" for word, thing in itertools.product(words, things)]
    triples = (", ".join(parts) for parts in itertools.product(pairs, ("tree", *things), things))
    return tuple(itertools.islice(itertools.chain(things, pairs, triples), count))


_IMAGENET = {"gen_type": "traverse", "imagenet_default_mean_and_std": True, "valid_batch_size": 20}

CLASSIFICATION = (
    Case(
        "classification",
        "small",
        {**_IMAGENET, **_FEW_PIXELS},
        THREE_PICTURES,
        "image-classification",
        _names(200),
    ),
    Case(
        "classification-trie",
        "small",
        {**_FEW_PIXELS, "imagenet_default_mean_and_std": True},
        THREE_PICTURES,
        "image-classification",
        _names(40),
    ),
    Case(
        "large-classification",
        "large",
        _IMAGENET,
        _pictures("scene.jpg"),
        "image-classification",
        _names(1000),
    ),
)

_OCR_PICTURES = _pictures("scene.jpg", "portrait.jpg", "strip.png")
# `evaluate_ocr.sh`, shortened.
_OCR_SEARCH = {"beam_size": 5, "max_len_b": 24, "min_len": 1, "no_repeat_ngram_size": 0}
_OCR = {"beam_search": _OCR_SEARCH, "max_src_length": 128, "max_image_size": 480}
_ENGLISH_OCR = {**_OCR, "prompt": " what are the texts on the image?"}

RECOGNITION = tuple(
    Case(name, recipe, settings, pictures, "ocr-recognition")
    for name, recipe, settings, pictures in (
        ("ocr-scene-zh", "small-zh", {**_OCR, **_FEW_PIXELS}, _OCR_PICTURES),
        ("ocr-document-zh", "small-zh", {**_OCR, "is_document": True}, _OCR_PICTURES),
        (
            "ocr-scene",
            "small",
            _ENGLISH_OCR,
            (*_OCR_PICTURES, *_pictures("turned.jpg", "one_pixel.png")),
        ),
        ("ocr-document", "small", {**_ENGLISH_OCR, "is_document": True}, _OCR_PICTURES[:2]),
    )
)

_ARTICLES = (
    Request(
        text="the old man and the SEA-bird: [UNK] people  standing near/in the water , <unk> ."
    ),
    Request(
        text='??two "young" children riding a red {horse} over 10 tables , 2024 ... '
        "it's <person>\n"
    ),
    Request(text="日本"),
)

SUMMARIZATION = (
    *(
        Case(name, "small", settings, _ARTICLES, "text-summarization")
        for name, settings in (
            ("summarization", {}),
            # `evaluate_gigaword.sh`
            (
                "summarization-gigaword",
                {
                    "prompt": ' what is the summary of article " {} "?',
                    "max_src_length": 512,
                    "beam_search": {"beam_size": 6, "max_len_b": 32, "len_penalty": 0.7},
                },
            ),
            ("summarization-by-length", {"beam_search": {"max_len_a": 0.4, "max_len_b": 2}}),
            ("summarization-cut", {"max_src_length": 6}),
        )
    ),
    Case(
        "summarization-zh",
        "small-zh",
        {"prompt": "{} 请用一个句子简单总结上文："},
        (Request(text="红花 和 白花，hello World。"), Request(text="他/她没有 iPhone 10 吗？")),
        "text-summarization",
    ),
)

_SENTENCES = (
    Request(text="  The old man is\twalking.", text2="a man IS walking - slowly?"),
    Request(text="#two dogs/cats", text2="日本 {} 10%"),
    Request(text="", text2="rain"),
)

TEXT_CLASSIFICATION = tuple(
    Case(name, "small", settings, _SENTENCES, "text-classification", labels)
    for name, settings, labels in (
        (
            "text-classification-traverse",
            {"gen_type": "traverse", "prompt_type": "prev_output"},
            ("maybe", "yes", "no"),
        ),
        ("text-classification-traverse-none", {"gen_type": "traverse"}, ("maybe", "yes", "no")),
        (
            "text-classification-traverse-source",
            {"gen_type": "traverse", "prompt_type": "src"},
            ("maybe", "yes", "yes it is", "no"),
        ),
        (
            "text-classification-trie",
            {"prompt_type": "prev_output", "beam_search": {"beam_size": 3, "max_len_b": 60}},
            ("maybe", "yes", "yes it is", "no"),
        ),
        (
            "text-classification-free",
            {"prompt_type": "prev_output", "beam_search": {"max_len_b": 60}},
            (),
        ),
        ("text-classification-none", {"num_return_sequences": 2}, ()),
    )
)

GENERATION = (
    Case(
        "generate-picture",
        "small",
        _FEW_PIXELS,
        (
            Request(
                "scene.jpg", "  what does the region describe? region: <bin_10> <bin_200><bin_999>"
            ),
            Request("turned.jpg", " What's <mask> in the {image}, 日本?"),
            Request("palette.png", "<code_8191>"),
        ),
        "generate",
    ),
    Case(
        "generate-boxes",
        "small-bins",
        {**_FEW_PIXELS, "beam_search": {"no_repeat_ngram_size": 0}},
        (Request("scene.jpg", " what are the objects in the image?"),),
        "generate",
    ),
    Case(
        "generate-zh",
        "small-zh",
        _FEW_PIXELS,
        (
            Request("scene.jpg", "图片描述了什么内容?"),
            Request("turned.jpg", "这里<mask>是什么 <bin_10><bin_999>"),
        ),
        "generate",
    ),
    Case(
        "generate-text",
        "small",
        {},
        (
            Request(text=' what is the complete text of " the old <mask> "?'),
            Request(text="The {} Tree - standing/..."),
        ),
        "generate",
    ),
)

# The same at the published sizes.
_TINY_RANGE = {**_FOUR_TOKENS, "constraint_range": "58457,59457"}

PUBLISHED_SIZES = (
    Case("tiny-vqa", "tiny", {}, _QUESTIONS[:2], "visual-question-answering"),
    Case(
        "tiny-grounding",
        "tiny",
        {"patch_image_size": 512, "beam_search": _TINY_RANGE},
        _REGIONS[:2],
        "visual-grounding",
    ),
    Case(
        "tiny-grounding-zh",
        "tiny-zh",
        {
            **_REGION_PROMPT,
            "patch_image_size": 512,
            "beam_search": {**_FOUR_TOKENS, "constraint_range": "29325,30325"},
        },
        _CHINESE_REGIONS[:1],
        "visual-grounding",
    ),
    Case(
        "tiny-entailment",
        "tiny",
        {"prompt_type": "prev_output", "gen_type": "traverse"},
        _SHORT_PREMISES[:3],
        "visual-entailment",
        _JUDGEMENTS,
    ),
    Case(
        "tiny-classification",
        "tiny",
        _IMAGENET,
        _pictures("scene.jpg", "turned.jpg"),
        "image-classification",
        _names(60),
    ),
    Case(
        "tiny-generate",
        "tiny",
        {},
        (
            Request("scene.jpg", " what is <mask> of the region? region: <bin_10> <bin_200>"),
            Request("turned.jpg", " where is the old car?"),
        ),
        "generate",
    ),
    Case("tiny-ocr", "tiny-zh", _OCR, _OCR_PICTURES[:2], "ocr-recognition"),
    Case(
        "tiny-summarization",
        "tiny",
        {"beam_search": {"beam_size": 6, "max_len_b": 32, "len_penalty": 0.7}},
        _ARTICLES[:2],
        "text-summarization",
    ),
    Case(
        "tiny-text-classification",
        "tiny",
        {"prompt_type": "prev_output", "gen_type": "traverse"},
        _SENTENCES[:2],
        "text-classification",
        ("maybe", "yes", "no"),
    ),
    Case("base-ocr", "base-zh", _OCR, _pictures("portrait.jpg"), "ocr-recognition"),
    Case(
        "large-entailment",
        "large",
        {"prompt_type": "prev_output", "gen_type": "traverse"},
        _PREMISES[:1],
        "visual-entailment",
        _JUDGEMENTS,
    ),
    Case(
        "large-grounding",
        "large",
        {"patch_image_size": 512, "beam_search": _TINY_RANGE},
        _REGIONS[:1],
        "visual-grounding",
    ),
)

# The ViT's own 224 pixels, and two sizes for which it stretches its positions.
OFASYS = (
    Case("ofasys", "small-ofasys", {"patch_image_size": 224}),
    Case("ofasys-shared-bias", "small-ofasys-shared-bias", {"patch_image_size": 320}),
    Case("ofasys-entangled", "small-ofasys-entangled", {"patch_image_size": 224}),
    Case("ofasys-entangled-encoder", "small-ofasys-entangled-encoder", {"patch_image_size": 192}),
)

# What the English checkpoint is served as, its task, and the client's verb for it.
_SERVED = (
    ("caption", "image-captioning", "caption"),
    ("vqa", "visual-question-answering", "answer"),
    ("grounding", "visual-grounding", "ground"),
    ("entailment", "visual-entailment", "entail"),
    ("classification", "image-classification", "classify"),
    ("ocr", "ocr-recognition", "read_text"),
    ("summarization", "text-summarization", "summarize"),
    ("text_classification", "text-classification", "classify_text"),
    ("generate", "generate", "generate"),
)


def _bundled() -> Iterator[Case]:
    """What the demo asks of the checkpoints that the project ships."""
    asked = json.loads((ROOT / "examples" / "requests.json").read_text(encoding="utf-8"))
    english, chinese = CHECKPOINTS / "ofa-emoji-tiny_en", CHECKPOINTS / "ofa-emoji-tiny_zh"
    for ensemble, task, verb in _SERVED:
        requests = tuple(
            Request(
                given.get("image"),
                given.get("question", given.get("prompt", given.get("text"))),
                given.get("text2"),
            )
            for given in asked[verb]
        )
        yield Case(
            "bundled" if ensemble == "caption" else f"bundled-{ensemble}",
            english.name,
            requests=requests,
            task=task,
            picture_folder=SAMPLES,
            ensemble=ensemble,
        )
    captioned = tuple(Request(given["image"]) for given in asked["caption"])
    yield Case("bundled-zh", chinese.name, requests=captioned, picture_folder=SAMPLES)


CASES = {
    case.name: case
    for group in (
        CAPTIONING,
        CHINESE_CAPTIONING,
        QUESTION_ANSWERING,
        GROUNDING,
        ENTAILMENT,
        CLASSIFICATION,
        RECOGNITION,
        SUMMARIZATION,
        TEXT_CLASSIFICATION,
        GENERATION,
        OFASYS,
        PUBLISHED_SIZES,
        tuple(_bundled()),
    )
    for case in group
}
