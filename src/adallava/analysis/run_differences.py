"""What two runs were asked for and ran on, where it is not the same."""

from collections.abc import Iterator
from typing import Any

from adallava.records import Run
from adallava.records.run_changes import RunDifference

_PLACES = ("adallava_version", "git_commit", "weights_sha256", "task_sha256")
_PLACES_BY_NAME = ("versions", "adapter_sha256", "scheduler_sha256", "model_files_sha256", "hardware")


def run_differences(a: Run, b: Run) -> list[RunDifference]:
    """Return every field of the configurations and of what the runs ran on that differs, in the order of `run.json`."""
    return [RunDifference(name=name, a=_text(old), b=_text(new)) for name, old, new in _fields(a, b) if old != new]


def _fields(a: Run, b: Run) -> Iterator[tuple[str, Any, Any]]:
    old, new = (one.config.model_dump(mode="json") for one in (a, b))
    yield from ((name, old[name], new[name]) for name in old)
    old, new = (one.provenance.model_dump(mode="json") for one in (a, b))
    yield from ((name, old[name], new[name]) for name in _PLACES)
    for field in _PLACES_BY_NAME:
        parts = [one[field] or {} for one in (old, new)]
        for name in sorted(parts[0].keys() | parts[1].keys()):
            yield f"{field} {name}", parts[0].get(name), parts[1].get(name)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
