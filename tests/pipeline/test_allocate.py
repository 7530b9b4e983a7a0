"""What budgets come to, by hand and by invariant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError
from adallava.pipeline.allocate import (
    MethodCounts,
    TokenCounts,
    allocate_tokens,
    allocate_units,
    method_counts,
    run_everything,
    share_over_images,
)
from adallava.registry import selector_names
from adallava.scheduling.scheduler_contract import Units
from adallava.selection import build_selector
from adallava.selection.selector_contract import TowerShape

SIZES = (16, 72)


@pytest.mark.parametrize(
    ("budget", "method", "asked", "kept"),
    [
        # A quarter of 88, in proportion: 4 of 16 and 18 of 72.
        (0.25, MethodCounts(), 22, (4, 18)),
        (22, MethodCounts(), 22, (4, 18)),
        (1000, MethodCounts(), 88, SIZES),
        (0.25, MethodCounts(rounded=lambda count, image: count - 2 * image), 22, (4, 16)),
        (0.25, MethodCounts(own=[3, 5]), 8, (3, 5)),
    ],
)
def test_tokens_of_one_sample(budget: float | int, method: MethodCounts, asked: int, kept: tuple[int, ...]) -> None:
    assert allocate_tokens(TokenBudget.parse(budget), SIZES, method) == TokenCounts(asked, kept)


def test_a_methods_counts_are_those_of_the_samples_own_images() -> None:
    second = MethodCounts(own=[9, 9, 3, 5]), range(2, 4)
    assert allocate_tokens(TokenBudget(ratio=0.5), SIZES, *second).kept == (3, 5)
    assert allocate_tokens(TokenBudget(ratio=0.5), (), MethodCounts()) == TokenCounts(0, ())


@pytest.mark.parametrize("name", selector_names())
def test_a_method_keeps_what_is_asked_less_or_its_own(name: str) -> None:
    selector = build_selector(name, TowerShape(num_vision_tokens=16, vision_width=32, llm_width=48, grid=(4, 4)))
    counts = method_counts(selector, [(4, 4)])
    assert (counts.own is not None) == selector.ignores_budget
    if counts.own is None:
        kept = allocate_tokens(TokenBudget(count=7), (16,), counts)
        assert kept.asked == 7
        assert 1 <= kept.kept[0] <= 7


def test_units_of_the_llm() -> None:
    # Half of 8 layers are 4: 2 behind the prefix, as 2 whole layers or 4 halves.
    latencies = [Latency.parse(value) for value in (1.0, 0.5, 2)]
    assert allocate_units(latencies, Units(8, 2)) == (6, 2, 0)
    assert allocate_units(latencies, Units(8, 2, groups=2)) == (12, 4, 0)
    with pytest.raises(BudgetError, match="first 2 always run"):
        allocate_units([Latency.parse(1)], Units(8, 2))
    assert run_everything([Latency.parse(1.0), Latency.parse(8)], 8)
    assert not run_everything([Latency.parse(1.0), Latency.parse(7)], 8)


@given(st.integers(min_value=0, max_value=1000), st.integers(min_value=1, max_value=9))
def test_a_budget_is_shared_evenly_over_images_alike(keep_count: int, num_images: int) -> None:
    shares = share_over_images(keep_count, [576] * num_images)
    assert sum(shares) == keep_count
    assert max(shares) - min(shares) <= 1
    assert list(shares) == sorted(shares, reverse=True)


@given(st.lists(st.integers(min_value=1, max_value=3000), min_size=1, max_size=6), st.floats(0, 1))
def test_a_budget_is_shared_in_proportion(sizes: list[int], share: float) -> None:
    keep_count = round(share * sum(sizes))
    shares = share_over_images(keep_count, sizes)
    assert sum(shares) == keep_count
    for kept, size in zip(shares, sizes, strict=True):
        assert kept <= size
        assert abs(kept - keep_count * size / sum(sizes)) < 1
