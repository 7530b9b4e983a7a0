"""What a checkpoint's folder holds, checked before anything is loaded: from names, sizes and headers alone.

transformers names neither the file that is truncated nor the shard that is missing; a person who waited for a
download wants to know which one to fetch again.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from adallava.checkpoints.json_files import check_regular, read_json
from adallava.checkpoints.original_layout import check_not_original
from adallava.checkpoints.own_code import check_no_code
from adallava.checkpoints.schemas import MAX_TEMPLATE_CHARS, PROCESSOR_SCHEMAS, check_model_config, check_schema
from adallava.checkpoints.weights_header import check_safetensors, check_types
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

_MORE_TEMPLATES = "additional_chat_templates/*.jinja"


def check_config(folder: Path) -> dict[str, Any]:
    """Return the config of a folder with a model in stock layout.

    Raises:
        CheckpointError: if it has no readable config, is an adapter or has one next to the model, or is to
            be converted first; or it asks for code of its own, or holds values that no model has.
        UnsupportedModeError: for quantized weights.
    """
    config = _read_config(folder)
    check_not_original(folder, config)
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        # transformers would load it on the model, or another model beneath it.
        raise CheckpointError(
            f"folder {str(folder)!r} holds an {ADAPTER_CONFIG_FILE} next to its model: merge the adapter into it "
            "(peft's merge_and_unload) and save that to a folder of its own, or take the adapter's files away if it "
            "is merged already"
        )
    check_no_code(folder)
    check_model_config(folder / CONFIG_FILE, config)
    if config.get("quantization_config"):
        raise UnsupportedModeError(
            f"the weights in folder {str(folder)!r} are quantized (quantization_config): only floating-point ones are "
            "supported, take the model that they were made from"
        )
    return config


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights cannot be whole.

    Raises:
        CheckpointError: if there are none in safetensors, a shard is missing, one is truncated, or weights are not of a
            floating-point type.
    """
    for path in weight_files(folder):
        check_types(path, check_safetensors(path))


def check_processor(folder: Path) -> None:
    """Refuse a folder whose processor's files are missing or no JSON, ask for code, or hold impossible values.

    Raises:
        CheckpointError: naming the file.
    """
    check_no_code(folder)
    for names, what in ((_TOKENIZER_FILES, "tokenizer"), (_PICTURE_FILES, "settings for images")):
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"folder {str(folder)!r} has no {what}: neither {' nor '.join(names)} is in it")
    check_tokenizer(folder)


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder whose files of a processor, those that are there, are not JSON or hold impossible values.

    Raises:
        CheckpointError: naming the file.
    """
    for name in _JSON_FILES:
        if (folder / name).exists():
            value = read_json(folder / name)
            if name in PROCESSOR_SCHEMAS:
                check_schema(folder / name, value, PROCESSOR_SCHEMAS[name])
    for path in (folder / "tokenizer.model", folder / "chat_template.jinja", *folder.glob(_MORE_TEMPLATES)):
        check_regular(path)
        if path.suffix == ".jinja" and path.is_file() and path.stat().st_size > MAX_TEMPLATE_CHARS:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, more than the {MAX_TEMPLATE_CHARS} that a chat template may "
                "have"
            )


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
    for name in names:
        check_regular(folder / name)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"folder {str(folder)!r} lacks {len(missing)} of {len(names)} shards that {index.name} names: "
            f"{', '.join(missing)}. Fetch them"
        )
    return [folder / name for name in names]


def _read_config(folder: Path) -> dict[str, Any]:
    for name in (CONFIG_FILE, ADAPTER_CONFIG_FILE):
        check_regular(folder / name)
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
    """Return the files that a model in this folder is loaded from, whatever else lies next to them, sorted.

    Raises:
        CheckpointError: if there are none, or the index is damaged or names one that is missing.
    """
    for name in (WEIGHTS_FILE, INDEX_FILE):
        check_regular(folder / name)
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return indexed_files(folder / INDEX_FILE)
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise CheckpointError(
            f"folder {str(folder)!r} has no weights in safetensors but pickled ones ({pickled[0]}), which are never "
            "read: save the model again with transformers' save_pretrained, which writes safetensors"
        )
    raise CheckpointError(f"folder {str(folder)!r} has no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE} is in it")
