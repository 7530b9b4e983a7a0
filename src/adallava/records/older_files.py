"""What files of older versions leave out: the one reader of old schemas, which gives today's fields."""

from collections.abc import Mapping
from typing import Any

from adallava.records.names import FULL_LATENCY

_SAMPLE: Mapping[str, Any] = {
    # Nothing drew twice, no position was counted anew, no layer was left out.
    "draw": 0,
    "positions": "original",
    "scheduler": None,
    "latency_asked": FULL_LATENCY,
    "merged": False,
    # Not recorded.
    "chosen_per_sample": False,
    "kept_indices": (),
    "grids": (),
}
"""Of a line of `samples.jsonl`, see `SampleRecord` and `WhatRan`."""


def complete_sample(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line of `samples.jsonl`, of any version."""
    complete = {**_SAMPLE, **line}
    if complete.get("tokens_planned") is None:
        # All methods kept K asked, or did not say what they would.
        complete["tokens_planned"] = complete.get("tokens_asked")
    for name in ("kept_indices", "grids"):
        if complete[name] is None:
            complete[name] = ()
    return complete
