"""Which of all installed methods and schedulers a model can run as it is configured, and why not the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adallava.checkpoints.bundled import is_bundled, model_folder
from adallava.errors import AdallavaError, UnknownNameError, UnsupportedModeError
from adallava.families import weights_folder
from adallava.model import AdaLlava
from adallava.registry import load_scheduler_class, load_selector_class


def why_left_out(full: AdaLlava, method: str, options: Mapping[str, Any]) -> str | None:
    """Return why the model cannot run a method as configured; None if it can, or if only running it will tell.

    A learned method needs an adapter in the model's folder, a training-free one what the model can give. One of another
    package that cannot be imported, or does not keep the contract, is that package's trouble, not this run's.

    Args:
        full: the full-token model.
        method: a registered name.
        options: of a training-free method.

    Raises:
        CheckpointError: for a text tower that is named and cannot be loaded.
        AdallavaError: for an option that the method does not take.
    """
    try:
        learned = load_selector_class(method).learned
    except UnknownNameError:
        raise
    except AdallavaError as error:
        return str(error)
    if learned:
        return None if _adapter_folder(full, method).is_dir() else f"{full.name_or_path} has no adapter for it"
    try:
        full.with_method(method, **options)
    except UnsupportedModeError as error:
        return str(error)
    return None


def why_no_scheduler(full: AdaLlava, scheduler: str) -> str | None:
    """Return why the model cannot run a scheduler without options; None if it can. See `why_left_out`.

    Args:
        full: a model without a scheduler.
        scheduler: a registered name.
    """
    try:
        cls = load_scheduler_class(scheduler)
        if cls.learned or getattr(cls, "searched", False):
            found = _adapter_folder(full, scheduler).is_dir()
            return None if found else f"{full.name_or_path} has no adapter for it"
        full.with_scheduler(scheduler)
    except UnknownNameError:
        raise
    except AdallavaError as error:
        return str(error)
    return None


def _adapter_folder(full: AdaLlava, name: str) -> Path:
    base = full.name_or_path
    return (model_folder(base) if is_bundled(base) else weights_folder(base)) / "adapters" / name
