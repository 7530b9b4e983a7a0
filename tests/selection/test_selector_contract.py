"""What every method promises, crossed over all that are registered."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_inputs import SHAPE, every_selector, make_selector, rows_of, selection_input

from adallava.selection.contract import Selector

N = SHAPE.num_vision_tokens


@pytest.fixture(params=every_selector())
def selector(request: pytest.FixtureRequest) -> Selector:
    torch.manual_seed(0)
    return make_selector(request.param)


def _kept(selector: Selector, keep_counts: list[int]) -> list[list[int]]:
    with torch.no_grad():
        selection = selector.select(selection_input(keep_counts))
    return [row[:count] for row, count in zip(selection.indices.tolist(), selection.keep_counts, strict=True)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=N), min_size=1, max_size=4))
def _check_exactly_k(selector: Selector, keep_counts: list[int]) -> None:
    asked = [0] * len(keep_counts) if selector.ignores_budget else keep_counts
    kept = _kept(selector, keep_counts)
    assert [len(row) for row in kept] == asked
    for row in kept:
        assert row == sorted(set(row))
        assert all(0 <= index < N for index in row)


def test_exactly_k_unique_tokens_are_kept_in_order(selector: Selector) -> None:
    _check_exactly_k(selector)


def test_a_row_is_chosen_alike_in_any_batch(selector: Selector) -> None:
    inputs = selection_input([3, 24, 7, 0, 11])
    with torch.no_grad():
        together = selector.select(inputs)
        for row in range(5):
            alone = selector.select(rows_of(inputs, [row]))
            count = alone.keep_counts[0]
            assert together.keep_counts[row] == count
            assert torch.equal(together.indices[row, :count], alone.indices[0, :count])


def test_the_order_of_a_batch_does_not_matter(selector: Selector) -> None:
    inputs = selection_input([3, 24, 7])
    with torch.no_grad():
        forward = selector.select(inputs)
        backward = selector.select(rows_of(inputs, [2, 1, 0]))
    for row in range(3):
        count = forward.keep_counts[row]
        assert torch.equal(forward.indices[row, :count], backward.indices[2 - row, :count])
    assert torch.equal(forward.apply(inputs.features)[1], backward.apply(inputs.features.flip(0))[1])


def test_at_full_budget_every_token_is_kept_as_it_is(selector: Selector) -> None:
    inputs = selection_input([N, N])
    with torch.no_grad():
        kept = selector.select(inputs).apply(inputs.features)
    assert kept.shape[1] == 0 if selector.ignores_budget else torch.equal(kept, inputs.features)


def test_scores_are_one_float32_a_token(selector: Selector) -> None:
    with torch.no_grad():
        scores = selector.select(selection_input([3, 5])).scores
    if scores is not None:
        assert scores.shape == (2, N)
        assert scores.dtype == torch.float32


def test_a_choice_does_not_depend_on_torchs_seed(selector: Selector) -> None:
    torch.manual_seed(1)
    first = _kept(selector, [5, 9])
    torch.manual_seed(2)
    assert _kept(selector, [5, 9]) == first
