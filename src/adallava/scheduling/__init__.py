"""Schedulers: a latency in, which layers or head groups of the LLM run out. One file each, found by the registry."""

from typing import Any

from adallava.registry import load_scheduler_class
from adallava.registry.options import construct
from adallava.scheduling.scheduler_contract import DecoderShape, Scheduler


def build_scheduler(name: str, shape: DecoderShape, /, **options: Any) -> Scheduler:
    """Construct the scheduler registered under `name`; a learned one with fresh, random weights.

    Args:
        name: registry key.
        shape: of the LLM.
        options: the scheduler's own constructor arguments.

    Raises:
        UnknownNameError: for an unknown scheduler.
        AdallavaError: for an option that the scheduler does not take, or a value that is not of the option's type.
        UnsupportedModeError: for an LLM that cannot be split as it wants.
    """
    scheduler: Scheduler = construct("scheduler", load_scheduler_class(name), shape, options)
    scheduler.units(shape)
    return scheduler
