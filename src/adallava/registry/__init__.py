"""Methods, schedulers, model families and sources of tasks, by name."""

from adallava.registry.found import (
    FAMILY_GROUP,
    SCHEDULER_GROUP,
    SELECTOR_GROUP,
    TASK_GROUP,
    family_names,
    load_family_class,
    load_scheduler_class,
    load_selector_class,
    scheduler_names,
    selector_names,
    selects_inside_llm,
    task_source,
)

__all__ = [
    "FAMILY_GROUP",
    "SCHEDULER_GROUP",
    "SELECTOR_GROUP",
    "TASK_GROUP",
    "family_names",
    "load_family_class",
    "load_scheduler_class",
    "load_selector_class",
    "scheduler_names",
    "selector_names",
    "selects_inside_llm",
    "task_source",
]
