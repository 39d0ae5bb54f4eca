"""Labels as a tree of tokens: what may come next after a part of a label.

Every label is a path from the root to a leaf, and every leaf is an EOS. Nodes are numbered level by
level, so that the children of a node follow each other; nothing is as large as labels x vocabulary.

Source: modelscope `utils/trie.py`, and `build_trie` of `ofa_for_all_tasks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_Branches = dict[int, "_Branches"]


class LabelTrie(NamedTuple):
    """The tree, node by node; node 0 is the root.

    Attributes:
        tokens: the token that leads to a node; EOS at the root, for want of another.
        parents: the node before; the root at the root.
        first_child: the first node after; a leaf's is itself.
        num_children: how many nodes come after; a leaf has itself, so that what has ended can only
            end again.
        leaves: of every label, in their order.
    """

    tokens: list[int]
    parents: list[int]
    first_child: list[int]
    num_children: list[int]
    leaves: list[int]


def build_trie(labels: Sequence[Sequence[int]], eos_id: int) -> LabelTrie:
    """The tree of labels given as token ids without BOS and EOS."""
    root: _Branches = {}
    ends: list[_Branches] = []
    for label in labels:
        branches = root
        for token in (*label, eos_id):
            branches = branches.setdefault(token, {})
        ends.append(branches)
    nodes = [root]
    tokens, parents = [eos_id], [0]
    first_child: list[int] = []
    num_children: list[int] = []
    for number, branches in enumerate(nodes):  # grows on the way
        first_child.append(len(nodes) if branches else number)
        num_children.append(max(len(branches), 1))
        nodes += branches.values()
        tokens += branches.keys()
        parents += [number] * len(branches)
    numbers = {id(branches): number for number, branches in enumerate(nodes)}
    return LabelTrie(tokens, parents, first_child, num_children, [numbers[id(end)] for end in ends])


class TrieConstraint(nn.Module):
    """Keeps every beam of a search on the tree.

    Shapes: B batch, K beams, V vocabulary, C most children of a node.
    """

    def __init__(self, labels: Sequence[Sequence[int]], eos_id: int) -> None:
        super().__init__()
        trie = build_trie(labels, eos_id)
        self.tokens: Tensor = nn.Buffer(torch.tensor(trie.tokens))
        self.first_child: Tensor = nn.Buffer(torch.tensor(trie.first_child))
        self.num_children: Tensor = nn.Buffer(torch.tensor(trie.num_children))
        self.child_offsets: Tensor = nn.Buffer(torch.arange(max(trie.num_children)))

    def nodes_after(self, nodes: Tensor) -> Tensor:
        """The nodes after each of `nodes` int64 [B, K], [B, K, C]; the last one fills up."""
        last_child = self.num_children[nodes].unsqueeze(2) - 1
        return self.first_child[nodes].unsqueeze(2) + self.child_offsets.minimum(last_child)

    def allowed_logits(self, logits: Tensor, nodes: Tensor) -> Tensor:
        """`logits` [B, K, V] of the tokens that lead on from each beam's node, -inf elsewhere."""
        tokens = self.tokens[self.nodes_after(nodes)]
        never = torch.full_like(logits, float("-inf"))
        return never.scatter(2, tokens, logits.gather(2, tokens))

    def follow(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """The nodes int64 [B, K] that `tokens` [B, K] lead to.

        Only a beam of score -inf takes a token that leads nowhere; it goes on from any node.
        """
        children = self.nodes_after(nodes)
        matches = self.tokens[children] == tokens.unsqueeze(2)
        return children.gather(2, matches.long().argmax(2, keepdim=True)).squeeze(2)
