"""Plain sample records and runs for the tests of the evaluation."""

from collections.abc import Callable, Iterable
from typing import Any

from adallava.records import Run, SampleRecord


def sample_record(cell: str = "full@1.0", sample_id: str = "a", **changes: Any) -> SampleRecord:
    method, _, budget = cell.partition("@")
    fields: dict[str, Any] = {
        "cell": cell,
        "sample_id": sample_id,
        "question": "How many?",
        "answers": ["2"],
        "response": "2",
        "score": 1.0,
        "method": method,
        "budget_asked": budget,
        "num_vision_tokens": 16,
        "tokens_asked": 16,
        "tokens_kept": 16,
        "prompt_length": 30,
        "answer_length": 2,
        "finish_reason": "eos",
        "batch_ms": 8.0,
        "batch_size": 2,
        "part_ms": {"vision": 1.0, "prefill": 2.0, "decode": 1.0},
        "flops": {"vision": 100, "prefill": 200, "decode": 10},
    }
    return SampleRecord(**(fields | changes))


def changed(record: SampleRecord, **fields: Any) -> SampleRecord:
    """Return a record with other values in fields of its line."""
    return SampleRecord(**(record.model_dump() | fields))


def failed(cell: str = "full@1.0", sample_id: str = "a", error: str = "InputError: broken") -> SampleRecord:
    return sample_record(
        cell, sample_id, response="", score=None, finish_reason="error", empty_cause="error", error=error, part_ms={},
        flops={}, tokens_kept=0,
    )  # fmt: skip


def reader(records: Iterable[SampleRecord]) -> Callable[[str], list[SampleRecord]]:
    """Return how a summary reads the cells of these records."""
    by_cell: dict[str, list[SampleRecord]] = {}
    for record in records:
        by_cell.setdefault(record.cell, []).append(record)
    return by_cell.__getitem__


def run(config: dict[str, Any] | None = None, provenance: dict[str, Any] | None = None) -> Run:
    base_config: dict[str, Any] = {
        "model": "m",
        "task": "t.jsonl",
        "methods": ["random"],
        "token_budgets": ["0.5"],
        "limit": 10,
        "batch_size": 2,
        "seed": 0,
        "max_new_tokens": 4,
        "dtype": "float32",
        "device": "cpu",
        "attn_implementation": "sdpa",
    }
    base_provenance: dict[str, Any] = {
        "adallava_version": "0.1.0",
        "versions": {"python": "3.11.2", "torch": "2.11.0", "transformers": "5.17.0"},
        "git_commit": None,
        "git_dirty": None,
        "weights_sha256": "0" * 64,
        "adapter_sha256": {},
        "task_sha256": "1" * 64,
        "hardware": {},
        "command": "adallava sweep",
        "started_at": "2025-01-01T00:00:00+00:00",
    }
    # As from a file: what an older one did not write is put in.
    return Run(
        config=base_config | (config or {}),
        provenance=base_provenance | (provenance or {}),
    )
