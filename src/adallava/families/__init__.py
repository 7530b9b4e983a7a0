"""Model families: which file drives a checkpoint, by its `model_type`."""

from pathlib import Path
from typing import Any

import torch

from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families.contract import Family
from adallava.families.llava import MODEL_TYPE, LlavaFamily, load_llava

_LOADERS = {MODEL_TYPE: load_llava}
_WRAPPERS = {MODEL_TYPE: LlavaFamily}


def load_family(
    folder_or_id: str, *, dtype: str | torch.dtype, device: torch.device, attn_implementation: str
) -> Family:
    """Load the checkpoint with the family that its config names.

    Raises:
        CheckpointError: if there is no readable config, or the weights are missing or damaged.
        UnsupportedModeError: for a family that is not supported.
    """
    model_type = _read_model_type(folder_or_id)
    loader = _LOADERS[_supported(model_type, folder_or_id)]
    return loader(folder_or_id, dtype=dtype, device=device, attn_implementation=attn_implementation)


def wrap_model(model: Any) -> Family:
    """Return the family that drives an already loaded transformers model.

    Raises:
        UnsupportedModeError: for a family that is not supported.
    """
    return _WRAPPERS[_supported(str(model.config.model_type), type(model).__name__)](model)


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
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(f"folder {folder_or_id!r} holds no model: it has no config.json")
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder_or_id, local_files_only=path.is_dir())
    except (OSError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"no model {folder_or_id!r}: not a bundled name, not a folder, not a readable hub id ({message})"
        ) from error
    return str(config.get("model_type", "unknown"))


def _supported(model_type: str, where: str) -> str:
    if model_type not in _LOADERS:
        raise UnsupportedModeError(
            f"{where!r} is of the family {model_type!r}; supported are: {', '.join(sorted(_LOADERS))}"
        )
    return model_type
