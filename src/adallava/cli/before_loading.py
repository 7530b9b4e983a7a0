"""How a command loads a model, and what it does before."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adallava.model import AdaLlava

_OF_LOADING = ("dtype", "device", "engine", "quantization", "pad_to_square", "least_pixels", "most_pixels")
"""Options of commands, by the names of `AdaLlava.from_pretrained`'s arguments; not every command has all."""


def load_full(args: argparse.Namespace) -> "AdaLlava":
    """Load the full-token model that a command's options name, without noise.

    Raises:
        InputError: for a device that is not here; and as `AdaLlava.from_pretrained`.
    """
    from adallava.model import AdaLlava
    from adallava.records import FULL_METHOD

    check_device(args.device)
    quiet_loading(args.model)
    leave_cudnn_attention()
    options = {name: getattr(args, name) for name in _OF_LOADING if hasattr(args, name)}
    return AdaLlava.from_pretrained(args.model, method=FULL_METHOD, **options)


def leave_cudnn_attention() -> None:
    """Run attention without cuDNN, which plans again for each new length of a sequence: about 80 ms on an H200.

    `ADALLAVA_CUDNN_ATTENTION=1` leaves PyTorch's choice as it is.
    """
    import torch

    if os.environ.get("ADALLAVA_CUDNN_ATTENTION", "0") in ("", "0"):
        torch.backends.cuda.enable_cudnn_sdp(False)


def quiet_loading(model: str) -> None:
    """Turn progress bars off for a model that is here already; a download keeps its bars, where the user has them."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars  # type: ignore[attr-defined]

    from adallava.checkpoints.bundled import is_bundled
    from adallava.families.transformers_internals import hide_progress_bars

    hub_shows_bars = not are_progress_bars_disabled()
    hide_progress_bars()
    if hub_shows_bars and not is_bundled(model) and not Path(model).is_dir():
        enable_progress_bars()


def check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or does not have here; None is left to the model.

    Raises:
        InputError: naming the device and those there are.
    """
    from adallava.checkpoints.placement import pick_device

    pick_device(device)
