"""Loads a stock transformers model from safetensors, and refuses one whose weights do not fill it."""

from textwrap import shorten
from typing import Any

import torch

from adallava.errors import CheckpointError
from adallava.families.transformers_internals import errors_alone


def load_stock(
    class_name: str,
    folder: str,
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

    try:
        # Its table of missing weights is not printed: they are an error here, with a message.
        with errors_alone():
            model, loading = getattr(transformers, class_name).from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attn_implementation,
                # Each weight goes straight to its place: no copy of the whole on the host, in another type or not.
                device_map={"": device},
                use_safetensors=True,
                local_files_only=True,
                # Looked at below, with a message that names the weight.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a damaged config or a missing package makes transformers raise
        raise CheckpointError(f"cannot load the model at {folder!r}: {_in_short(error)}") from error
    # transformers fills what is missing with random numbers and goes on.
    missing = [repr(str(name)) for name in sorted(loading["missing_keys"])]
    mismatched = [
        f"{str(name)!r} (stored {tuple(stored)}, by the config {tuple(wanted)})"
        for name, stored, wanted in sorted(loading["mismatched_keys"], key=lambda key: str(key[0]))
    ]
    unfilled = missing + mismatched
    if unfilled:
        others = sorted(map(str, loading["unexpected_keys"]))
        hint = f"; it holds {len(others)} that the model has not, the first {others[0]!r}" if others else ""
        raise CheckpointError(
            f"the weights at {folder!r} do not fill the model: {len(unfilled)} are missing or of another "
            f"shape, the first {unfilled[0]}{hint}"
        )
    return model.eval()


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 300, placeholder=' …') or 'no message'}"
