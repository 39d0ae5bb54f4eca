"""Measures how often the served model gets a caption exactly right.

    ofa serve --repository build/model_repository &
    python -m training.evaluate --server localhost:8001

Pictures are drawn as in training, but on larger canvases of any proportions, with pairs of things
that training never showed together, and sent as files. One row a number of things and kind of
drawing; beside each share the one that always answering the most common caption would get.
"""

import argparse
import io
import string
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from ofa_client import OFAClient
from training.render import Painter
from training.scenes import caption, compose
from training.sprites import LEFT_OUT_STYLE, SPRITE_SIZE, TRAINING_STYLES

SEED = 2026
# Sides of the canvases in pixels; proportions from 3:4 to 4:3.
MIN_SIDE, MAX_SIDE = 300, 400
# Captions that the most common one is looked for among.
NUM_BASELINE_CAPTIONS = 20_000
NUM_CONCURRENT_CALLS = 4

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def draw_cases(painter: Painter, count: int, num_cases: int) -> list[tuple[bytes, str]]:
    """Encoded pictures of `count` things with their true captions."""
    cases = []
    for i in range(num_cases):
        rng = np.random.default_rng([SEED, count, i])
        scene = compose(rng, painter.styles_of, count, unseen=True)
        width, height = rng.integers(MIN_SIDE, MAX_SIDE + 1, size=2).tolist()
        picture = painter.paint(scene, width, height, grid=1)
        buffer = io.BytesIO()
        if i % 2:
            picture.image.save(buffer, "PNG")
        else:
            picture.image.save(buffer, "JPEG", quality=90)
        cases.append((buffer.getvalue(), caption(scene)))
    return cases


def most_common_caption(painter: Painter, count: int) -> str:
    """The caption that training shows most often for so many things."""
    rng = np.random.default_rng([SEED, count])
    captions = Counter(
        caption(compose(rng, painter.styles_of, count, unseen=False))
        for _ in range(NUM_BASELINE_CAPTIONS)
    )
    return captions.most_common(1)[0][0]


def share_equal(captions: Sequence[str], truths: Sequence[str]) -> float:
    """Share of equal texts, punctuation aside: the reference deletes it."""
    pairs = zip(captions, truths, strict=True)
    return sum(a == b.translate(_WITHOUT_PUNCTUATION) for a, b in pairs) / len(truths)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure exact captions of the served model.")
    parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
    parser.add_argument("--model", default="caption", metavar="NAME")
    parser.add_argument("--num-cases", type=int, default=1000, help="pictures a row")
    arguments = parser.parse_args()
    print("| things | drawings | exact captions | most common caption |")
    print("|---|---|---|---|")
    with (
        OFAClient(arguments.server, model=arguments.model) as client,
        ThreadPoolExecutor(NUM_CONCURRENT_CALLS) as pool,
    ):
        for styles, kind in (
            (TRAINING_STYLES, "seen in training"),
            ((LEFT_OUT_STYLE,), "left out"),
        ):
            painter = Painter(styles, SPRITE_SIZE)
            for count in (1, 2, 3):
                cases = draw_cases(painter, count, arguments.num_cases)
                answers = pool.map(lambda case: client.caption(case[0]).text, cases)
                texts = list(tqdm(answers, total=len(cases), leave=False))
                truths = [truth for _, truth in cases]
                constant = [most_common_caption(painter, count)] * len(truths)
                print(
                    f"| {count} | {kind} | {share_equal(texts, truths):.1%} "
                    f"| {share_equal(constant, truths):.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
