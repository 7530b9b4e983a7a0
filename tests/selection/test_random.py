import torch

from adallava.selection.random import hash_scores
from adallava.selection.selector_contract import top_k_in_order

MASK = 2**64 - 1


def _splitmix64(state: int) -> int:
    """The published generator's output function, in Python's unbounded integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_the_output_function_is_splitmix64s() -> None:
    # The first outputs of a stream from seed 0, as published with the generator's reference code.
    gamma = 0x9E3779B97F4A7C15
    assert [_splitmix64(n * gamma & MASK) for n in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_scores_are_the_hash_in_exact_arithmetic() -> None:
    seeds = [0, 1, -5, 2**63 - 1]
    expected = [
        [(_splitmix64((_splitmix64(seed & MASK) + n * 0x9E3779B97F4A7C15) & MASK) >> 40) / 2**24 for n in range(1, 9)]
        for seed in seeds
    ]
    assert hash_scores(torch.tensor(seeds), 8).tolist() == expected


def test_a_smaller_choice_is_part_of_a_larger_one() -> None:
    scores = hash_scores(torch.tensor([3, 4]), 64)
    for smaller, larger in [(1, 2), (5, 20), (20, 64)]:
        few = top_k_in_order(scores, [smaller, smaller]).tolist()
        many = top_k_in_order(scores, [larger, larger]).tolist()
        assert all(set(a) <= set(b) for a, b in zip(few, many, strict=True))


def test_choices_are_even_over_tokens_and_differ_by_seed() -> None:
    kept = top_k_in_order(hash_scores(torch.arange(4000), 16), [4] * 4000)
    counts = torch.bincount(kept.flatten(), minlength=16)
    # 1000 expected each; the standard deviation is 27.
    assert (counts - 1000).abs().max() < 5 * 27
