"""Finds methods, schedulers, model families and sources of tasks by name: built in, or another package's.

Another package registers its own as entry points. Nothing is imported before it is asked for, so that listing names
stays fast and needs no torch.
"""

import difflib
import os
import sys
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

from adallava.errors import AdallavaError, UnknownNameError
from adallava.registry import built_in

SELECTOR_GROUP = "adallava.selectors"
SCHEDULER_GROUP = "adallava.schedulers"
FAMILY_GROUP = "adallava.families"
TASK_GROUP = "adallava.tasks"

_OWN = "adallava"

_BUILT_IN = {
    SELECTOR_GROUP: built_in.SELECTORS,
    SCHEDULER_GROUP: built_in.SCHEDULERS,
    FAMILY_GROUP: built_in.FAMILIES,
    TASK_GROUP: built_in.TASKS,
}

_KINDS = {
    SELECTOR_GROUP: "selection method",
    SCHEDULER_GROUP: "scheduler",
    FAMILY_GROUP: "model family",
    TASK_GROUP: "source of tasks",
}

_REQUIRED = ("name", "learned", "needs", "merges", "per_sample", "ignores_budget", "flops")
"""Of every method."""

_REQUIRED_BEFORE = (*_REQUIRED, "select")
"""Of a method that selects before the LLM: `selection.selector_contract.Selector`."""

_REQUIRED_INSIDE = (*_REQUIRED, "schedule", "raters", "choose", "num_raters")
"""Of a method inside the LLM, which has a schedule: `selection.layer_contract.LayerSelector`."""

_REQUIRED_SCHEDULER = ("name", "learned", "per_sample", "units", "schedule")
"""Of a scheduler: `scheduling.scheduler_contract.Scheduler`."""

_REQUIRED_FAMILY = (
    *("name", "transformers_class", "picture_inputs", "model", "shape", "image_token_id", "pad_token_id", "device"),
    *("dtype", "provides", "one_grid", "grids", "encode", "project", "project_all", "embed_text", "llm_of"),
    "num_llm_layers",
)
"""Of a model family: the core, `families.family_contract.Family`. Its name is the `model_type` of the config."""

_CONTRACTS = (
    "adallava.selection.selector_contract",
    "adallava.selection.layer_contract",
    "adallava.scheduling.scheduler_contract",
)
"""Modules whose protocols a class may inherit. What it takes over from there has no body."""


def selector_names() -> tuple[str, ...]:
    """Return the names of every installed selection method, sorted. Imports none of them.

    Raises:
        AdallavaError: if two installed packages claim one name.
    """
    return tuple(sorted(_entry_points_by_name(SELECTOR_GROUP)))


def scheduler_names() -> tuple[str, ...]:
    """Return the names of every installed scheduler, sorted. Imports none of them.

    Raises:
        AdallavaError: if two installed packages claim one name.
    """
    return tuple(sorted(_entry_points_by_name(SCHEDULER_GROUP)))


def family_names() -> tuple[str, ...]:
    """Return the `model_type` of every installed model family, sorted. Imports none of them.

    Raises:
        AdallavaError: if two installed packages claim one name.
    """
    return tuple(sorted(_entry_points_by_name(FAMILY_GROUP)))


def load_selector_class(name: str) -> type[Any]:
    """Import and return the selection method registered under `name`.

    Raises:
        UnknownNameError: for a name that no package registers, with the nearest known names.
        AdallavaError: if the class cannot be imported, lacks part of the contract, or names itself otherwise.
    """
    return _load(SELECTOR_GROUP, name)


def load_scheduler_class(name: str) -> type[Any]:
    """Import and return the scheduler registered under `name`.

    Raises:
        UnknownNameError: for a name that no package registers, with the nearest known names.
        AdallavaError: if the class cannot be imported, lacks part of the contract, or names itself otherwise.
    """
    return _load(SCHEDULER_GROUP, name)


def load_family_class(model_type: str) -> type[Any]:
    """Import and return the model family of a `model_type`.

    Raises:
        UnknownNameError: for a type that no package registers, with the nearest known ones.
        AdallavaError: if the class cannot be imported, lacks part of the contract, or names itself otherwise.
    """
    return _load(FAMILY_GROUP, model_type)


