"""The controller's logic by itself, and before a server in numbers: steps, spikes, and the way back to full tokens."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_model import Asked, QueueModel, arrivals_ms, p95_ms, served

from adallava.serving.latency_target import (
    Control,
    Costs,
    LatencyTarget,
    Waiting,
    Window,
    budget_for,
    faded,
    late_share,
    next_control,
)
from adallava.serving.target_keeper import TargetKeeper

TARGET = LatencyTarget(p95_ms=1000)
TEN_MS_A_REQUEST = Control(Costs().after(Window(((100.0, 10),), 100.0, 0, 100.0, 1000.0)))


def _budget(*, wait_ms: float = 0.0, late: float = 0.0) -> float:
    return budget_for(TARGET, Control(late=late), Waiting(oldest_ms=wait_ms))


def test_budgets_halve_down_to_the_least() -> None:
    assert TARGET.budgets == (1.0, 0.5, 0.25, 0.125, 0.0625)
    assert LatencyTarget(p95_ms=1, least_budget=0.1).budgets == (1.0, 0.5, 0.25, 0.125, 0.1)
    assert LatencyTarget(p95_ms=1, least_budget=0.125, most_budget=0.5).budgets == (0.5, 0.25, 0.125)
    assert LatencyTarget(p95_ms=1, least_budget=1.0).budgets == (1.0,)


def test_a_histogram_and_a_sum_tell_how_many_are_late() -> None:
    def share(target_ms: float, ttft_ms: float, *counts: tuple[float, int]) -> float:
        return late_share(Window(counts, ttft_ms), target_ms)

    # Bounds at the target: 1 of 10 is over it, whatever the sum.
    assert share(500, 9e9, (250.0, 4), (500.0, 5), (1000.0, 1)) == pytest.approx(0.1)
    # Within bounds, the mean tells: all took 260 ms, or 450.
    assert share(300, 260 * 10, (250.0, 0), (500.0, 10)) == 0
    assert share(300, 450 * 10, (250.0, 0), (500.0, 10)) == 1
    # A mean in the middle: from 250 to 500 evenly, 4 fifths of them over 300.
    assert share(300, 375 * 10, (250.0, 0), (500.0, 10)) == pytest.approx(0.8)
    # The four below took 125 ms each, so that the others took 260.
    assert share(300, 4 * 125 + 6 * 260, (250.0, 4), (500.0, 6)) == 0
    assert share(300, 1e4, (250.0, 0), (math.inf, 3)) > 0.95
    assert share(300, 0.0) == 0


def test_the_budget_follows_the_wait_at_once_and_both_ways() -> None:
    waits = [0, 190, 210, 310, 410, 510, 5000, 310, 0]
    assert [_budget(wait_ms=wait) for wait in waits] == [1, 1, 0.5, 0.25, 0.125, 0.0625, 0.0625, 0.25, 1]


def test_a_queue_counts_by_what_its_requests_cost() -> None:
    assert TEN_MS_A_REQUEST.costs.ms(30, 0) == pytest.approx(300, rel=0.05)
    assert budget_for(TARGET, TEN_MS_A_REQUEST, Waiting(requests=10)) == 1.0
    assert budget_for(TARGET, TEN_MS_A_REQUEST, Waiting(requests=60)) == 0.0625


def test_before_anything_is_known_the_wait_so_far_counts() -> None:
    assert budget_for(TARGET, Control(), Waiting(requests=99)) == 1.0
    assert budget_for(TARGET, Control(), Waiting(requests=99, oldest_ms=600)) == 0.0625


def test_what_a_request_and_what_a_token_costs_are_told_apart() -> None:
    costs = Costs()
    for count, tokens in [(4, 1000), (10, 300), (2, 500), (8, 2000), (12, 300)]:
        true_ms = 60 * count + 2 * tokens
        costs = costs.after(Window(((1e9, count),), true_ms + 999, tokens, true_ms, true_ms))
    assert costs.ms(1, 0) == pytest.approx(60, rel=0.1)
    assert costs.ms(0, 1) == pytest.approx(2, rel=0.1)


def test_idle_time_is_not_taken_for_work() -> None:
    lone = Costs().after(Window(((1000.0, 1),), ttft_ms=500.0, prompt_tokens=0, busy_ms=700.0, length_ms=60_000.0))
    assert lone.ms(1, 0) == pytest.approx(500, rel=0.05)
    # Seven in one step waited 4 s each, and the server worked for 4 s.
    step = Costs().after(Window(((5000.0, 7),), ttft_ms=28_000.0, prompt_tokens=0, busy_ms=4000.0, length_ms=4000.0))
    assert step.ms(7, 0) == pytest.approx(4000, rel=0.05)


def test_late_answers_press_though_nothing_waits_and_are_forgotten() -> None:
    control = Control()
    for _ in range(9):
        control = next_control(TARGET, control, Window(((2000.0, 10),), 1e4, 10, 1000.0, 1000.0))
    assert control.late == 0.5
    assert _budget(late=control.late) == 0.0625
    assert faded(control, 60_000).late == pytest.approx(control.late / 8)
    assert _budget(late=faded(control, 60_000).late) == 1.0
    in_time = next_control(TARGET, control, Window(((500.0, 10),), 1e3, 10, 1000.0, 1000.0))
    assert in_time.late < control.late


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(0, 1e6), st.integers(0, 10**6), st.floats(0, 1e6), st.floats(1, 1e6)),
        max_size=20,
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**9),
    st.floats(0, 1e9),
)
def test_whatever_comes_the_budget_is_one_of_them_and_no_queue_raises_it(
    seen: list[tuple[int, float, int, float, float]], requests: int, tokens: int, oldest_ms: float
) -> None:
    control = Control()
    for count, ttft_ms, prompt_tokens, busy_ms, length_ms in seen:
        control = next_control(TARGET, control, Window(((2000.0, count),), ttft_ms, prompt_tokens, busy_ms, length_ms))
        assert 0 <= late_share(Window(((2000.0, count),), ttft_ms), 1000.0) <= 1
    assert 0 <= control.late <= 0.5
    budget = budget_for(TARGET, control, Waiting(requests, tokens, oldest_ms))
    assert budget in TARGET.budgets
    assert budget <= budget_for(TARGET, control, Waiting())


CALM = [(0.3, 20.0)]
STEP = [(0.3, 10.0), (1.6, 30.0)]
SPIKE = [(0.3, 10.0), (3.5, 5.0)]


def _kept(target: LatencyTarget, model: QueueModel) -> Callable[[QueueModel], float]:
    keeper = TargetKeeper(target, model.load, clock_ms=lambda: model.now_ms)
    return lambda server: keeper.budget(server.waiting())


def _all(parts: Sequence[tuple[float, float]], target_ms: float, **of_model: float) -> dict[str, list[list[Asked]]]:
    """Return runs at five seeds: without the controller, with it, and at the least budget from the start."""
    runs: dict[str, list[list[Asked]]] = {"full": [], "kept": [], "least": []}
    for seed in range(5):
        times = arrivals_ms(parts, seed)
        models = {name: QueueModel(**of_model) for name in runs}  # type: ignore[arg-type]
        kept = _kept(LatencyTarget(p95_ms=target_ms), models["kept"])
        budgets = {"full": lambda _: 1.0, "kept": kept, "least": lambda _: 0.0625}
        for name, model in models.items():
            runs[name].append(served(times, budgets[name], model))
    return runs


def _pooled(runs: Sequence[Sequence[Asked]]) -> list[Asked]:
    return [asked for run in runs for asked in run]


@pytest.mark.parametrize("parts", [STEP + CALM, SPIKE + CALM, STEP + CALM + SPIKE + CALM])
@pytest.mark.parametrize("step_tokens", [512, 2048])
def test_a_target_holds_where_some_budget_can_hold_it(parts: list[tuple[float, float]], step_tokens: int) -> None:
    runs = _all(parts, 1500.0, step_tokens=step_tokens)
    full, kept, least = (_pooled(runs[name]) for name in ("full", "kept", "least"))
    assert p95_ms(least) < 1000
    assert p95_ms(full) > 3 * 1500
    assert p95_ms(kept) < 1500
    # And it spends no more than it must: the least budget is a sixteenth.
    assert sum(asked.budget for asked in kept) / len(kept) > 5 / 16


def test_full_tokens_come_back_within_seconds_of_the_load() -> None:
    begun = 1000 * sum(seconds for _, seconds in STEP)
    for run in _all([*STEP, (0.05, 60.0)], 1500.0)["kept"]:
        after = [asked for asked in run if asked.at_ms > begun + 10_000]
        assert after
        assert all(asked.budget == 1.0 for asked in after)


def test_a_load_that_fits_keeps_nearly_every_token() -> None:
    calm = _pooled(_all([(0.3, 60.0)], 5000.0)["kept"])
    assert sum(asked.budget for asked in calm) / len(calm) > 0.95


def test_more_than_the_server_has_ends_at_the_least_budget_and_not_below() -> None:
    runs = _all([(8.0, 10.0)], 1500.0)
    kept, full = _pooled(runs["kept"]), _pooled(runs["full"])
    assert {asked.budget for run in runs["kept"] for asked in run[-20:]} == {0.0625}
    assert p95_ms(kept) < p95_ms(full) / 3
