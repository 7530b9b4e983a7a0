"""Which budget counts for a request, and what the controller makes of a server's figures over time."""

import json
import math
from typing import Any

import pytest

from adallava.budget import TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.serving.latency_target import LatencyTarget
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
    for body in ({"mm_processor_kwargs": {"max_pixels": 10**9}}, {"media_io_kwargs": {"video": {"num_frames": 9}}}):
        with pytest.raises(InputError, match="takes token_budget and selection_seed"):
            _counts(body, None, FULL)
    allowed = ServingSettings(method="uniform", allow_other_mm_kwargs=True)
    body = b'{"mm_processor_kwargs": {"max_pixels": 9}}'
    assert with_budget(body, None, FULL, allowed) == (body, FULL)


def test_a_window_is_what_came_between_two_readings() -> None:
    before = Load(((100.0, 5), (500.0, 9), (math.inf, 9)))
    after = Load(((100.0, 6), (500.0, 14), (math.inf, 15)), waiting=2)
    window = after.since(before)
    assert window.first_tokens == ((100.0, 1), (500.0, 4), (math.inf, 1))
    assert (window.count, window.waiting) == (6, 2)


def test_the_keeper_goes_down_under_load_and_back_when_it_was_quiet() -> None:
    now, done = [0.0], [Load(((100.0, 0), (500.0, 0)))]
    keeper = TargetKeeper(LatencyTarget(p95_ms=200), lambda: done[0], clock=lambda: now[0])
    assert keeper.budget() == 1.0
    now[0], done[0] = 1.1, Load(((100.0, 0), (500.0, 10)), waiting=3)
    assert keeper.budget() == 0.25  # p95 is 480 ms, over twice the target.
    now[0], done[0] = 1.5, Load(((100.0, 0), (500.0, 99)), waiting=3)
    assert keeper.budget() == 0.25  # The window has not ended.
    now[0], done[0] = 60.0, Load(((100.0, 0), (500.0, 99)))
    assert keeper.budget() == 1.0
