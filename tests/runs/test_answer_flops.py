"""What a whole answer is reckoned to cost against PyTorch's counter, for every method, from tower to last token."""

from typing import Any

import pytest
import torch
from models import MECHANISMS, rest_is_long, sample_of, with_every_option
from product_counter import ProductCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.registry import selector_names
from adallava.runs.answer_flops import count_flops

METHODS = (*selector_names(), "full")
CASES = [
    pytest.param(method, budget, marks=[] if method in (*MECHANISMS, "full") and budget == 5 else [pytest.mark.long])
    for method in METHODS
    for budget in (5, 12)
]
"""A method for each way in which tokens reach the LLM. What choosing costs is held to the counter for every method, at
several budgets, in tests/selection/test_selector_flops.py; the rest of an answer depends on the number kept alone."""


@pytest.mark.parametrize(("method", "budget"), CASES)
def test_flops_of_an_answer_are_what_pytorch_counts(
    full: AdaLlava, inputs: dict[str, Any], method: str, budget: int
) -> None:
    model = with_every_option(full, method)
    with sdpa_kernel(SDPBackend.MATH), ProductCounter() as counter:
        output = _answer(model, inputs, budget)
    shape = count_costs(model.base.config)
    question = "is the colour red or blue?"
    expected = count_flops(model, shape, output.records[0], question, output.answer_lengths[0])
    assert sum(expected.values()) == pytest.approx(counter.flops, rel=0.002)
    assert expected["vision"] > 0 or method == "none"


def _answer(model: AdaLlava, inputs: dict[str, Any], budget: int) -> Any:
    budgets = {"token_budget": 1.0 if model.method == "full" else budget}
    return model.generate(**sample_of(inputs, 1), **budgets, max_new_tokens=3, do_sample=False)


@pytest.mark.parametrize(
    "method",
    rest_is_long(
        ["full", "downsample", "divprune", "mmtok", "tome", "pyramiddrop"], ("downsample", "tome", "pyramiddrop")
    ),
)
def test_the_counter_of_these_tests_counts_what_pytorchs_does(
    full: AdaLlava, inputs: dict[str, Any], method: str
) -> None:
    model, theirs = with_every_option(full, method), FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH):
        with ProductCounter() as ours:
            _answer(model, inputs, 5)
        with theirs:
            _answer(model, inputs, 5)
    by_module = theirs.get_flop_counts()
    # Some versions make rotary positions by a matrix product.
    rotary = sum(sum(ops.values()) for name, ops in by_module.items() if name.endswith("rotary_emb"))
    assert ours.flops == theirs.get_total_flops() - rotary > 0


@torch.no_grad()
def test_a_smaller_picture_is_a_cheaper_tower(full: AdaLlava, inputs: dict[str, Any]) -> None:
    shape = count_costs(full.base.config)
    costs = []
    for method in ("downsample", "uniform", "cls-attention", "divprune"):
        model = full.with_method(method)
        output = model.generate(**sample_of(inputs, 1), token_budget=4, max_new_tokens=1)
        costs.append(count_flops(model, shape, output.records[0], "why?", 1))
    smaller, uniform, reads_keys, projects_all = costs
    assert smaller["vision"] < 0.4 * uniform["vision"]
    assert reads_keys["vision"] == uniform["vision"] + 2 * 18 * 32 * 32
    assert projects_all["projector"] == 4 * uniform["projector"]
