"""What a checkpoint's folder holds, checked before anything is loaded: from names, sizes and headers alone.

transformers names neither the file that is truncated nor the shard that is missing; a person who waited for a
download wants to know which one to fetch again.
"""

import json
from pathlib import Path
from typing import Any

from adallava.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""


def check_config(folder: Path) -> None:
    """Refuse a folder that holds no model in stock layout.

    Raises:
        CheckpointError: if it has no readable config, is an adapter, or in the layout of the original LLaVA code.
    """
    config = _read_config(folder)
    if "mm_vision_tower" in config:
        raise CheckpointError(
            f"folder {str(folder)!r} is in the layout of the original LLaVA code, not in Hugging Face's: convert it "
            "with `adallava convert`"
        )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights cannot be whole.

    Raises:
        CheckpointError: if there are none in safetensors, a shard is missing, or one is truncated.
    """
    for path in _weight_files(folder):
        check_safetensors(path)


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file that is not as long as its header says.

    Raises:
        CheckpointError: naming the file, and both lengths.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if _LENGTH_BYTES + header_bytes > size:
            raise CheckpointError(f"{path} is no whole safetensors file: it ends inside its header. Fetch it again")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} is no safetensors file: its header cannot be read") from error
    expected = _LENGTH_BYTES + header_bytes + max(ends, default=0)
    if size != expected:
        raise CheckpointError(
            f"{path} is truncated or damaged: it has {size} bytes, its header tells of {expected}. Fetch it again"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"folder {str(folder)!r} is an adapter, not a model: give the model it was trained on, and this "
                "folder as its adapter"
            )
        inner = sorted(child.name for child in folder.iterdir() if (child / CONFIG_FILE).is_file())
        hint = f"; did you mean its folder {inner[0]!r}?" if inner else ""
        raise CheckpointError(f"folder {str(folder)!r} holds no model: it has no {CONFIG_FILE}{hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object")
    return config


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f" but pickled ones ({pickled[0]}), which are never read" if pickled else ""
        raise CheckpointError(f"folder {str(folder)!r} has no weights in safetensors{why}: no {WEIGHTS_FILE} in it")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged: it has no readable weight_map") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"folder {str(folder)!r} lacks {len(missing)} of {len(names)} shards that {INDEX_FILE} names: "
            f"{', '.join(missing)}. Fetch them"
        )
    return [folder / name for name in names]
