"""Schedulers: a latency in, which layers or head groups of the LLM run out. One file each, found by the registry."""

from typing import Any

from adallava.errors import AdallavaError
from adallava.registry import load_scheduler_class
from adallava.scheduling.contract import DecoderShape, Scheduler


def build_scheduler(name: str, shape: DecoderShape, **options: Any) -> Scheduler:
    """Construct the scheduler registered under `name`; a learned one with fresh, random weights.

    Args:
        name: registry key.
        shape: of the LLM.
        options: the scheduler's own constructor arguments.

    Raises:
        UnknownNameError: for an unknown scheduler.
        AdallavaError: for an option that the scheduler does not take.
        UnsupportedModeError: for an LLM that cannot be split as it wants.
    """
    cls = load_scheduler_class(name)
    try:
        scheduler: Scheduler = cls(shape, **options) if cls.learned else cls(**options)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
        raise AdallavaError(f"scheduler {name!r} does not take these options ({given}): {error}") from error
    scheduler.units(shape)
    return scheduler
