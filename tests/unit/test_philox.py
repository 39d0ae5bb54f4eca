"""The counter-based generator against its published answers, and its statistics."""

import math

import pytest
import torch

from ofa.generation.philox import philox, uniforms


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    # Random123's kat_vectors for philox4x32 with 10 rounds.
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_words_are_the_published_ones(
    counter: list[int], key: list[int], expected: list[int]
) -> None:
    words = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert [int(word) for word in words] == expected


def test_numbers_are_uniform() -> None:
    numbers = uniforms(torch.arange(40) - 20, 4, 1000).flatten()
    assert numbers.dtype == torch.float64
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    # Standard deviations of the mean of n uniform numbers, and of chi-square with 255 degrees.
    count = len(numbers)
    assert abs(float(numbers.mean()) - 0.5) < 4 / math.sqrt(12 * count)
    observed = torch.histc(numbers, 256, 0, 1)
    chi_square = float(((observed - count / 256) ** 2 / (count / 256)).sum())
    assert abs(chi_square - 255) < 4 * math.sqrt(2 * 255)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_neighbours_do_not_correlate(dim: int) -> None:
    numbers = uniforms(torch.arange(50), 50, 50) - 0.5
    length = numbers.size(dim) - 1
    first, second = numbers.narrow(dim, 0, length), numbers.narrow(dim, 1, length)
    correlation = float((first * second).mean() * 12)
    assert abs(correlation) < 4 / math.sqrt(first.numel())


def test_a_number_is_a_function_of_its_seed_sample_and_step() -> None:
    many = uniforms(torch.tensor([5, -9, 2**62]), 4, 10)
    assert torch.equal(uniforms(torch.tensor([-9]), 2, 7), many[1:2, :2, :7])
    assert len(set(many.flatten().tolist())) == many.numel()


def test_all_bits_of_a_seed_count() -> None:
    seeds = torch.tensor([0] + [1 << bit for bit in range(63)] + [-(1 << 63)])
    assert len(set(uniforms(seeds, 1, 1).flatten().tolist())) == len(seeds)
