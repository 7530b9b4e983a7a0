"""Which of all installed methods a model can run as it is configured, and why not the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adallava.adapters.bundled import is_bundled, model_folder
from adallava.errors import UnsupportedModeError
from adallava.families import weights_folder
from adallava.model import AdaLlava
from adallava.registry import load_selector_class


def try_method(
    full: AdaLlava, method: str, adapter: Path | None = None, options: Mapping[str, Any] | None = None
) -> AdaLlava | str:
    """Return the model with a method, or why it cannot run: no adapter, or something that the model lacks.

    Args:
        full: the full-token model.
        method: a registered name.
        adapter: of a learned method, if it is not in the model's folder.
        options: of a training-free one.

    Raises:
        CheckpointError: for an adapter that is there and does not fit.
        AdallavaError: for an option that the method does not take.
    """
    if load_selector_class(method).learned and adapter is None and not _has_adapter(full.name_or_path, method):
        return f"{full.name_or_path} has no adapter for it"
    try:
        return full.with_method(method, adapter=adapter, **(options or {}))
    except UnsupportedModeError as error:
        return str(error)


def _has_adapter(model: str, method: str) -> bool:
    folder = model_folder(model) if is_bundled(model) else weights_folder(model)
    return (folder / "adapters" / method).is_dir()
