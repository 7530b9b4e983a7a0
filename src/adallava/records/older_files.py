"""What files of older versions leave out: the one reader of old schemas, which gives today's fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from adallava.records.names import FULL_LATENCY

_SAMPLE: Mapping[str, Any] = {
    # Nothing drew twice, no position was counted again, no layer was left out.
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
    "least_pixels": None,
    "most_pixels": None,
    "engine": "stock",
    "quantization": "none",
    "title": "",
    # Not recorded: a checkpoint's own `generation_config.json` had a part in it.
    "decoding": None,
}
"""Of `config` in `run.json`, see `RunConfig`."""

_PROVENANCE: Mapping[str, Any] = {"scheduler_sha256": {}, "weight_counts": {}, "model_files_sha256": None}
"""Of `provenance` in `run.json`, see `Provenance`."""


_ESTIMATE: Mapping[str, Any] = {"num_pictures": None, "method": None}
"""Not recorded: every sample was taken for one image."""

_VERDICT: Mapping[str, Any] = {
    # One family of all comparisons, by sign flips and Holm's method; nobody asked what could have been seen.
    "test": None,
    "family": None,
    "num_tests": None,
    "correction": None,
    "least_detectable": None,
    "equivalence_margin": None,
    "p_equivalence": None,
    "equivalent": None,
}

_PARTS: Mapping[str, Mapping[str, Any]] = {
    "Interval": _ESTIMATE,
    "PairedDifference": _ESTIMATE,
    "Comparison": _VERDICT,
    "AreaComparison": {**_VERDICT, "positions": "original", "same_grid": None},
    "Area": {"positions": "original"},
    "MachineLoad": {"gpu_processes_by_others": None, "gpu_bytes_by_others": None},
    "Timing": {"drift": None, "machine": None},
    "Cell": {
        # One draw of all layers, at original positions.
        "positions": "original",
        "scheduler": None,
        "latency_asked": FULL_LATENCY,
        "layer_share": 1.0,
        "draws": 1,
        # Not recorded.
        "kv_bytes": None,
        "accuracy_hard": None,
        "accuracy_hard_by_kind": {},
        "first_token_spread": None,
        "cpu_by_others": None,
        "on_front": [],
        "timings": [],
    },
    "HardSplit": {"right_without_image": None, "sample_ids": None},
    "FixedShare": {"prefix_layers": {}},
    "Dials": {"fixed_shares": [], "fronts": []},
    "Results": {
        "num_pictures": None,
        "comparisons": [],
        "areas": [],
        "area_comparisons": [],
        "hard_split": None,
        "dials": None,
        "alarms": [],
        "majority": None,
        "seen": None,
    },
}
"""Of the parts of `results.json` and of a line of `timings.jsonl`, by the class that reads them."""


def complete_part(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a part of `results.json` or `timings.jsonl`, of any version.

    Args:
        name: of its class; `Verdict` has what all of its kinds have.
        part: as read.
    """
    return {**(_VERDICT if name == "Verdict" else _PARTS.get(name, {})), **part}


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
