"""Cells take turns, and one that fails costs the others nothing."""

import pytest

from adallava.measuring.turns import spread_of, take_turns


def test_cells_take_turns_and_warm_up_rounds_are_not_recorded():
    order = []

    def cell(name):
        return lambda: order.append(name) or len(order)

    turns = take_turns({"a": cell("a"), "b": cell("b")}, warm_ups=1, repeats=2)
    assert order == ["a", "b"] * 3
    assert (turns["a"].results, turns["b"].results) == ([3, 5], [4, 6])


def test_a_cell_that_fails_once_is_left_out_with_its_reason():
    tried = []

    def bad():
        tried.append(1)
        raise MemoryError("too much\nof it")

    turns = take_turns({"bad": bad, "good": lambda: 1.0}, warm_ups=1, repeats=3)
    assert (turns["bad"].results, turns["bad"].error, len(tried)) == ([], "MemoryError: too much of it", 1)
    assert (turns["good"].results, turns["good"].error) == ([1.0] * 3, None)


def test_without_time_one_round_is_recorded_all_the_same():
    assert take_turns({"a": lambda: 1.0}, warm_ups=1, repeats=9, seconds=0.0)["a"].results == [1.0]


def test_a_spread_has_linear_percentiles():
    # Of 1, 2, 9: the 10th lies 0.2 of the way from 1 to 2, the 90th 0.8 of the way from 2 to 9.
    spread = spread_of([9.0, 1.0, 2.0])
    assert (spread.low, spread.median, spread.high) == (pytest.approx(1.2), 2.0, pytest.approx(7.6))
