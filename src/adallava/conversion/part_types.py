"""Of which floating-point type each part of a checkpoint is, found before anything is written."""

from collections.abc import Callable
from pathlib import Path

import torch

from adallava.conversion.scheduler_weights import SCHEDULER_PREFIX
from adallava.conversion.shards import read_tensors, weight_files
from adallava.conversion.weight_names import VISION_PREFIX, clip_name, is_buffer, stock_name
from adallava.errors import CheckpointError

LLM, TOWER, SCHEDULER = "LLM and projector", "vision tower", "scheduler"

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def source_types(source: Path) -> dict[str, torch.dtype]:
    """Return the type of each part that a checkpoint in the layout of the original code has: the LLM's always.

    Raises:
        CheckpointError: if a part is of two types, or of one that no model is loaded in; or there is no LLM.
    """
    types = _types(source, _source_part)
    if LLM not in types:
        raise CheckpointError(f"folder {str(source)!r} holds no weight of an LLM")
    return types


def tower_type(vision_tower: Path) -> torch.dtype:
    """Return the type of a CLIP checkpoint's vision half.

    Raises:
        CheckpointError: if it is of two types, or of one that no model is loaded in; or there is no such half.
    """
    types = _types(vision_tower, lambda name: None if clip_name(name) is None else TOWER)
    if not types:
        raise CheckpointError(f"folder {str(vision_tower)!r} is not a CLIP checkpoint: it has no vision_model weights")
    return types[TOWER]


def _source_part(name: str) -> str | None:
    if name.startswith(SCHEDULER_PREFIX):
        return SCHEDULER
    new = stock_name(name)
    if new is None:
        return None
    return TOWER if new.startswith(VISION_PREFIX) else LLM


def _types(folder: Path, part_of: Callable[[str], str | None]) -> dict[str, torch.dtype]:
    first: dict[str, tuple[str, torch.dtype]] = {}
    for path in weight_files(folder):
        for name, tensor in read_tensors(path):
            part = None if is_buffer(name) else part_of(name)
            if part is None:
                continue
            if tensor.dtype not in _TYPES:
                raise CheckpointError(
                    f"{path} holds {name!r} in {_short(tensor.dtype)}, and weights are in one of "
                    f"{', '.join(map(_short, _TYPES))}"
                )
            other, dtype = first.setdefault(part, (name, tensor.dtype))
            if tensor.dtype != dtype:
                # One type is named in the config, and loading would give it to all.
                raise CheckpointError(
                    f"folder {str(folder)!r} holds its {part} in two types, {other!r} in {_short(dtype)} and {name!r} "
                    f"in {_short(tensor.dtype)}: save it in one"
                )
    return {part: dtype for part, (_, dtype) in first.items()}


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
