"""Refuses a checkpoint that asks for code of its own, file and key named: none is ever run, and nobody is asked.

`trust_remote_code=False` alone is not enough: transformers does not hand it on everywhere (a processor found by the
type of the model opens its parts without it, and these ask on the terminal), and where it has classes of its own it
takes those without a word, which may answer differently from the code that the checkpoint was made with.
"""

from pathlib import Path
from typing import Any

from adallava.checkpoints.json_files import read_json, walk_json
from adallava.errors import CheckpointError

JSON_FILES = (
    *("config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
)
"""Every JSON file of a folder that transformers reads, but for the index of the weights."""

_CODE_KEYS = {
    "auto_map": "code of its own (auto_map)",
    "custom_pipelines": "code of its own (custom_pipelines)",
    "auto_mapping": "code of its own (auto_mapping)",
    "configuration_files": "other files to be read in place of this one (configuration_files)",
    "fast_tokenizer_files": "other files to be read in place of tokenizer.json (fast_tokenizer_files)",
}
_KERNEL_KEYS = ("attn_implementation", "experts_implementation")
"""With an underscore before them or without. A name with a slash is a repository of compiled kernels, which
transformers would fetch and run."""

_CODE_FILE = Path("custom_generate") / "generate.py"
"""Stands for `generate` in transformers, for who trusts it."""

_VOCABULARIES = ("tokenizer.json", "added_tokens.json", "special_tokens_map.json")
"""Keys in these may be words of a language."""


def check_no_code(folder: Path) -> None:
    """Refuse a folder that names code of its own, or other files to be read in place of those that are checked.

    Raises:
        CheckpointError: naming file and key; or a file is damaged.
    """
    for name in JSON_FILES:
        path = folder / name
        if path.exists() and name not in _VOCABULARIES:
            _check_keys(path, read_json(path))
    if (folder / _CODE_FILE).exists():
        raise CheckpointError(
            f"folder {str(folder)!r} asks for code of its own ({_CODE_FILE}) in place of transformers' generate: no "
            "code of a checkpoint is ever run. If stock generation is what you want, take that file away"
        )


def _check_keys(path: Path, value: dict[str, Any]) -> None:
    for where, inner in walk_json(path, value):
        key = where.rpartition(".")[2]
        if key in _CODE_KEYS and inner:
            raise CheckpointError(
                f"{path} asks for {_CODE_KEYS[key]} under {where!r}: no code of a checkpoint is ever run, and no file "
                "but the stock ones is read. If transformers' own classes are what you want, take that key out"
            )
        if key.removeprefix("_") in _KERNEL_KEYS and ("/" in str(inner)):
            raise CheckpointError(
                f"{path} asks for kernels from the hub under {where!r} ({str(inner)[:80]!r}): no code of a checkpoint "
                "is ever run. Take that key out"
            )
