"""The controller's logic, window by window, and against a queue that is simulated."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.serving.latency_target import Control, LatencyTarget, Window, next_control, percentile_ms

TARGET = LatencyTarget(p95_ms=200, least_budget=0.125)


def _window(ms: float, waiting: int = 0) -> Window:
    return Window(((ms, 0), (ms + 1e-6, 10)), waiting)


def _levels(*windows: Window, control: Control | None = None) -> list[int]:
    control, levels = control or Control(), []
    for window in windows:
        control = next_control(TARGET, control, window)
        levels.append(control.level)
    return levels


def test_budgets_halve_down_to_the_least() -> None:
    assert TARGET.budgets == (1.0, 0.5, 0.25, 0.125)
    assert LatencyTarget(p95_ms=1, least_budget=0.1).budgets == (1.0, 0.5, 0.25, 0.125, 0.1)
    assert LatencyTarget(p95_ms=1, least_budget=1.0).budgets == (1.0,)


def test_a_percentile_of_a_histogram() -> None:
    # 100 requests: 90 within 100 ms, 10 from 100 to 200 ms: the 95th is in the middle of the latter.
    assert percentile_ms([(100.0, 90), (200.0, 10)], 0.95) == pytest.approx(150)
    assert percentile_ms([(100.0, 0), (math.inf, 3)], 0.95) == 100.0
    assert percentile_ms([], 0.95) is None


def test_too_slow_is_one_step_and_much_too_slow_two() -> None:
    assert _levels(_window(250)) == [1]
    assert _levels(_window(500)) == [2]
    assert _levels(Window(waiting=4)) == [2]


def test_the_window_after_a_step_is_not_judged() -> None:
    assert _levels(_window(250), _window(250), _window(250)) == [1, 1, 2]


def test_calm_goes_back_to_full_tokens_one_step_at_a_time() -> None:
    calm = [_window(50)] * 7
    assert _levels(*calm, control=Control(level=2)) == [2, 2, 1, 1, 1, 0, 0]
    assert _levels(*[Window()] * 7, control=Control(level=2)) == [2, 2, 1, 1, 1, 0, 0]


def test_a_queue_or_a_near_miss_is_not_calm() -> None:
    assert _levels(*[_window(50, waiting=1)] * 5, control=Control(level=1)) == [1] * 5
    assert _levels(*[_window(180)] * 5, control=Control(level=1)) == [1] * 5


def test_an_attempt_that_was_taken_back_waits_longer_the_next_time() -> None:
    control, ups = Control(level=1), []
    for number in range(60):
        slow = control.level == 0
        control = next_control(TARGET, control, _window(250 if slow else 50))
        ups.append(number) if control.attempt == 0 else None
    gaps = [after - before for before, after in pairwise(ups)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 2 * gaps[0]


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(0, 3)), max_size=40))
def test_the_budget_is_always_one_of_them(seen: list[tuple[float, int]]) -> None:
    control = Control()
    for ms, waiting in seen:
        before, control = control, next_control(TARGET, control, _window(ms, waiting))
        assert 0 <= control.level < len(TARGET.budgets)
        assert control.level - before.level >= -1


def _served(load: list[int], capacity_tokens: int, controlled: bool) -> tuple[list[float], list[float]]:
    """Return p95 in ms and budget by window, of a server that prefills so many vision tokens a window of 1000 ms."""
    control, waiting, slow, budgets = Control(), 0.0, [], []
    for arriving in load:
        budget = TARGET.budgets[control.level] if controlled else 1.0
        cost = 40 + 576 * budget
        waiting += arriving * cost
        p95 = 20 + 1000 * waiting / capacity_tokens
        waiting = max(0.0, waiting - capacity_tokens)
        slow.append(p95)
        budgets.append(budget)
        control = next_control(TARGET, control, Window(((p95, 0), (p95 + 1e-6, 10)), round(waiting / cost)))
    return slow, budgets


def test_a_step_of_load_is_held_and_full_tokens_come_back() -> None:
    load = [1] * 5 + [8] * 30 + [1] * 20
    with_it, budgets = _served(load, 16_000, controlled=True)
    without, _ = _served(load, 16_000, controlled=False)
    assert min(without[6:35]) > 200
    assert max(with_it[8:35]) <= 200 or sum(ms > 200 for ms in with_it[8:35]) <= 3
    assert (budgets[0], budgets[-1]) == (1.0, 1.0)
    assert min(budgets) >= 0.125
