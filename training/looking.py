"""Where attention should go: from words to the patches that show what they name, and back.

A few numbers a question teach this in a hundred steps; from answers alone it takes thousands.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.things import load_things
from training.vocabulary import first_bin_id


@cache
def _things_by_head(tokenizer: Tokenizer) -> dict[int, list[int]]:
    """The things, by index, that each token is the last word of."""
    things: dict[int, list[int]] = defaultdict(list)
    for index, thing in enumerate(load_things()):
        things[tokenizer.encode(f" {thing.head}").ids[-1]].append(index)
    return things


def find_words(
    source: Sequence[int], labels: NDArray[np.int64], tokenizer: Tokenizer
) -> NDArray[np.bool_]:
    """Which position of the encoder should look at which: words and what they name, both ways.

    A cell that shows a thing named in the question looks at its word, any other at the first
    token; a word that names a thing looks at its cells, or if there is none at the first token.
    Cells that show nothing clearly may look anywhere.

    Args:
        source: L token ids.
        labels: which thing each of the picture's C cells shows; negative: none clearly.
        tokenizer: gave the ids.

    Returns:
        bool [C + L, C + L].
    """
    first = len(labels)
    finds = np.zeros((first + len(source), first + len(source)), dtype=np.bool_)
    named = np.zeros(first, dtype=np.bool_)
    for position, token in enumerate(source, first):
        things = _things_by_head(tokenizer).get(token)
        if things is not None:
            cells = np.isin(labels, things)
            finds[:first, position] = cells
            finds[position, :first] = cells
            finds[position, first] = not cells.any()
            named |= cells
    finds[:first, first] = (labels >= 0) & ~named
    return finds


def find_answer(
    target: Sequence[int], finds: NDArray[np.bool_], labels: NDArray[np.int64], tokenizer: Tokenizer
) -> NDArray[np.bool_]:
    """Where the decoder should look before it gives each token: at the cells of what it names.

    Args:
        target: T token ids. Bins are about the thing that the question names.
        finds: from `find_words`.
        labels: which thing each of the picture's C cells shows; negative: none clearly.
        tokenizer: gave the ids.

    Returns:
        bool [T, C].
    """
    sees = np.zeros((len(target), len(labels)), dtype=np.bool_)
    asked = finds[: len(labels), len(labels) + 1 :].any(axis=1)
    for position, token in enumerate(target):
        if token >= first_bin_id(tokenizer):
            sees[position] = asked
        for thing in _things_by_head(tokenizer).get(token, ()):
            if (labels == thing).any():
                # The name with its article, up to the token.
                length = len(load_things()[thing].phrase.split())
                sees[max(0, position + 1 - length) : position + 1] |= labels == thing
    return sees
