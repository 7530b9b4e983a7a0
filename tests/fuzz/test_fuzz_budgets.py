"""Budgets and latencies: any text, number, list or object is a number of tokens or layers in bounds, or refused."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from mutations import ODD_NUMBERS, ODD_TEXTS

from adallava.budget import Latency, TokenBudget
from adallava.cli.arguments import (
    parse_batch_sizes,
    parse_generation_options,
    parse_limit,
    parse_method_options,
    parse_method_paths,
    parse_positions,
    split_list,
)
from adallava.errors import AdallavaError, InputError
from adallava.pipeline.call import Request

FINDINGS: dict[str, Any] = {
    "a fraction larger than any float": Fraction(10**400, 3),
    "a number of more digits than Python writes": 10**4400,
    "text of thousands of digits": "9" * 5000,
}
"""Values that broke a rule, by what they are."""

_IDS = torch.ones(2, 3, dtype=torch.int64)

texts = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(("0.25", "25%", "64", "1.0", "+3", "-0", "0x10", "1_000", " 5 ", "٣", "²", "1e-400", "%", "1%%")),
    st.from_regex(r"[+-]?[0-9]{0,4}([.,][0-9]{0,3})?(e[+-]?[0-9]{1,3})?%?", fullmatch=True),
    st.text(max_size=6),
)
numbers = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    st.integers(),
    st.floats(),
    st.fractions(),
    st.decimals(),
    st.booleans(),
    st.complex_numbers(),
    st.builds(np.float16, st.floats(width=16)),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.sampled_from((Fraction(10**400, 3), Decimal("sNaN"), Decimal("1e9999"), np.bool_(True), np.uint8(7))),
)
others = st.sampled_from((None, b"64", bytearray(b"1"), object(), int, {"a": 1}, (0.5,), {3}, TokenBudget(ratio=0.5)))
scalars = st.one_of(texts, numbers, others)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.tuples(scalars, scalars),
    st.builds(np.array, st.lists(st.floats(), max_size=3)),
    st.builds(torch.tensor, st.lists(st.floats(width=32), max_size=3)),
    st.lists(st.lists(texts, max_size=2), max_size=2),
)

_LISTS = (
    TokenBudget.parse_all, Latency.parse_all, parse_positions, parse_batch_sizes, parse_method_paths,
    parse_method_options, parse_generation_options,
)  # fmt: skip


def check(value: Any) -> None:
    """Take a value at every door that a budget may come in by; raise what the first refused it for."""
    refused: list[AdallavaError] = []
    for door in (_resolved, _in_a_batch, _from_the_command_line):
        try:
            door(value)
        except AdallavaError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _resolved(value: Any) -> None:
    budget, latency = TokenBudget.parse(value), Latency.parse(value)
    assert all(1 <= budget.resolve(most) <= most for most in (1, 7, 576))
    assert TokenBudget.parse(str(budget)) == budget
    assert 0 <= latency.resolve(8, 2, 4) <= 24


def _in_a_batch(value: Any) -> None:
    request = Request.parse(_IDS, None, None, side="left", token_budget=value, latency=value, seed=[1, 2])
    assert all(isinstance(one, TokenBudget) for one in request.budgets)


def _from_the_command_line(value: Any) -> None:
    if not isinstance(value, str):
        return
    refused = []
    for parse in _LISTS:
        try:
            assert parse(split_list([value])) is not None
        except InputError as error:
            refused.append(error)
        except AdallavaError as error:
            refused.append(InputError(str(error)))
    parse_limit(value)
    if refused:
        raise refused[0]


@pytest.mark.parametrize("name", FINDINGS)
def test_budgets_that_failed_once(name: str, tmp_path: Path) -> None:
    judge(check, FINDINGS[name], tmp_path)


@pytest.mark.parametrize("value", [0.25, [0.5, 64], np.float32(0.5), torch.tensor([0.5, 1.0])])
def test_a_budget_enters_by_a_batch(value: Any, tmp_path: Path) -> None:
    assert judge(_in_a_batch, value, tmp_path) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_budgets(tmp_path: Path) -> None:
    tally = fuzz("budgets", values, check, tmp_path, findings=len(FINDINGS), at_once=1000)
    assert tally.answered
    assert tally.refused
