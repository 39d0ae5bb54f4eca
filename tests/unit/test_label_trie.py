"""The tree of labels: what may follow what."""

import random

import pytest

from ofa.generation.label_trie import LabelTrie, build_trie

EOS = 2


def children(trie: LabelTrie, node: int) -> dict[int, int]:
    """Tokens that may follow a node, and the nodes that they lead to."""
    first, count = trie.first_child[node], trie.num_children[node]
    return {trie.tokens[child]: child for child in range(first, first + count)}


@pytest.mark.parametrize("seed", range(10))
def test_what_may_follow_is_what_follows_in_some_label(seed: int) -> None:
    numbers = random.Random(seed)
    labels = [
        [numbers.randint(4, 7) for _ in range(numbers.randint(0, 4))]
        for _ in range(numbers.randint(1, 30))
    ]
    trie = build_trie(labels, EOS)
    num_edges = len({tuple([*label, EOS][: end + 1]) for label in labels for end in range(6)})
    for label, leaf in zip(labels, trie.leaves, strict=True):
        node = 0
        for done, token in enumerate([*label, EOS]):
            expected = {[*other, EOS][done] for other in labels if other[:done] == label[:done]}
            following = children(trie, node)
            assert set(following) == expected
            assert trie.parents[following[token]] == node
            node = following[token]
        assert node == leaf
    assert len(trie.tokens) <= 1 + num_edges


def test_an_end_can_only_end_again() -> None:
    trie = build_trie([[10], [10, 11]], EOS)
    for leaf in trie.leaves:
        assert children(trie, leaf) == {EOS: leaf}


def test_nodes_are_numbered_level_by_level() -> None:
    trie = build_trie([[10, 11, 12], [20], [10, 13]], EOS)
    depths = [0]
    for parent in trie.parents[1:]:
        depths.append(depths[parent] + 1)
    assert depths == sorted(depths)
