import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError


@pytest.mark.parametrize(
    ("asked", "num_vision_tokens", "kept"),
    [
        (0.6, 576, 345),
        (1.0, 576, 576),
        ("100%", 576, 576),
        ("25%", 256, 64),
        (0.25, 256, 64),
        ("0.25", 256, 64),
        (64, 256, 64),
        ("64", 256, 64),
        (0.001, 256, 1),
        (1, 256, 1),
        (576, 256, 256),
        (0.29, 100, 29),
        (0.57, 100, 57),
    ],
)
def test_a_budget_resolves_to_k(asked: object, num_vision_tokens: int, kept: int) -> None:
    assert TokenBudget.parse(asked).resolve(num_vision_tokens) == kept


@pytest.mark.parametrize(
    "asked",
    [0, 0.0, -1, -0.5, 1.5, "150%", "0%", "-3", math.nan, math.inf, "nan", "inf", "many", "", True, None, [0.5], 1j],
)
def test_a_budget_that_means_nothing_is_refused_by_its_value(asked: object) -> None:
    with pytest.raises(BudgetError, match="token budget"):
        TokenBudget.parse(asked)


@pytest.mark.parametrize("asked", ["120%", "0%", "nan%"])
def test_a_percentage_out_of_range_is_shown_as_it_was_written(asked: str) -> None:
    with pytest.raises(BudgetError, match=f"token budget {asked} is out of range: give a share"):
        TokenBudget.parse(asked)


def test_a_budget_is_a_share_or_a_count() -> None:
    with pytest.raises(BudgetError):
        TokenBudget()
    with pytest.raises(BudgetError):
        TokenBudget(ratio=0.5, count=3)


@given(st.floats(min_value=1e-6, max_value=1.0), st.integers(min_value=1, max_value=3000))
def test_a_share_is_rounded_down_within_one_and_n(ratio: float, num_vision_tokens: int) -> None:
    kept = TokenBudget.parse(ratio).resolve(num_vision_tokens)
    assert 1 <= kept <= num_vision_tokens
    assert kept == 1 or kept <= ratio * num_vision_tokens + 1e-6
    assert kept > ratio * num_vision_tokens - 1


@given(st.one_of(st.floats(min_value=1e-9, max_value=1.0), st.integers(min_value=1, max_value=10**6)))
def test_a_budget_is_read_back_as_it_is_written(asked: float) -> None:
    budget = TokenBudget.parse(asked)
    assert TokenBudget.parse(str(budget)) == budget


def test_a_sample_without_vision_tokens_has_no_budget() -> None:
    with pytest.raises(BudgetError, match="0 vision tokens"):
        TokenBudget.parse(0.5).resolve(0)


@pytest.mark.parametrize(
    ("asked", "layers", "prefix", "groups", "units"),
    [
        (1.0, 32, 16, 1, 16),
        ("85%", 32, 16, 1, 11),
        (0.6, 32, 16, 1, 3),
        (0.6, 32, 16, 4, 12),
        (0.5, 32, 16, 4, 0),
        (24, 32, 16, 1, 8),
        ("24", 32, 16, 4, 32),
        (40, 32, 16, 1, 16),
        (0.7, 10, 5, 1, 2),
        (5 / 6, 6, 3, 1, 2),
    ],
)
def test_a_latency_resolves_to_units(asked: object, layers: int, prefix: int, groups: int, units: int) -> None:
    assert Latency.parse(asked).resolve(layers, prefix, groups) == units


@pytest.mark.parametrize(("asked", "least"), [(0.49, "0.5, or 16 layers"), (15, "0.5, or 16 layers")])
def test_a_latency_below_the_prefix_names_the_least(asked: object, least: str) -> None:
    with pytest.raises(BudgetError, match=f"first 16 always run: give at least {least}"):
        Latency.parse(asked).resolve(32, 16)


@pytest.mark.parametrize("asked", [0, 0.0, -1, 1.5, "0%", math.nan, "soon", True, None])
def test_a_latency_that_means_nothing_is_refused(asked: object) -> None:
    with pytest.raises(BudgetError, match=r"latency .* such as 0\.75 or '75%', or a whole number of layers"):
        Latency.parse(asked)
