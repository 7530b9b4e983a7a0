"""What every method that selects before the LLM promises, crossed over all that are registered."""

import itertools
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_inputs import SHAPE, every_selector, make_selector, planned_counts, rows_of, selection_input
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adallava.selection.selector_contract import (
    OwnCountMethod,
    RoundingMethod,
    SelectionInput,
    Selector,
    TowerLayer,
    reads_question,
)

N = SHAPE.num_vision_tokens


@pytest.fixture(params=every_selector())
def selector(request: pytest.FixtureRequest) -> Selector:
    torch.manual_seed(0)
    return make_selector(request.param)


def _kept(selector: Selector, keep_counts: list[int]) -> list[list[int]]:
    with torch.no_grad():
        selection = selector.select(selection_input(planned_counts(selector, keep_counts)))
    assert selection.indices.dtype == torch.int64
    assert selection.indices.shape == (len(keep_counts), max(selection.keep_counts))
    rows = list(zip(selection.indices.tolist(), selection.keep_counts, strict=True))
    assert all(set(row[count:]) <= {0} for row, count in rows)
    return [row[:count] for row, count in rows]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=N), min_size=1, max_size=4))
def _check_exactly_k(selector: Selector, keep_counts: list[int]) -> None:
    asked = planned_counts(selector, keep_counts)
    kept = _kept(selector, keep_counts)
    assert [len(row) for row in kept] == asked
    for row in kept:
        assert row == sorted(set(row))
        assert all(0 <= index < N for index in row)


def test_exactly_k_unique_tokens_are_kept_in_order(selector: Selector) -> None:
    _check_exactly_k(selector)


def test_a_method_that_reads_no_question_chooses_alike_for_another(selector: Selector) -> None:
    if reads_question(selector):
        pytest.skip("it may read the question")
    inputs = selection_input(planned_counts(selector, [11]))
    gone = {name: torch.full_like(getattr(inputs, name), torch.nan) for name in ("question_embeds", "word_embeds")}
    gone["text_relevance"] = torch.full_like(inputs.features[..., 0], torch.nan)
    with torch.no_grad():
        assert torch.equal(selector.select(inputs).indices, selector.select(replace(inputs, **gone)).indices)


def test_a_row_is_chosen_alike_in_any_batch(selector: Selector) -> None:
    inputs = selection_input(planned_counts(selector, [3, 24, 7, 0, 11]))
    with torch.no_grad():
        together = selector.select(inputs)
        for row in range(5):
            alone = selector.select(rows_of(inputs, [row]))
            count = alone.keep_counts[0]
            assert together.keep_counts[row] == count
            assert torch.equal(together.indices[row, :count], alone.indices[0, :count])
            kept, kept_alone = together.apply(inputs.features)[row, :count], alone.apply(inputs.features[row : row + 1])
            torch.testing.assert_close(kept, kept_alone[0, :count], atol=1e-5, rtol=1e-5)


def test_the_order_of_a_batch_does_not_matter(selector: Selector) -> None:
    inputs = selection_input(planned_counts(selector, [3, 24, 7]))
    with torch.no_grad():
        forward = selector.select(inputs)
        backward = selector.select(rows_of(inputs, [2, 1, 0]))
    for row in range(3):
        count = forward.keep_counts[row]
        assert torch.equal(forward.indices[row, :count], backward.indices[2 - row, :count])
    assert torch.equal(
        forward.apply(inputs.features)[1, : forward.keep_counts[1]],
        backward.apply(inputs.features.flip(0))[1, : forward.keep_counts[1]],
    )


def test_at_full_budget_every_token_is_kept_as_it_is(selector: Selector) -> None:
    inputs = selection_input([N, N])
    with torch.no_grad():
        kept = selector.select(inputs).apply(inputs.features)
    assert planned_counts(selector, [N, N]) in ([0, 0], [N, N])
    assert kept.shape[1] == 0 if selector.name == "none" else torch.equal(kept, inputs.features)


def test_scores_are_one_float32_a_token(selector: Selector) -> None:
    with torch.no_grad():
        scores = selector.select(selection_input(planned_counts(selector, [3, 5]))).scores
    if scores is not None:
        assert scores.shape == (2, N)
        assert scores.dtype == torch.float32


def test_a_choice_does_not_depend_on_torchs_seed(selector: Selector) -> None:
    torch.manual_seed(1)
    first = _kept(selector, [5, 9])
    torch.manual_seed(2)
    assert _kept(selector, [5, 9]) == first


def test_own_counts_are_within_the_image_and_each_images_own(selector: Selector) -> None:
    if not isinstance(selector, OwnCountMethod):
        pytest.skip("keeps what is asked for")
    assert selector.ignores_budget
    inputs = selection_input([N] * 5)
    counts = selector.own_counts(inputs)
    assert counts.dtype == torch.int64
    assert ((counts >= 1) & (counts <= N)).all()
    for row in range(5):
        assert selector.own_counts(rows_of(inputs, [row])).tolist() == counts[row : row + 1].tolist()


def test_a_method_that_rounds_keeps_at_most_k_at_least_one_and_all_of_n(selector: Selector) -> None:
    if not isinstance(selector, RoundingMethod):
        pytest.skip("keeps what is asked for")
    for rows, columns in itertools.product(range(1, 8), repeat=2):
        grid = (rows, columns)
        for asked in range(1, rows * columns + 1):
            kept = selector.keep_count(asked, grid)
            assert 1 <= kept <= asked
            assert selector.keep_count(kept, grid) == kept
        assert selector.keep_count(rows * columns, grid) == rows * columns
        assert selector.keep_count(0, grid) == 0


def test_a_method_that_merges_says_so(selector: Selector) -> None:
    with torch.no_grad():
        weights = selector.select(selection_input(planned_counts(selector, [12, 12]))).merge_weights
    if weights is not None:
        assert selector.merges
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()


def test_nothing_waits_for_the_device(selector: Selector) -> None:
    """Tensors without values stand for a device that has not come so far: reading one (`.item()`, `.tolist()`,
    `.nonzero()`, a boolean index) raises."""
    inputs = selection_input(planned_counts(selector, [3, N, 12, 0]))
    with torch.no_grad():
        selector.select(inputs)  # Tables that are made once on the host are made here, with values.
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            without_values = _without_values(inputs, mode)
            selection = selector.select(without_values)
            assert selection.apply(without_values.features).shape[0] == 4
            if isinstance(selector, OwnCountMethod):
                selector.own_counts(without_values)


def _without_values(inputs: SelectionInput, mode: FakeTensorMode) -> SelectionInput:
    def fake(value: Any) -> Any:
        if isinstance(value, Tensor):
            return mode.from_tensor(value)
        if isinstance(value, TowerLayer):
            return TowerLayer(fake(value.keys), fake(value.cls_query), value.num_heads)
        return value

    return replace(inputs, **{field.name: fake(getattr(inputs, field.name)) for field in fields(inputs)})
