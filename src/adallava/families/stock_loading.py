"""Loads a stock transformers model from safetensors, and refuses one whose weights do not fill it."""

from pathlib import Path
from typing import Any

import torch

from adallava.errors import CheckpointError


def load_stock(
    class_name: str,
    folder_or_id: str,
    *,
    dtype: str | torch.dtype,
    device: torch.device,
    attn_implementation: str,
) -> Any:
    """Return a model of a class of transformers, by its name, in eval mode; from a folder, without any network.

    Raises:
        CheckpointError: if files are missing or damaged, or the weights do not fill the model.
    """
    import transformers
    from safetensors import SafetensorError

    try:
        model, loading = getattr(transformers, class_name).from_pretrained(
            folder_or_id,
            dtype=dtype,
            attn_implementation=attn_implementation,
            # Each weight goes straight to its place: no copy of the whole on the host, in another type or not.
            device_map={"": device},
            use_safetensors=True,
            local_files_only=Path(folder_or_id).is_dir(),
            # Looked at below, with a message that names the weight.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"cannot load the model at {folder_or_id!r}: {_first_line(error)}") from error
    # transformers fills what is missing with random numbers and goes on.
    missing = [repr(str(name)) for name in sorted(loading["missing_keys"])]
    mismatched = [
        f"{str(name)!r} (stored {tuple(stored)}, by the config {tuple(wanted)})"
        for name, stored, wanted in sorted(loading["mismatched_keys"], key=lambda key: str(key[0]))
    ]
    unfilled = missing + mismatched
    if unfilled:
        raise CheckpointError(
            f"the weights at {folder_or_id!r} do not fill the model: {len(unfilled)} are missing or of another "
            f"shape, the first {unfilled[0]}"
        )
    return model.eval()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