def task_source(name: str) -> Any:
    """Import and return what loads tasks called `<source>:<name>`; None for a name without a registered source.

    Raises:
        AdallavaError: if it cannot be imported.
    """
    source, colon, _ = name.partition(":")
    entry_point = _entry_points_by_name(TASK_GROUP).get(source) if colon else None
    if entry_point is None:
        return None
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as error:
        raise AdallavaError(f"tasks of {source!r} cannot be loaded from {entry_point.value!r}: {error}") from error


def entry_points(group: str) -> EntryPoints:
    """Return what the installed packages register under a group."""
    return _read_entry_points(group, tuple((folder, _changed_at(folder)) for folder in sys.path))


@lru_cache(maxsize=len(_BUILT_IN))
def _read_entry_points(group: str, folders: tuple[tuple[str, float], ...]) -> EntryPoints:
    """Read every package's, again only once a package came or went: that takes milliseconds, and models ask often."""
    return metadata.entry_points(group=group)


def _changed_at(folder: str) -> float:
    try:
        return os.stat(folder or os.curdir).st_mtime
    except (OSError, ValueError):
        return 0.0


def selects_inside_llm(cls: object) -> bool:
    """Say whether a method's class drops tokens inside the LLM, by a schedule, rather than before it."""
    return hasattr(cls, "schedule")


def _load(group: str, name: str) -> type[Any]:
    entry_point, cls = _import(group, name)
    _check_class(group, cls, entry_point)
    checked: type[Any] = cls
    return checked


def _import(group: str, name: str) -> tuple[EntryPoint, Any]:
    known = _entry_points_by_name(group)
    if name not in known:
        raise UnknownNameError(_unknown_name_message(group, name, sorted(known)))
    entry_point = known[name]
    try:
        return entry_point, entry_point.load()
    except Exception as error:  # Whatever another package's module does as it is imported.
        raise AdallavaError(
            f"{_KINDS[group]} {name!r} of package {_package(entry_point)} cannot be imported from "
            f"{entry_point.value!r}: {type(error).__name__}: {error}"
        ) from error


def _entry_points_by_name(group: str) -> dict[str, EntryPoint]:
    by_name = {name: EntryPoint(name, value, group) for name, value in _BUILT_IN[group].items()}
    for entry_point in entry_points(group=group):
        other = by_name.setdefault(entry_point.name, entry_point)
        # What is built in was an entry point, too, of a version that may still be installed next to a checkout.
        if other is not entry_point and not _is_own(entry_point):
            raise AdallavaError(
                f"two packages register the {_KINDS[group]} {entry_point.name!r}: {_package(other)} "
                f"({other.value}) and {_package(entry_point)} ({entry_point.value}); uninstall one of them"
            )
    return by_name


def _is_own(entry_point: EntryPoint) -> bool:
    return entry_point.value.startswith(f"{_OWN}.")


def _check_class(group: str, cls: object, entry_point: EntryPoint) -> None:
    required: tuple[str, ...] = _REQUIRED_FAMILY if group == FAMILY_GROUP else _REQUIRED_SCHEDULER
    if group == SELECTOR_GROUP:
        required = _REQUIRED_INSIDE if selects_inside_llm(cls) else _REQUIRED_BEFORE
    missing = [attribute for attribute in required if not hasattr(cls, attribute) or _only_declared(cls, attribute)]
    if not isinstance(cls, type) or missing:
        raise AdallavaError(
            f"{_KINDS[group]} {entry_point.name!r} of package {_package(entry_point)} does not keep the contract: "
            f"{entry_point.value} lacks {', '.join(missing) or 'a class'} (see docs/how_to/contributing.md)"
        )
    if cls.name != entry_point.name:  # type: ignore[attr-defined]
        raise AdallavaError(
            f"package {_package(entry_point)} registers {entry_point.value} as {entry_point.name!r}, but its "
            f"`name` is {cls.name!r}: make them the same"  # type: ignore[attr-defined]
        )


def _only_declared(cls: object, attribute: str) -> bool:
    """Say whether a class that inherits the protocol left one of its methods as it is there: without a body."""
    return getattr(getattr(cls, attribute), "__module__", None) in _CONTRACTS


def _unknown_name_message(group: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"no {_KINDS[group]} {name!r}: {hint}known are {', '.join(known)}. (One that was registered just now is known "
        "after its package is installed again: pip install -e .)"
    )


def _package(entry_point: EntryPoint) -> str:
    if entry_point.dist is not None:
        return entry_point.dist.name
    return _OWN if _is_own(entry_point) else "(unknown)"
