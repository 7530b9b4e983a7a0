"""What a safetensors file says of itself: names, types and shapes, read without a single weight."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adallava.checkpoints.json_files import check_pointer
from adallava.errors import CheckpointError

_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""

_MAX_HEADER_BYTES = 100_000_000
"""As in safetensors itself."""

_FLOATING_POINT = ("F64", "F32", "F16", "BF16")
_BUFFERS = ("position_ids", "num_batches_tracked")
"""Last parts of the names of what is stored next to weights as whole numbers."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a file.

    Attributes:
        dtype: as safetensors writes it, such as "BF16".
        shape: of it.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_values(self) -> int:
        """Of how many numbers it consists."""
        return math.prod(self.shape)


def check_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return what a safetensors file holds by its header, once the file is as long as that says.

    Raises:
        CheckpointError: naming the file, and both lengths.
    """
    check_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if _LENGTH_BYTES + header_bytes > size:
            raise CheckpointError(
                f"{path} is not a complete safetensors file: it ends inside its header. {_again(path)}"
            )
        if header_bytes > _MAX_HEADER_BYTES:
            raise CheckpointError(f"{path} is not a safetensors file: its header would have {header_bytes} bytes")
        try:
            header = json.loads(file.read(header_bytes))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            ends = [entry["data_offsets"][1] for entry in entries.values()]
            expected = _LENGTH_BYTES + header_bytes + max(ends, default=0)
            held = {name: _stored(entry) for name, entry in entries.items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is not a safetensors file: its header cannot be read") from error
    if size != expected:
        raise CheckpointError(
            f"{path} is truncated or damaged: it has {size} bytes, its header describes {expected}. {_again(path)}"
        )
    return held


def check_types(path: Path, held: Mapping[str, StoredTensor]) -> None:
    """Refuse weights that are not of a floating-point type: loading would turn them into one without a word.

    Raises:
        CheckpointError: naming the tensor and its type.
    """
    for name, tensor in held.items():
        if tensor.dtype not in _FLOATING_POINT and name.rpartition(".")[2] not in _BUFFERS:
            raise CheckpointError(
                f"{path} holds {name!r} in the type {tensor.dtype}: weights are in a floating-point one "
                f"({', '.join(_FLOATING_POINT)}); quantized ones are not supported"
            )


def check_claims(
    where: str, config: Any, files: Iterable[Mapping[str, StoredTensor]], *, tower_positions: int = 0
) -> None:
    """Refuse a config that asks for many more weights than the files hold, before room is made for them.

    What is counted is less than any such model has: one matrix of each layer's MLP and one of its attention, the
    embeddings, and the tower's first layer. A model that passes and is not filled all the same is found when it loads.

    Args:
        where: the folder, for the message.
        config: the model's, with transformers' defaults for what its file leaves out.
        files: what each file holds.
        tower_positions: numbers of the tower's learned positions, where it is known to have them.

    Raises:
        CheckpointError: with both figures; or for a layer of the tower that it does not have.
    """
    num_tensors, num_values = 0, 0
    for held in files:
        num_tensors += len(held)
        num_values += sum(tensor.num_values for tensor in held.values())
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    _check_feature_layers(where, config)
    layers = _number(text, "num_hidden_layers") + _number(vision, "num_hidden_layers")
    if layers > num_tensors:
        raise CheckpointError(
            f"the weights at {where!r} do not fill the model: by its config it has {layers} layers "
            f"(num_hidden_layers), and its files hold {num_tensors} tensors"
        )
    words = _number(text, "vocab_size") * _number(text, "hidden_size")
    patches = _number(vision, "num_channels") * _number(vision, "patch_size") ** 2 * _number(vision, "hidden_size")
    least = words + patches + _positions(text) + tower_positions + _least_values(text) + _least_values(vision)
    if least > num_values:
        raise CheckpointError(
            f"the weights at {where!r} do not fill the model: by its config it has at least {least} numbers "
            f"({_sizes('LLM', text)}; {_sizes('tower', vision)}), and its files hold {num_values}"
        )


def _check_feature_layers(where: str, config: Any) -> None:
    asked = getattr(config, "vision_feature_layer", None)
    layers = _number(getattr(config, "vision_config", None), "num_hidden_layers")
    for layer in asked if isinstance(asked, list | tuple) else [asked]:
        if type(layer) is int and layers and not -layers - 1 <= layer <= layers:
            raise CheckpointError(
                f"the config at {where!r} reads images from layer {layer} of the tower (vision_feature_layer), which "
                f"has {layers}"
            )


def _stored(entry: Any) -> StoredTensor:
    shape = tuple(entry["shape"])
    if not isinstance(entry["dtype"], str) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an entry of the header names no type and shape")
    return StoredTensor(entry["dtype"], shape)


def _least_values(config: Any) -> int:
    """Return fewer numbers than any such stack of layers has: a matrix of each MLP, and one of each attention."""
    width, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    head_width = _number(config, "head_dim") or (width // heads if heads else 0)
    return _number(config, "num_hidden_layers") * width * (_number(config, "intermediate_size") + heads * head_width)


def _positions(text: Any) -> int:
    """Return the numbers of learned positions of an LLM without rotary ones."""
    if any(getattr(text, name, None) for name in ("rope_parameters", "rope_scaling", "rope_theta")):
        return 0
    return _number(text, "max_position_embeddings") * _number(text, "hidden_size")


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if type(value) is int and value > 0 else 0


def _sizes(what: str, config: Any) -> str:
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "image_size")
    return f"{what}: {', '.join(f'{name} {_number(config, name)}' for name in names if _number(config, name))}"


def _again(path: Path) -> str:
    """Say how to replace a file; the hub's cache takes one that is there for whole, whatever is in it."""
    if path.is_symlink():
        return f"Delete {path.resolve()}, to which it links, and fetch it again"
    return "Delete it, and fetch it again"
