"""Measures how often the served models are right, task by task.

    ofa serve --repository build/model_repository &
    python -m training.evaluate --server localhost:8001
    python -m training.evaluate --save DIR      asks nobody; writes what `ofa evaluate` reads

Pictures are drawn as in training, but on larger canvases of any proportions, with pairs of things
(and of words, on signs) that training never showed together, and sent as files. One row a task;
one column each for the drawings and fonts of training and for those left out; last, what always
giving the most common answer would get.
"""

from __future__ import annotations

import argparse
import io
import json
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ofa_client import OFAClient
from ofa_server.evaluation.boxes import overlap
from training.render import Box, Painter
from training.scenes import chinese_captions, compose
from training.sprites import LEFT_OUT_STYLE, SPRITE_SIZE, TRAINING_STYLES
from training.tasks import ABOUT_SCENES, ABOUT_TEXTS, Example, ask_words
from training.words import LEFT_OUT_FONT, TRAINING_FONTS, compose_sign, paint_sign

SEED = 2026
# Sides of the canvases of scenes in pixels, proportions from 3:4 to 4:3, and the height of signs.
MIN_SIDE, MAX_SIDE = 300, 400
SIGN_HEIGHT = 200
MIN_OVERLAP = 0.5
PNG_SIGNATURE = b"\x89PNG"
NUM_CONCURRENT_CALLS = 4
CHINESE_MODEL = "caption_zh"

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Case(NamedTuple):
    """A question with what may be answered.

    Attributes:
        image: an encoded picture; empty for a task on texts.
        texts: the caller's.
        answers: any of which is right.
        box: the right one in pixels, where a box is asked for.
    """

    image: bytes
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    box: Box | None = None


def encode(image: Image.Image, *, as_png: bool) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "PNG"} if as_png else {"format": "JPEG", "quality": 90}))
    return buffer.getvalue()


def scene_case(painter: Painter, task: str, counts: Sequence[int], index: int) -> Case:
    """A case about a new scene of as many things as one of `counts`."""
    rng = np.random.default_rng([SEED, *counts, index])
    scene = compose(rng, painter.styles_of, int(rng.choice(counts)), unseen=True)
    width, height = rng.integers(MIN_SIDE, MAX_SIDE + 1, size=2).tolist()
    picture = painter.paint(scene, width, height, grid=1)
    image = encode(picture.image, as_png=index % 2 == 1)
    example = ABOUT_SCENES[task](rng, scene, picture.boxes)
    if task == "caption_zh":
        return Case(image, (), chinese_captions(scene))
    if example.box is None:
        return Case(image, example.texts, (example.answer,))
    left, top, right, bottom = example.box
    box = (left * width, top * height, right * width, bottom * height)
    return Case(image, example.texts, (), box)


def sign_case(fonts: Sequence[str], index: int) -> Case:
    """A case about a new sign."""
    rng = np.random.default_rng([SEED, index])
    sign = compose_sign(rng, fonts, unseen=True)
    image, _ = paint_sign(sign, SIGN_HEIGHT)
    return Case(encode(image, as_png=index % 2 == 1), (), (ask_words(sign).answer,))


def text_case(task: str, index: int) -> Case:
    """A case without a picture."""
    example: Example = ABOUT_TEXTS[task](np.random.default_rng([SEED, index]))
    return Case(b"", example.texts, (example.answer,))


def same_text(text: str, case: Case) -> bool:
    """Whether a text is one of the answers, punctuation aside: the reference deletes it."""
    return text in {answer.translate(_WITHOUT_PUNCTUATION) for answer in case.answers}


def both_captions(client: OFAClient, case: Case) -> bool:
    """Whether the two best Chinese captions are the two true ones."""
    captions = client.caption(case.image, model=CHINESE_MODEL).captions
    return {caption.text for caption in captions} == set(case.answers)


def right_box(client: OFAClient, case: Case) -> bool:
    """Whether the best box overlaps the right one by half."""
    assert case.box is not None
    box = client.ground(case.image, *case.texts).box
    return box is not None and overlap((box.x0, box.y0, box.x1, box.y1), case.box) >= MIN_OVERLAP


# Whether a served model is right about a case, by task.
CHECKS: Mapping[str, Callable[[OFAClient, Case], bool]] = {
    "caption": lambda client, case: same_text(client.caption(case.image).text, case),
    "caption_zh": lambda client, case: (
        client.caption(case.image, model=CHINESE_MODEL).text in case.answers
    ),
    "vqa": lambda client, case: same_text(client.answer(case.image, *case.texts).text, case),
    "grounding": right_box,
    "entailment": lambda client, case: client.entail(case.image, *case.texts).label in case.answers,
    "classification": lambda client, case: client.classify(case.image).label in case.answers,
    "ocr": lambda client, case: same_text(client.read_text(case.image).text, case),
    "summarization": lambda client, case: same_text(client.summarize(*case.texts).text, case),
    "text_classification": lambda client, case: (
        client.classify_text(*case.texts).label in case.answers
    ),
}


