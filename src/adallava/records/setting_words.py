"""What a user calls a setting of a run, and how its value reads on a line."""

from collections.abc import Mapping
from typing import Any

HASH_DIGITS = 12
"""Of a SHA-256 or a commit, where a person reads it."""

_OPTIONS = {
    "methods": "--method",
    "token_budgets": "--token-budget",
    "schedulers": "--scheduler",
    "latencies": "--latency",
    "scheduler_options": "--scheduler-option",
    "method_options": "--method-option",
    "columns": "the columns of --task",
    "metric_version": "the version of the metric",
    "decoding": "--generation-option",
}
"""Fields of `RunConfig` whose option is not their own name."""


def setting_words(field: str) -> str:
    """Return what the command line calls a field of `RunConfig`: `--token-budget` for `token_budgets`."""
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


def value_words(value: Any) -> str:
    """Return a value as a person would write it: `64,32` for `["64", "32"]`, `none` for nothing."""
    if value is None or (isinstance(value, str | list | tuple | Mapping) and not value):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(value_words, value))
    return shortened(str(value))


def shortened(text: str) -> str:
    """Return a SHA-256 or a commit by its first digits, and any other text as it is."""
    is_hash = len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
    return f"{text[:HASH_DIGITS]}…" if is_hash else text
