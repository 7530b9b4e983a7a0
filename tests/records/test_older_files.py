"""Folders of older versions are read by one module: what they left out is what it was then, not what is asked today."""

import json

import pytest
from pydantic import ValidationError

from adallava.budget import TokenBudget
from adallava.records import Results, Run, RunConfig, SampleRecord

LINE = {
    "cell": "uniform@8",
    "sample_id": "a",
    "question": "How many?",
    "answers": ["2"],
    "response": "2",
    "score": 1.0,
    "method": "uniform",
    "budget_asked": "8",
    "num_vision_tokens": 32,
    "tokens_asked": 8,
    "tokens_kept": 8,
    "kept_indices": [[0, 2, 4, 6], [1, 3, 5, 7]],
    "prompt_length": 22,
    "answer_length": 2,
    "finish_reason": "eos",
    "batch_ms": 8.0,
    "batch_size": 2,
    "part_ms": {},
    "flops": {},
}
RUN = {
    "config": {
        "model": "tiny",
        "task": "scenes",
        "methods": ["uniform"],
        "token_budgets": ["8", "0.5"],
        "limit": 10,
        "batch_size": 2,
        "seed": 0,
        "max_new_tokens": 4,
        "dtype": "float32",
        "device": "cpu",
        "attn_implementation": "sdpa",
    },
    "provenance": {
        "adallava_version": "0.1.0",
        "versions": {},
        "git_commit": None,
        "git_dirty": None,
        "weights_sha256": "0",
        "adapter_sha256": {},
        "task_sha256": None,
        "hardware": {},
        "command": "adallava sweep",
        "started_at": "2025-01-01T00:00:00+00:00",
    },
}


def test_a_line_of_the_first_version_is_one_draw_with_all_layers_at_original_positions():
    record = SampleRecord.model_validate_json(json.dumps(LINE))
    ran = record.ran
    assert (record.draw, ran.positions, ran.scheduler, ran.latency_asked) == (0, "original", None, "1.0")
    assert (ran.tokens_planned, ran.tokens_at_end, ran.layer_share) == (8, 8, 1.0)
    # No grids: the two images have equally many tokens.
    assert ran.tokens_per_image == [16, 16]
    assert (record.picture_sha256, record.frames, record.kv_bytes, record.cpu_by_others) == (None, None, None, None)


def test_in_a_line_what_ran_stands_beside_the_rest():
    record = SampleRecord(**LINE)
    line = json.loads(record.model_dump_json())
    assert line.items() >= LINE.items()
    assert "ran" not in line
    assert SampleRecord(**line) == record


def test_a_run_of_the_first_version_drew_once_and_did_not_say_how_it_decoded():
    config = Run.model_validate_json(json.dumps(RUN)).config
    assert (config.draws, config.positions, config.metric, config.metric_version) == (
        1,
        ("original",),
        "exact-match",
        1,
    )
    assert config.decoding is None
    assert config.token_budgets == (TokenBudget(count=8), TokenBudget(ratio=0.5))
    # Whoever asks today has other defaults.
    asked = RunConfig.asked(model="tiny", methods=("uniform",), token_budgets=[8])
    assert (asked.draws, asked.metric, asked.generation_options) == (3, None, {})


@pytest.mark.parametrize("name", ["seed", "limit", "dtype", "token_budgets"])
def test_what_every_version_wrote_has_no_default_in_a_file(name):
    config = {field: value for field, value in RUN["config"].items() if field != name}
    with pytest.raises(ValidationError, match=rf"config\.{name} is missing"):
        Run(**{**RUN, "config": config})


def test_a_run_reads_back_as_it_was_written():
    run = Run(**RUN)
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert json.loads(run.model_dump_json())["config"]["token_budgets"] == ["8", "0.5"]


INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 10}
CELL = {
    "cell": "full@1.0",
    "method": "full",
    "budget_asked": "1.0",
    "num_samples": 10,
    "num_failed": 0,
    "accuracy": INTERVAL,
    "accuracy_by_kind": {"counting": INTERVAL},
    "difference_to_full": None,
    "empties": {},
    "empty_share": 0.0,
    "flagged": False,
    "flag_reason": None,
    "num_vision_tokens": 256.0,
    "tokens_kept": 256.0,
    "tokens_kept_layer_average": 256.0,
    "prompt_length": 270.0,
    "answer_length": 2.0,
    "flops": {},
    "part_ms": {},
    "peak_memory_bytes": None,
}
COMPARISON = {
    "cell_a": "full@1.0",
    "cell_b": "full@1.0",
    "difference": INTERVAL,
    "p_value": 1.0,
    "p_adjusted": 1.0,
    "significant": False,
}


def test_results_of_the_first_version_had_one_dial_and_told_no_methods():
    results = Results.model_validate_json(json.dumps({"cells": [CELL], "comparisons": [COMPARISON]}))
    (cell,), (comparison,) = results.cells, results.comparisons
    assert (cell.draws, cell.positions, cell.scheduler, cell.latency_asked, cell.layer_share) == (
        1,
        "original",
        None,
        "1.0",
        1.0,
    )
    assert (cell.timings, cell.on_front, cell.accuracy_hard, cell.accuracy.method) == ([], [], None, None)
    assert cell.accuracy_by_kind["counting"].num_pictures is None
    assert (comparison.test, comparison.family, comparison.equivalent) == (None, None, None)
    assert (results.dials, results.hard_split, results.seen, results.majority, results.alarms) == (
        None,
        None,
        None,
        None,
        [],
    )
    assert Results.model_validate_json(results.model_dump_json()) == results


@pytest.mark.parametrize("name", ["num_failed", "accuracy", "flagged", "tokens_kept"])
def test_what_every_version_summed_up_has_no_default_in_a_file(name):
    cell = {field: value for field, value in CELL.items() if field != name}
    with pytest.raises(ValidationError, match=rf"cells\.0\.{name}\s+Field required"):
        Results.model_validate_json(json.dumps({"cells": [cell]}))