def share_right(
    client: OFAClient, check: Callable[[OFAClient, Case], bool], cases: Sequence[Case]
) -> float:
    """Share of the cases that a check passes."""
    with ThreadPoolExecutor(NUM_CONCURRENT_CALLS) as pool:
        results = pool.map(lambda case: check(client, case), cases)
        return sum(tqdm(results, total=len(cases), leave=False)) / len(cases)


def most_common_share(cases: Sequence[Case]) -> float:
    """Share that the most common answer gets; of boxes, the whole picture."""
    boxes = [case.box for case in cases if case.box is not None]
    if boxes:
        sizes = (Image.open(io.BytesIO(case.image)).size for case in cases)
        return sum(
            overlap((0.0, 0.0, float(width), float(height)), box) >= MIN_OVERLAP
            for (width, height), box in zip(sizes, boxes, strict=True)
        ) / len(cases)
    return Counter(case.answers[0] for case in cases).most_common(1)[0][1] / len(cases)


# What `ofa evaluate` reads of a case beside its picture, by its tasks.
ANNOTATIONS: Mapping[str, Callable[[Case], dict[str, Any]]] = {
    "caption": lambda case: {"captions": case.answers},
    "vqa": lambda case: {"question": case.texts[0], "answers": case.answers},
    "grounding": lambda case: {"text": case.texts[0], "box": case.box},
}


def save(folder: Path, task: str, cases: Sequence[Case]) -> Path:
    """Writes cases for `ofa evaluate`: the pictures into `folder`/`task`, what is true beside it.

    Returns:
        The file of annotations.
    """
    (folder / task).mkdir(parents=True, exist_ok=True)
    annotations = folder / f"{task}.jsonl"
    with annotations.open("w", encoding="utf-8") as file:
        for number, case in enumerate(cases):
            suffix = "png" if case.image.startswith(PNG_SIGNATURE) else "jpg"
            image = f"{task}/{number}.{suffix}"
            (folder / image).write_bytes(case.image)
            file.write(json.dumps({"image": image, **ANNOTATIONS[task](case)}) + "\n")
    return annotations


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the served models get right.")
    parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
    parser.add_argument("--num-cases", type=int, default=1000, help="a row and column")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help=f"write cases of {', '.join(ANNOTATIONS)} with the drawings of training; ask nobody",
    )
    arguments = parser.parse_args()
    indices = range(arguments.num_cases)
    seen = Painter(TRAINING_STYLES, SPRITE_SIZE)

    def scenes_of(painter: Painter, task: str, *counts: int) -> list[Case]:
        return [scene_case(painter, task, counts, index) for index in indices]

    if arguments.save is not None:
        for task in ANNOTATIONS:
            print(save(arguments.save, task, scenes_of(seen, task, 1, 2, 3)))
        return

    left_out = Painter((LEFT_OUT_STYLE,), SPRITE_SIZE)

    def scenes(task: str, *counts: int) -> list[list[Case]]:
        return [scenes_of(painter, task, *counts) for painter in (seen, left_out)]

    rows = [
        *((f"caption, things: {n}", CHECKS["caption"], scenes("caption", n)) for n in (1, 2, 3)),
        ("vqa", CHECKS["vqa"], scenes("vqa", 1, 2, 3)),
        ("grounding", CHECKS["grounding"], scenes("grounding", 1, 2, 3)),
        ("entailment", CHECKS["entailment"], scenes("entailment", 1, 2, 3)),
        ("classification", CHECKS["classification"], scenes("classification", 1)),
        (
            "ocr",
            CHECKS["ocr"],
            [
                [sign_case(fonts, index) for index in indices]
                for fonts in (TRAINING_FONTS, (LEFT_OUT_FONT,))
            ],
        ),
        *(
            (task, CHECKS[task], [[text_case(task, index) for index in indices]])
            for task in ABOUT_TEXTS
        ),
        *(
            (f"Chinese caption, things: {n}", CHECKS["caption_zh"], scenes("caption_zh", n))
            for n in (1, 2, 3)
        ),
        ("Chinese, both captions", both_captions, scenes("caption_zh", 1, 2, 3)),
    ]
    print("| task | as in training | left out | most common answer |\n|---|---|---|---|")
    with OFAClient(arguments.server) as client:
        for name, check, columns in rows:
            shares = [f"{share_right(client, check, cases):.1%}" for cases in columns]
            baseline = f"{most_common_share(columns[0]):.1%}"
            cells = [name, *shares, *["-"] * (2 - len(shares)), baseline]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
