import math

import pytest
import torch

from ofa.model.positions import (
    AbsolutePositionBias,
    image_buckets,
    image_position_ids,
    num_image_buckets,
    relative_bias,
    token_buckets,
)

# Distance, row of the table for it, and row for the opposite distance, as the reference has them.
KNOWN_TOKEN_BUCKETS = [
    (0, 255, 255),
    (1, 256, 254),
    (127, 382, 128),
    (128, 383, 127),
    (129, 384, 126),
    (130, 384, 126),
    (131, 385, 125),
    (200, 411, 99),
    (256, 426, 84),
    (512, 468, 42),
    (900, 503, 7),
    (1023, 510, 0),
]


@pytest.mark.parametrize(("distance", "row", "opposite"), KNOWN_TOKEN_BUCKETS)
def test_token_buckets_have_the_references_values(distance: int, row: int, opposite: int) -> None:
    buckets = token_buckets(256, 1024)
    assert buckets[distance, 0] == row
    assert buckets[0, distance] == opposite


def test_token_buckets_follow_the_formula_at_every_distance() -> None:
    first_column = token_buckets(256, 1024)[:, 0].tolist()
    for distance, row in enumerate(first_column):
        bucket = distance
        if distance > 128:
            bucket = 128 + math.ceil(math.log(distance / 128) / math.log(1023 / 128) * 127)
        assert row == bucket + 255


def test_token_buckets_depend_on_the_distance_alone() -> None:
    buckets = token_buckets(256, 300)
    assert torch.equal(buckets[1:, 1:], buckets[:-1, :-1])
    assert torch.equal(buckets, token_buckets(256, 1024)[:300, :300])


def test_image_buckets_have_the_references_values() -> None:
    # The reference's buffer has a special slot in front: its [1, 1] is the first patch.
    buckets = image_buckets(42, 42, 42)
    assert buckets[0, 0] == 3444
    assert buckets[0, 1] == 3443
    assert buckets[1, 0] == 3445
    assert buckets[0, 42] == 3361


def test_image_buckets_follow_the_formula_for_every_pair() -> None:
    buckets = image_buckets(42, 3, 4).tolist()
    for query in range(12):
        for key in range(12):
            rows, columns = query // 4 - key // 4, query % 4 - key % 4
            assert buckets[query][key] == (rows + 41) * 83 + columns + 41
    assert num_image_buckets(42) == 6892


def test_a_smaller_grid_is_the_corner_of_the_full_one() -> None:
    corner = image_position_ids(42, 5, 7)
    assert corner.tolist() == [42 * row + column + 1 for row in range(5) for column in range(7)]
    full = image_buckets(42, 42, 42)
    assert torch.equal(full[corner - 1][:, corner - 1], image_buckets(42, 5, 7))


def test_relative_bias_looks_up_every_pair() -> None:
    table = torch.arange(511.0)[:, None] * torch.tensor([1.0, 10.0])
    bias = relative_bias(table, token_buckets(256, 3))
    assert bias.tolist() == [
        [[255, 254, 253], [256, 255, 254], [257, 256, 255]],
        [[2550, 2540, 2530], [2560, 2550, 2540], [2570, 2560, 2550]],
    ]


def test_absolute_bias_is_the_scaled_product_of_every_head() -> None:
    queries, keys = torch.randn(3, 8), torch.randn(5, 8)
    bias = AbsolutePositionBias(d_model=8, num_heads=2, attn_scale_factor=2.0)(queries, keys)
    assert bias.shape == (2, 3, 5)
    for head, columns in enumerate((slice(0, 4), slice(4, 8))):
        expected = queries[:, columns] @ keys[:, columns].T / math.sqrt(4 * 2.0)
        torch.testing.assert_close(bias[head], expected)
