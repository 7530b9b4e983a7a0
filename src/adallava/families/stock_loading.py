"""Loads a stock transformers model from safetensors, and refuses one whose weights do not fill it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adallava.checkpoints.files import weight_files
from adallava.checkpoints.weights_header import check_claims, check_safetensors
from adallava.errors import CheckpointError, in_short
from adallava.families.tower_parts import num_position_values
from adallava.families.transformers_internals import errors_alone

_OF_A_LAYER_OR_PROJECTOR = re.compile(r"(\.layers\.\d+\.|projector).*\.(weight|bias)$")
"""What every answer goes through. Other weights may be stored that a model has no use for, such as a pooling head."""


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
        CheckpointError: if files are missing or damaged, or the weights do not fill the model, or are not all finite.
    """
    cls, config = _class_and_config(class_name, folder)
    model, unexpected = _from_files(
        cls, config, folder, dtype=dtype, device=device, attn_implementation=attn_implementation
    )
    _check_all_read(unexpected, folder)
    _check_finite(model, folder)
    return model.eval()


def load_stock_without_llm(
    class_name: str, folder: str, *, embeddings: nn.Module, dtype: str | torch.dtype, device: torch.device
) -> Any:
    """Return a model as `load_stock` does, without the LLM's layers and its head, and with the embeddings given.

    Raises:
        CheckpointError: as `load_stock`.
    """
    cls, config = _class_and_config(class_name, folder)
    text = config.get_text_config()
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    # On the host they are mapped pages: what is thrown away here is never read.
    host = torch.device("cpu")
    model, _ = _from_files(cls, config, folder, dtype=dtype, device=host, attn_implementation="sdpa")
    model.set_input_embeddings(embeddings)
    model.lm_head = nn.Identity()
    _check_finite(model, folder)
    return model.to(device).eval()


def _class_and_config(class_name: str, folder: str) -> tuple[Any, Any]:
    """Return transformers' class and the config at `folder`, whose weights claim what it says."""
    import transformers

    cls = getattr(transformers, class_name)
    try:
        config = cls.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_claims(
            folder,
            config,
            [check_safetensors(path) for path in weight_files(Path(folder))],
            tower_positions=num_position_values(getattr(config, "vision_config", None)),
        )
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged config makes transformers raise
        raise CheckpointError(f"cannot load the model at {folder!r}: {in_short(error)}") from error
    return cls, config


def _from_files(
    cls: Any,
    config: Any,
    folder: str,
    *,
    dtype: str | torch.dtype,
    device: torch.device,
    attn_implementation: str,
) -> tuple[Any, Iterable[Any]]:
    """Return the model that a config names, with every weight of it from files, and the stored names it has not."""
    try:
        # Its table of missing weights is not printed: they are an error here, with a message.
        with errors_alone():
            model, loading = cls.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attn_implementation,
                # Each weight goes straight to its place: no copy of the whole on the host, in another type or not.
                device_map={"": device},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                # Looked at below, with a message that names the weight.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a damaged config or a missing package makes transformers raise
        raise CheckpointError(f"cannot load the model at {folder!r}: {in_short(error)}") from error
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
    return model, loading["unexpected_keys"]


def _check_all_read(unexpected: Iterable[Any], folder: str) -> None:
    """Refuse stored layers and projectors that the config leaves unread: with too few of them it answers wrongly."""
    unread = sorted(name for name in map(str, unexpected) if _OF_A_LAYER_OR_PROJECTOR.search(name))
    if unread:
        raise CheckpointError(
            f"the config at {folder!r} leaves {len(unread)} stored weights unread, the first {unread[0]!r}: it counts "
            "fewer layers, or other parts, than were trained. Take the config that belongs to these weights"
        )


def _check_finite(model: Any, folder: str) -> None:
    """Refuse weights that are NaN or infinite: one of them makes answers of nothing, without a word.

    Every weight is read once, and the host waits for the device once. On the CPU this brings mapped pages into memory,
    which the first answer needs.
    """
    names, finite = [], []
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.numel():
                # One pass and no copy; of NaN both ends are NaN.
                low, high = torch.aminmax(tensor)
                names.append(name)
                finite.append(torch.isfinite(low) & torch.isfinite(high))
    broken = [name for name, whole in zip(names, torch.stack(finite).tolist(), strict=True) if not whole]
    if broken:
        raise CheckpointError(
            f"the weights at {folder!r} hold NaN or infinite numbers in {len(broken)} tensors, the first "
            f"{broken[0]!r}: they were damaged in training or conversion, take another copy"
        )
