"""What files of older versions leave out: the one reader of old schemas, which gives today's fields."""

from collections.abc import Mapping, Sequence
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

_CONFIG: Mapping[str, Any] = {
    # Everything drew once, greedily in the order of the task, with all layers, by one metric of one version.
    "positions": ["original"],
    "draws": 1,
    "timing_batch_sizes": [],
    "schedulers": [],
    "latencies": [FULL_LATENCY],
    "scheduler_options": {},
    "method_options": {},
    "columns": {},
    "split": None,
    "sample": "first",
    "metric": "exact-match",
    "metric_version": 1,
    "question_suffix": "",
    "pad_to_square": False,
    "engine": "stock",
    "quantization": "none",
    # Not recorded: a checkpoint's own `generation_config.json` had a part in it.
    "decoding": None,
}
"""Of `config` in `run.json`, see `RunConfig`."""

_PROVENANCE: Mapping[str, Any] = {"scheduler_sha256": {}, "weight_counts": {}, "model_files_sha256": None}
"""Of `provenance` in `run.json`, see `Provenance`."""


def complete_run(run: Mapping[str, Any], config_fields: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `run.json`, of any version.

    Args:
        run: as read.
        config_fields: of `RunConfig`: defaults of asking are none of a file, which has to say what was taken.

    Raises:
        ValueError: for a configuration without one of them.
    """
    complete = dict(run)
    for name, defaults in (("config", _CONFIG), ("provenance", _PROVENANCE)):
        if isinstance(run.get(name), dict):
            complete[name] = {**defaults, **run[name]}
    if isinstance(complete.get("config"), dict):
        lacking = [name for name in config_fields if name not in complete["config"]]
        if lacking:
            raise ValueError(f"config.{lacking[0]} is missing")
    return complete


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
