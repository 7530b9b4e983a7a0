"""Which budget counts for a request, and what the controller makes of a server's figures over time."""

import json
import math
from typing import Any

import pytest

from adallava.budget import TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.serving.in_flight import InFlight
from adallava.serving.latency_target import LatencyTarget, Waiting
from adallava.serving.request_body import with_budget
from adallava.serving.serving_settings import ServingSettings
from adallava.serving.target_keeper import Load, TargetKeeper

SETTINGS = ServingSettings(method="uniform")
FULL, HALF = TokenBudget(ratio=1.0), TokenBudget(ratio=0.5)


def _counts(body: dict[str, Any], header: str | None, default: TokenBudget) -> tuple[Any, str]:
    changed, budget = with_budget(json.dumps(body).encode(), header, default, SETTINGS)
    return json.loads(changed).get("mm_processor_kwargs", {}).get("token_budget"), str(budget)


def test_field_then_header_then_controller_then_the_servers_default() -> None:
    asked = {"mm_processor_kwargs": {"token_budget": 64}}
    assert _counts(asked, "0.25", HALF) == (64, "64")
    assert _counts({}, "25%", HALF) == (0.25, "0.25")
    assert _counts({}, "16", HALF) == (16, "16")
    assert _counts({}, None, HALF) == (0.5, "0.5")
    assert _counts({"model": "tiny"}, None, FULL) == (None, "1.0")


def test_the_rest_of_a_body_stays() -> None:
    changed, _ = with_budget(b'{"messages": [1], "mm_processor_kwargs": {"selection_seed": 3}}', None, HALF, SETTINGS)
    assert json.loads(changed) == {
        "messages": [1],
        "mm_processor_kwargs": {"selection_seed": 3, "token_budget": 0.5},
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"mm_processor_kwargs": 3}', b"\xff"])
def test_what_is_no_request_is_left_to_the_server(body: bytes) -> None:
    assert with_budget(body, None, HALF, SETTINGS) == (body, HALF)


def test_what_means_nothing_or_takes_memory_is_refused() -> None:
    with pytest.raises(BudgetError, match="'lots' is not a number"):
        _counts({}, "lots", FULL)
    with pytest.raises(InputError, match="in mm_processor_kwargs, and not 'max_pixels'"):
        _counts({"mm_processor_kwargs": {"max_pixels": 10**9}}, None, FULL)
    with pytest.raises(InputError, match="takes no media_io_kwargs"):
        _counts({"media_io_kwargs": {"video": {"num_frames": 9}}}, None, FULL)
    with pytest.raises(InputError, match="token_budget is next to mm_processor_kwargs"):
        _counts({"token_budget": 16}, None, FULL)
    with pytest.raises(InputError, match="nested too deeply"):
        with_budget(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, FULL, SETTINGS)
    allowed = ServingSettings(method="uniform", allow_other_mm_kwargs=True)
    body = b'{"mm_processor_kwargs": {"max_pixels": 9}}'
    assert with_budget(body, None, FULL, allowed) == (body, FULL)


def test_a_window_is_what_came_between_two_readings() -> None:
    before = Load(((100.0, 5), (500.0, 9), (math.inf, 9)), ttft_ms=900.0, prompt_tokens=90, busy_ms=400.0)
    after = Load(((100.0, 6), (500.0, 14), (math.inf, 15)), ttft_ms=3900.0, prompt_tokens=150, busy_ms=1000.0)
    window = after.since(before, length_ms=1500.0)
    assert window.first_tokens == ((100.0, 1), (500.0, 4), (math.inf, 1))
    assert window.count == 6
    assert (window.ttft_ms, window.prompt_tokens, window.busy_ms, window.length_ms) == (3000.0, 60, 600.0, 1500.0)


def test_the_keeper_learns_once_a_window_and_looks_at_what_waits_each_time() -> None:
    now, done = [0.0], [Load(((500.0, 0), (math.inf, 0)))]
    keeper = TargetKeeper(LatencyTarget(p95_ms=1000), lambda: done[0], clock_ms=lambda: now[0])
    assert keeper.budget(Waiting(requests=9)) == 1.0  # What they cost is not known yet.
    now[0], done[0] = 900.0, Load(((500.0, 9), (math.inf, 9)), ttft_ms=900.0, busy_ms=900.0)
    assert keeper.budget(Waiting(requests=9)) == 1.0  # The window has not ended.
    now[0] = 1000.0
    assert keeper.budget(Waiting(requests=9)) == 0.0625  # 100 ms each.
    assert keeper.budget(Waiting()) == 1.0


def test_a_window_in_which_nothing_came_out_goes_on() -> None:
    """A step of 4 s is what its requests cost, however often somebody looked meanwhile."""
    now, done = [0.0], [Load(((1000.0, 0), (5000.0, 0)))]
    keeper = TargetKeeper(LatencyTarget(p95_ms=8000), lambda: done[0], clock_ms=lambda: now[0])
    for second in range(1, 4):
        now[0], done[0] = 1000.0 * second, Load(((1000.0, 0), (5000.0, 0)), busy_ms=1000.0 * second)
        keeper.budget(Waiting(requests=8))
    now[0], done[0] = 4000.0, Load(((1000.0, 0), (5000.0, 8)), ttft_ms=32_000.0, busy_ms=4000.0)
    assert keeper.budget(Waiting(requests=10)) == 0.0625  # Half a second each: more than half of the target.
    assert keeper.budget(Waiting(requests=2)) == 1.0


def test_requests_in_flight_are_counted_timed_and_told_apart() -> None:
    now = [0.0]
    flight = InFlight(lambda: now[0])
    first = flight.begin()
    now[0] = 100.0
    second = flight.begin()
    now[0] = 150.0
    flight.speaks(first)
    assert (len(flight), flight.silent, flight.busy_ms) == (2, 1, 150.0)
    assert (flight.oldest_ms(1), flight.oldest_ms(2), flight.oldest_ms(0)) == (50.0, 150.0, 0.0)
    flight.end(first)
    now[0] = 200.0
    flight.end(second)
    flight.end(second)
    now[0] = 1000.0
    assert (len(flight), flight.silent, flight.busy_ms, flight.oldest_ms(3)) == (0, 0, 200.0, 0.0)
