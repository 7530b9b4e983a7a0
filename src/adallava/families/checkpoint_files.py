"""What a checkpoint's folder holds, checked before anything is loaded: from names, sizes and headers alone.

transformers names neither the file that is truncated nor the shard that is missing; a person who waited for a
download wants to know which one to fetch again.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from adallava.errors import CheckpointError, UnsupportedModeError

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_PICTURE_FILES = ("preprocessor_config.json", "processor_config.json")
_JSON_FILES = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.json", *_PICTURE_FILES),
)
"""Of a processor and of generation. transformers goes on without some of them if they are damaged."""

_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What Git leaves in a file's place where Git LFS is not installed."""


def check_config(folder: Path) -> dict[str, Any]:
    """Return the config of a folder with a model in stock layout.

    Raises:
        CheckpointError: if it has no readable config, is an adapter or has one beside the model, or is in the layout of
            the original LLaVA code.
        UnsupportedModeError: for quantised weights.
    """
    config = _read_config(folder)
    if "mm_vision_tower" in config:
        raise CheckpointError(
            f"folder {str(folder)!r} is in the layout of the original LLaVA code, not in Hugging Face's: convert it "
            "with `adallava convert`"
        )
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        # transformers would load it upon the model, or another model beneath it.
        raise CheckpointError(
            f"folder {str(folder)!r} holds an {ADAPTER_CONFIG_FILE} beside its model: merge the adapter into the model "
            "(peft's merge_and_unload) and save that to a folder of its own, or take the adapter's files away if it "
            "is merged already"
        )
    if config.get("quantization_config"):
        raise UnsupportedModeError(
            f"the weights in folder {str(folder)!r} are quantised (quantization_config): only floating-point ones are "
            "supported, take the model that they were made from"
        )
    return config


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights cannot be whole.

    Raises:
        CheckpointError: if there are none in safetensors, a shard is missing, or one is truncated.
    """
    for path in weight_files(folder):
        check_safetensors(path)


def check_processor(folder: Path) -> None:
    """Refuse a folder whose processor's files are missing or no JSON.

    Raises:
        CheckpointError: naming the file.
    """
    for names, what in ((_TOKENIZER_FILES, "tokenizer"), (_PICTURE_FILES, "settings for pictures")):
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"folder {str(folder)!r} has no {what}: neither {' nor '.join(names)} is in it")
    for name in _JSON_FILES:
        if (folder / name).is_file():
            read_json(folder / name)


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file that is not as long as its header says.

    Raises:
        CheckpointError: naming the file, and both lengths.
    """
    check_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if _LENGTH_BYTES + header_bytes > size:
            raise CheckpointError(f"{path} is no whole safetensors file: it ends inside its header. {_again(path)}")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = _LENGTH_BYTES + header_bytes + max(ends, default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is no safetensors file: its header cannot be read") from error
    if size != expected:
        raise CheckpointError(
            f"{path} is truncated or damaged: it has {size} bytes, its header tells of {expected}. {_again(path)}"
        )


def _again(path: Path) -> str:
    """Say how to replace a file; the hub's cache takes one that is there for whole, whatever is in it."""
    if path.is_symlink():
        return f"Delete {path.resolve()}, to which it links, and fetch it again"
    return "Delete it, and fetch it again"


def check_pointer(path: Path) -> None:
    """Refuse what Git leaves in a large file's place.

    Raises:
        CheckpointError: naming the command that fetches the file.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` there")


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        check_pointer(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"folder {str(path.parent)!r} has no {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object")
    return value


def indexed_files(index: Path) -> list[Path]:
    """Return the shards that an index names, each once, sorted.

    Raises:
        CheckpointError: if it is damaged or names none, one outside its folder, or one that is missing.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise CheckpointError(f"{index} is damaged: it has no readable weight_map")
    folder, names = index.parent, sorted(set(weight_map.values()))
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise CheckpointError(f"{index} names {outside[0]!r}, which lies outside its folder: it is refused")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"folder {str(folder)!r} lacks {len(missing)} of {len(names)} shards that {index.name} names: "
            f"{', '.join(missing)}. Fetch them"
        )
    return [folder / name for name in names]


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        if (folder / ADAPTER_CONFIG_FILE).is_file():
            raise CheckpointError(f"folder {str(folder)!r} is an adapter, not a model: {_use_of_adapter(folder)}")
        # One too high, or the hub's cache of a repository instead of a snapshot in it.
        found = [*folder.glob(f"*/{CONFIG_FILE}"), *folder.glob(f"snapshots/*/{CONFIG_FILE}")]
        inner = sorted(str(path.parent.relative_to(folder)) for path in found)
        hint = f"; did you mean its folder {inner[0]!r}?" if inner else ""
        raise CheckpointError(f"folder {str(folder)!r} holds no model: it has no {CONFIG_FILE}{hint}")
    return read_json(folder / CONFIG_FILE)


def _use_of_adapter(folder: Path) -> str:
    if "peft_type" in read_json(folder / ADAPTER_CONFIG_FILE):
        return "merge it into its model (peft's merge_and_unload), save that, and give the folder it is saved to"
    return "give the model it was trained on, and this folder as its adapter"


def weight_files(folder: Path) -> list[Path]:
    """Return the files that a model in this folder is loaded from, whatever else lies beside them, sorted.

    Raises:
        CheckpointError: if there are none, or the index is damaged or names one that is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return indexed_files(folder / INDEX_FILE)
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise CheckpointError(
            f"folder {str(folder)!r} has no weights in safetensors but pickled ones ({pickled[0]}), which are never "
            "read: save the model anew by transformers' save_pretrained, which writes safetensors"
        )
    raise CheckpointError(f"folder {str(folder)!r} has no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE} is in it")
