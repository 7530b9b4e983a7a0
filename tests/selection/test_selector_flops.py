"""Closed forms against PyTorch's own counter."""

import pytest
import torch
from selector_inputs import every_selector, make_selector, planned_counts, selection_input
from torch.utils.flop_counter import FlopCounterMode

from adallava.selection.selector_contract import BudgetTokenMethod, TowerShape


@pytest.mark.parametrize("name", every_selector())
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("keep_count", "num_question_tokens"), [(5, 4), (30, 19), (64, 9)])
def test_flops_are_what_pytorch_counts(name: str, rows: int, keep_count: int, num_question_tokens: int) -> None:
    shape = TowerShape(num_vision_tokens=64, vision_width=48, llm_width=80, grid=(8, 8), tower_heads=3)
    selector = make_selector(name, shape)
    (keep_count,) = planned_counts(selector, [keep_count], shape.grid)
    inputs = selection_input([keep_count] * rows, shape=shape, num_question_tokens=num_question_tokens)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(selector, BudgetTokenMethod):
            selector.budget_token(inputs.budget_ratios)
        selector.select(inputs).apply(inputs.features)
    counted = counter.get_total_flops() / rows
    if name == "cdpruner" and keep_count < 64:
        # The counter sees products of matrices; step j sums j multiply-adds a token, but for the last: 1 … K - 2.
        counted += 2 * 64 * sum(range(1, keep_count - 1))
    assert selector.flops(shape, num_question_tokens, keep_count) == pytest.approx(counted, rel=0.01)
