"""Model families: which file drives a checkpoint, by its `model_type`."""

from pathlib import Path
from typing import Any

import torch

from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import llava, llava_next
from adallava.families.checkpoint_files import check_config, check_weights
from adallava.families.contract import Family
from adallava.families.stock_loading import load_stock

_FAMILIES = {
    llava.MODEL_TYPE: (llava.MODEL_CLASS, llava.LlavaFamily),
    llava_next.MODEL_TYPE: (llava_next.MODEL_CLASS, llava_next.LlavaNextFamily),
}
"""By `model_type`: the name of transformers' class, and what drives it."""


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for; by default CUDA if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load_family(
    folder_or_id: str, *, dtype: str | torch.dtype, device: torch.device, attn_implementation: str
) -> Family:
    """Load the checkpoint with the family that its config names.

    One policy for all families. *Type*: "auto" is the one that the checkpoint names; the one asked for is given to
    every weight. *Device*: one, for everything. *Memory*: the files are mapped, and each weight goes from its page to
    its place on its own: on the CPU in the stored type the pages are the weights, elsewhere the one copy is made on the
    device. Pickled weights are never read.

    Args:
        folder_or_id: a folder, or a hub id.
        dtype: "auto", or a floating-point type.
        device: to load to.
        attn_implementation: "sdpa" or "eager".

    Raises:
        CheckpointError: if there is no readable config, or the weights are missing or damaged.
        UnsupportedModeError: for a family that is not supported.
    """
    folder = Path(folder_or_id) if Path(folder_or_id).is_dir() else None
    if folder is not None:
        check_config(folder)
    class_name, wrapper = _FAMILIES[_supported(_read_model_type(folder_or_id), folder_or_id)]
    if folder is not None:
        check_weights(folder)
    return wrapper(
        load_stock(class_name, folder_or_id, dtype=dtype, device=device, attn_implementation=attn_implementation)
    )


def wrap_model(model: Any) -> Family:
    """Return the family that drives an already loaded transformers model.

    Raises:
        UnsupportedModeError: for a family that is not supported.
    """
    _, wrapper = _FAMILIES[_supported(str(model.config.model_type), type(model).__name__)]
    return wrapper(model)


def weights_folder(folder_or_id: str) -> Path:
    """Return the folder that holds a checkpoint's files: itself, or the hub's local copy.

    Raises:
        CheckpointError: if a hub id has no local copy.
    """
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    from transformers.utils import cached_file

    try:
        config_path = cached_file(folder_or_id, "config.json", local_files_only=True)
    except OSError as error:
        raise CheckpointError(f"{folder_or_id!r} is neither a folder nor a downloaded model") from error
    return Path(str(config_path)).parent


def _read_model_type(folder_or_id: str) -> str:
    from transformers import PreTrainedConfig

    path = Path(folder_or_id)
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder_or_id, local_files_only=path.is_dir())
    except (OSError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"no model {folder_or_id!r}: not a bundled name, not a folder, not a readable hub id ({message})"
        ) from error
    return str(config.get("model_type", "unknown"))


def _supported(model_type: str, where: str) -> str:
    if model_type not in _FAMILIES:
        raise UnsupportedModeError(
            f"{where!r} is of the family {model_type!r}; supported are: {', '.join(sorted(_FAMILIES))}"
        )
    return model_type
