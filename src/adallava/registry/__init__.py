"""Methods, schedulers, model families, costs and sources of tasks, by name."""

from adallava.registry.found import (
    COSTS_GROUP,
    FAMILY_GROUP,
    SCHEDULER_GROUP,
    SELECTOR_GROUP,
    TASK_GROUP,
    costed_names,
    family_names,
    load_family_class,
    load_scheduler_class,
    load_selector_class,
    load_shape_reader,
    scheduler_names,
    selector_names,
    selects_inside_llm,
    task_source,
)

__all__ = [
    "COSTS_GROUP",
    "FAMILY_GROUP",
    "SCHEDULER_GROUP",
    "SELECTOR_GROUP",
    "TASK_GROUP",
    "costed_names",
    "family_names",
    "load_family_class",
    "load_scheduler_class",
    "load_selector_class",
    "load_shape_reader",
    "scheduler_names",
    "selector_names",
    "selects_inside_llm",
    "task_source",
]
