"""What a command does before it loads a model."""

from pathlib import Path

from adallava.errors import InputError


def quiet_loading(model: str) -> None:
    """Turn transformers' progress bars off for a model that is here already; a download keeps its bars."""
    from transformers.utils.logging import disable_progress_bar

    from adallava.adapters.bundled import is_bundled

    if is_bundled(model) or Path(model).is_dir():
        disable_progress_bar()


def check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or does not have here; None is left to the model.

    Raises:
        InputError: naming the device and those there are.
    """
    if device is None:
        return
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise InputError(f"--device {device!r} is not the name of a device; here are: {', '.join(there)}") from None
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device!r} is not on this machine; here are: {', '.join(there)}")
