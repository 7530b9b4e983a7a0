"""A method says that it draws at random if and only if its choice follows the seed, crossed over all methods."""

from dataclasses import replace

import pytest
import torch
from models import BEFORE_LLM, INSIDE_LLM
from selector_inputs import SHAPE, selection_input

from adallava.registry import selector_names
from adallava.selection import build_selector
from adallava.selection.selector_contract import draws_at_random


@pytest.mark.parametrize("method", BEFORE_LLM)
def test_a_choice_follows_the_seed_if_and_only_if_the_method_says_so(method: str) -> None:
    torch.manual_seed(0)
    selector = build_selector(method, SHAPE)
    inputs = selection_input([5, 9, 12])
    with torch.no_grad():
        first, second = (selector.select(replace(inputs, seeds=inputs.seeds + shift)) for shift in (0, 12345))
    assert torch.equal(first.indices, second.indices) != draws_at_random(selector)


def test_random_is_the_one_that_draws() -> None:
    assert [name for name in selector_names() if draws_at_random(build_selector(name, SHAPE))] == ["random"]


def test_no_method_inside_the_llm_is_given_a_seed() -> None:
    assert not any(draws_at_random(build_selector(method, SHAPE)) for method in INSIDE_LLM)
