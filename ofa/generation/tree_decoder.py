"""The decoder on a tree of tokens behind a prompt, in one pass.

A node of the tree sees the prompt of its row, its ancestors and itself, at the positions that they
have on the way to it. Texts that begin alike thus share the work on their beginning.

Shapes: B batch, P prompt tokens, M nodes (the root, which is the prompt's last token, not counted),
D width, H heads, Dh width of a head, S source positions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.generation.source_encoder import EncodedSource
from ofa.model.decoder import Decoder


def attend_to_path(
    queries: Tensor,
    prompt: tuple[Tensor, Tensor],
    path: tuple[Tensor, Tensor],
    bias: Tensor,
    scale: float,
) -> Tensor:
    """Attention to a prompt that all nodes share and to a path that each has of its own.

    Args:
        queries: [B, H, M, Dh].
        prompt: keys and values, [B, H, P, Dh] each.
        path: keys and values, [B, H, M, length, Dh] each.
        bias: added to the scores, broadcastable to [B, H, M, P + length].
        scale: multiplies the scores before that.

    Returns:
        [B, H, M, Dh].
    """
    queries = queries.float()
    prompt = (prompt[0].float(), prompt[1].float())
    path = (path[0].float(), path[1].float())
    prompt_scores = torch.matmul(queries, prompt[0].transpose(2, 3))
    path_scores = (queries.unsqueeze(3) * path[0]).sum(4)
    scores = torch.cat([prompt_scores, path_scores], dim=3) * scale + bias
    weights = torch.softmax(scores, dim=3)
    prompt_length = prompt_scores.size(3)
    from_prompt = torch.matmul(weights[:, :, :, :prompt_length], prompt[1])
    from_path = (weights[:, :, :, prompt_length:].unsqueeze(4) * path[1]).sum(3)
    return from_prompt + from_path


def take_paths(x: Tensor, paths: Tensor) -> Tensor:
    """Of `x` [B, H, M, Dh] what lies on each path, int64 [n, length]: [B, H, n, length, Dh]."""
    shape = [x.size(0), x.size(1), paths.size(0), paths.size(1), x.size(3)]
    return x.index_select(2, paths.flatten()).view(shape)


class TreeDecoder(nn.Module):
    """A decoder bound to one tree."""

    # TorchScript cannot tell the type of an empty list, which a tree without nodes has. It reads
    # annotations here, but not as the strings that `from __future__ import annotations` makes.
    level_sizes: list[int]

    def __init__(self, decoder: Decoder, tokens: Sequence[int], parents: Sequence[int]) -> None:
        """Lay out the tree.

        Args:
            decoder: as trained.
            tokens: of every node, level by level; the root has none.
            parents: of every node, by its place in `tokens`; -1 below the root.
        """
        super().__init__()
        self.decoder = decoder
        paths: list[list[int]] = []
        for node, parent in enumerate(parents):
            paths.append([*(paths[parent] if parent >= 0 else []), node])
        longest = max(map(len, paths), default=0)
        self.level_sizes = [
            sum(len(path) == length for path in paths) for length in range(1, longest + 1)
        ]
        padded = [path + [0] * (longest - len(path)) for path in paths]
        self.tokens: Tensor = nn.Buffer(torch.tensor(tokens, dtype=torch.long))
        self.depths: Tensor = nn.Buffer(torch.tensor([len(p) for p in paths], dtype=torch.long))
        self.paths: Tensor = nn.Buffer(
            torch.tensor(padded, dtype=torch.long).view(len(paths), longest)
        )

    def self_biases(self, num_prompt: int, prompt_length: Tensor) -> list[Tensor]:
        """Bias of every layer's self-attention, prompt first, then level by level.

        The prompt's has the shape [N, H, P, P] and a level's [N, B, H, 1, P + length of its paths]
        (N = 1 if layers share it).
        """
        num_levels = len(self.level_sizes)
        device = prompt_length.device
        bias = self.decoder.self_attention_bias(num_prompt + num_levels)
        future = torch.ones(num_prompt, num_prompt, dtype=torch.bool, device=device).triu(1)
        biases = [bias[:, :, :num_prompt, :num_prompt].masked_fill(future, float("-inf"))]
        # A node's keys are all slots of the prompt, of which its row may use some, and its path.
        slots = torch.arange(num_prompt, device=device).expand(prompt_length.size(0), -1)
        levels = torch.arange(num_levels, device=device)
        positions = torch.cat([slots, prompt_length[:, None] + levels], dim=1)
        is_unused = F.pad(slots >= prompt_length[:, None], [0, num_levels], value=False)
        for level in range(num_levels):
            num_keys = num_prompt + level + 1
            rows = bias.index_select(2, prompt_length + level)  # [N, H, B, T]
            rows = rows.gather(
                3, positions[:, :num_keys].expand(rows.size(0), rows.size(1), -1, -1)
            )
            rows = rows.masked_fill(is_unused[:, :num_keys], float("-inf"))
            biases.append(rows.transpose(1, 2).unsqueeze(3))
        return biases

    def cross_biases(
        self, num_prompt: int, prompt_length: Tensor, source: EncodedSource
    ) -> list[Tensor]:
        """Bias of cross-attention, prompt first, then level by level.

        The prompt's has the shape [B, H, P, S] and a level's [B, H, 1, S].
        """
        num_levels = len(self.level_sizes)
        bias = self.decoder.cross_attention_bias(num_prompt + num_levels, source.positions)
        mask = torch.zeros(source.padding_mask.shape, device=bias.device)
        mask = mask.masked_fill(source.padding_mask, float("-inf"))[:, None, None, :]
        biases = [bias[:, :num_prompt] + mask]
        for level in range(num_levels):
            rows = bias.index_select(1, prompt_length + level).transpose(0, 1)
            biases.append(rows.unsqueeze(2) + mask)
        return biases

    def forward(self, source: EncodedSource, prompt_ids: Tensor, prompt_length: Tensor) -> Tensor:
        """Hidden states of every node, before the decoder's last norm.

        Args:
            source: of the batch.
            prompt_ids: int64 [B, P], BOS first; what is beyond a row's prompt has no effect.
            prompt_length: int64 [B], at least 1.

        Returns:
            [B, 1 + M, D], the root's first.
        """
        batch_size, num_prompt = prompt_ids.shape
        # The root stands at the prompt's last position, a node of depth d stands d after it.
        x = self.decoder.embed(
            torch.cat([prompt_ids, self.tokens.expand(batch_size, -1)], dim=1),
            torch.cat(
                [
                    torch.arange(num_prompt, device=prompt_ids.device).expand(batch_size, -1),
                    prompt_length[:, None] - 1 + self.depths,
                ],
                dim=1,
            ),
        )
        self_biases = self.self_biases(num_prompt, prompt_length)
        cross_biases = self.cross_biases(num_prompt, prompt_length, source)
        cross = self.decoder.cross_keys_values(source.hidden)
        sizes = [num_prompt]
        sizes.extend(self.level_sizes)
        for index, layer in enumerate(self.decoder.layers):
            bias_index = index % self_biases[0].size(0)
            attention = layer.self_attn
            all_queries, keys, values = attention.project(layer.self_attn_layer_norm(x))
            queries = torch.split(all_queries, sizes, 2)
            prompt = (keys[:, :, :num_prompt], values[:, :, :num_prompt])
            nodes = (keys[:, :, num_prompt:], values[:, :, num_prompt:])
            heads = [
                # In float32 as the paths: a GPU wants the mask in the queries' dtype.
                F.scaled_dot_product_attention(
                    queries[0].float(),
                    prompt[0].float(),
                    prompt[1].float(),
                    # With a mask of fewer dimensions attention leaves its fast path.
                    attn_mask=self_biases[0][bias_index].unsqueeze(0),
                    scale=attention.scale,
                )
            ]
            start = 0
            for level, size in enumerate(self.level_sizes):
                path = self.paths[start : start + size, : level + 1]
                start += size
                heads.append(
                    attend_to_path(
                        queries[level + 1],
                        prompt,
                        (take_paths(nodes[0], path), take_paths(nodes[1], path)),
                        self_biases[level + 1][bias_index],
                        attention.scale,
                    )
                )
            attended = attention.merge_heads(torch.cat(heads, dim=2))
            x = x + layer.self_attn_mid_layer_norm(attended)
            segments: list[Tensor] = []
            for number, segment in enumerate(torch.split(x, sizes, 1)):
                bias = cross_biases[number].expand(-1, -1, segment.size(1), -1)
                segments.append(layer.cross_attend(segment, cross[index][0], cross[index][1], bias))
            x = layer.feed_forward(torch.cat(segments, dim=1))
        root = (prompt_length - 1)[:, None, None].expand(-1, -1, x.size(2))
        return torch.cat([x.gather(1, root), x[:, num_prompt:]], dim=1)
