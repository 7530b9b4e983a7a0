"""Reads the tensors of a checkpoint file by file, pickled or not; nothing in a file is ever executed."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adallava.errors import CheckpointError

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""Of the files' names, the safe kind first: a folder with both is read from the safe ones."""


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return a JSON file of a folder.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"folder {str(folder)!r} has no {name}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / name} is damaged: it holds no object")
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights.

    Raises:
        CheckpointError: if there are none, or a shard that the index names is missing.
    """
    for stem, ending in _STEMS:
        index = folder / f"{stem}.{ending}.index.json"
        if index.is_file():
            weight_map = read_config(folder, index.name).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index} is damaged: it has no readable weight_map")
            names = sorted(set(map(str, weight_map.values())))
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise CheckpointError(f"folder {str(folder)!r} lacks {', '.join(missing)}, which {index.name} names")
            return [folder / name for name in names]
        if (folder / f"{stem}.{ending}").is_file():
            return [folder / f"{stem}.{ending}"]
    raise CheckpointError(
        f"folder {str(folder)!r} has no weights: neither model.safetensors nor pytorch_model.bin, nor their shards"
    )


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Give a file's tensors one by one, memory-mapped.

    Raises:
        CheckpointError: if it is damaged, or a pickle that holds more than tensors: that is refused, not run.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return
    yield from _read_pickled(path).items()


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is a pickle that holds more than tensors, and running what is in it is never "
            f"safe ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise CheckpointError(f"{path} is refused: it holds something other than named tensors")
    return held
