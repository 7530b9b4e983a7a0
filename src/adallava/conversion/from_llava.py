"""Writes a checkpoint of the original LLaVA code, or of AdaLLaVA's, as a stock Hugging Face folder.

liuhaotian/llava-v1.5-7b ┐                          ┌ config.json, model-*.safetensors, processor, chat template
openai/clip-vit-large-…  ┴▶ shard by shard, renamed ┤
zhuoyanxu/ada-llava-*       (never all in memory)   └ adapters/adallava-layers or -heads, if it had a scheduler
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from adallava.conversion.clip import check_feature_layer, read_clip_config, read_picture_settings
from adallava.conversion.part_types import LLM, TOWER, source_types, tower_type
from adallava.conversion.processor import read_tokenizer, save_processor
from adallava.conversion.scheduler_weights import SCHEDULER_PREFIX, method_of, write_scheduler
from adallava.conversion.shards import read_config, read_tensors, weight_files
from adallava.conversion.supported import check_supported
from adallava.conversion.weight_names import EMBEDDINGS, clip_name, is_buffer, stock_name
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import load_family
from adallava.processors.stock_processor import AdaLlavaProcessor, build_prompt
from adallava.records.durable import make_folder

_PAD_ROWS_TO = 64
"""As in the published checkpoints: 32000 words and two special tokens become 32064 rows."""

_FEATURE_LAYER = -2
"""Of a config that names none."""

_TEXT_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "initializer_range",
    "bos_token_id", "eos_token_id", "attention_bias",
)  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: a stock checkpoint.
        num_weights: tensors of the model.
        dtype: of the model: the LLM's and the projector's.
        vision_tower_from: the folder whose weights the vision tower has.
        vision_tower_dtype: that these had there; they are of `dtype` now.
        scheduler: the adapter's folder with AdaLLaVA's scheduler, if there was one; its name is the scheduler's.
        method: that AdaLLaVA's LLM was tuned with; None for all vision tokens.
    """

    folder: Path
    num_weights: int
    dtype: torch.dtype
    vision_tower_from: Path
    vision_tower_dtype: torch.dtype
    scheduler: Path | None
    method: str | None


def convert_llava(source: Path, vision_tower: Path, output: Path, *, tokenizer: Path | None = None) -> Converted:
    """Convert a checkpoint.

    Args:
        source: in the layout of the original code, of LLaVA-1.5 or AdaLLaVA, with a Llama as LLM.
        vision_tower: the CLIP checkpoint that `mm_vision_tower` names. Its config and image settings are always
            taken; its weights where the source has none of its own.
        output: a folder that is new or empty.
        tokenizer: a folder with the LLM's tokenizer; None = the source.

    Raises:
        CheckpointError: if files are missing, damaged or refused, or a weight is missing, unknown or of another shape.
        UnsupportedModeError: for another family, projector or way to put images in.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{str(output)!r} exists and is not an empty folder: give a new one")
    config = read_config(source)
    check_supported(source, config)
    method = method_of(config)
    vision, pictures = read_clip_config(vision_tower), read_picture_settings(vision_tower)
    check_feature_layer(config.get("mm_vision_select_layer", _FEATURE_LAYER), vision)
    words = read_tokenizer(source if tokenizer is None else tokenizer)
    _check_words(words, config, source if tokenizer is None else tokenizer)
    types = source_types(source)
    tower_dtype = types[TOWER] if TOWER in types else tower_type(vision_tower)
    make_folder(output.parent)
    # Renamed when it is whole: an error leaves no folder that looks like a model.
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        writer = _Writer(partial, types[LLM])
        scheduler = _copy_weights(writer, source, int(config["vocab_size"]), _num_rows(words))
        if TOWER not in types:
            _copy_tower(writer, vision_tower)
        writer.finish()
        _write_json(partial / "config.json", _stock_config(config, vision, words, types[LLM]))
        save_processor(partial, words, config, vision, pictures)
        _check_whole(partial, source)
        adapter = write_scheduler(partial, output.name, scheduler, config)
        if output.exists():
            output.rmdir()
        partial.chmod(0o755)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Converted(
        output,
        len(writer.files),
        types[LLM],
        source if TOWER in types else vision_tower,
        tower_dtype,
        None if adapter is None else output / adapter.relative_to(partial),
        method,
    )


def _copy_weights(writer: "_Writer", source: Path, num_words: int, num_rows: int) -> dict[str, Tensor]:
    """Write every weight under its published name, a file of the source at a time; return the scheduler's apart."""
    scheduler: dict[str, Tensor] = {}
    for path in weight_files(source):
        part: dict[str, Tensor] = {}
        for name, tensor in read_tensors(path):
            if is_buffer(name):
                continue
            if name.startswith(SCHEDULER_PREFIX):
                scheduler[name] = tensor.clone()
                continue
            new = stock_name(name)
            if new is None:
                raise CheckpointError(f"{path} holds {name!r}, which neither LLaVA-1.5 nor AdaLLaVA has")
            if new in part or new in writer.files:
                raise CheckpointError(f"{path} holds {name!r} a second time")
            part[new] = _with_rows(name, tensor, num_words, num_rows) if new in EMBEDDINGS else tensor
        writer.write(part)
    return scheduler


class _Writer:
    """Writes shards as they come, in one type, and the index at the end."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._folder = folder
        self._dtype = dtype
        self._parts: list[Path] = []
        self._bytes = 0
        self.files: dict[str, str] = {}

    def write(self, part: dict[str, Tensor]) -> None:
        """Write one more shard, if there is anything for it."""
        if not part:
            return
        path = self._folder / f"model-{len(self._parts) + 1:05d}.safetensors"
        part = _apart({name: tensor.to(self._dtype).contiguous() for name, tensor in part.items()})
        save_file(part, path, metadata={"format": "pt"})
        self._parts.append(path)
        self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in part.values())
        self.files |= dict.fromkeys(part, path.name)

    def finish(self) -> None:
        """Name the shards by how many there are, and write their index."""
        names = {path.name: f"{path.stem}-of-{len(self._parts):05d}.safetensors" for path in self._parts}
        for path in self._parts:
            path.rename(path.with_name(names[path.name]))
        index = {"metadata": {"total_size": self._bytes}, "weight_map": {n: names[f] for n, f in self.files.items()}}
        _write_json(self._folder / "model.safetensors.index.json", index)


def _apart(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy those that lie in another's memory, as tied weights do in a pickle: safetensors takes no such pair."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in part.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _check_whole(folder: Path, source: Path) -> None:
    """Load what was written, mapped and not copied: every weight that the config asks for is there, in its shape.

    And the processor, without which it cannot answer.
    """
    try:
        load_family(str(folder), dtype="auto", device=torch.device("cpu"), attn_implementation="eager")
        build_prompt(AdaLlavaProcessor.from_pretrained(str(folder)), "?")
    except (CheckpointError, UnsupportedModeError) as error:
        reason = str(error)
        for at in (f"at {str(folder)!r} ", f" at {str(folder)!r}", f" of {str(folder)!r}", f"{folder}/"):
            reason = reason.replace(at, "")
        raise type(error)(f"{str(source)!r} and its vision tower make no whole model: {reason}") from error


def _check_words(words: Any, config: dict[str, Any], folder: Path) -> None:
    num_words = words.convert_tokens_to_ids("<image>")
    if num_words != config["vocab_size"]:
        raise CheckpointError(
            f"the tokenizer in {str(folder)!r} has {num_words} words, the model's vocab_size is "
            f"{config['vocab_size']}: name a folder with its own tokenizer (--tokenizer)"
        )


def _num_rows(words: Any) -> int:
    return -(-len(words) // _PAD_ROWS_TO) * _PAD_ROWS_TO


def _with_rows(name: str, tensor: Tensor, num_words: int, num_rows: int) -> Tensor:
    """Return the matrix with rows for the new tokens: the mean of the others.

    In the output layer a mean row's logit is the mean of all logits, so that no new token is ever the likeliest.

    Raises:
        CheckpointError: if it is not a matrix with a row for each word.
    """
    if tensor.ndim != 2 or len(tensor) < num_words:
        raise CheckpointError(
            f"{name!r} has the shape {tuple(tensor.shape)}, not one row for each of the {num_words} words"
        )
    words = tensor[:num_words]
    mean = words.float().mean(dim=0, keepdim=True).to(tensor.dtype)
    return torch.cat([words, mean.expand(num_rows - num_words, -1)])


def _copy_tower(writer: _Writer, folder: Path) -> None:
    for path in weight_files(folder):
        tensors = ((clip_name(name), tensor) for name, tensor in read_tensors(path) if not is_buffer(name))
        writer.write({name: tensor for name, tensor in tensors if name is not None})


def _stock_config(config: dict[str, Any], vision: dict[str, Any], words: Any, dtype: torch.dtype) -> dict[str, Any]:
    text = {field: config[field] for field in _TEXT_FIELDS if config.get(field) is not None}
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": words.convert_tokens_to_ids("<image>"),
        "pad_token_id": words.pad_token_id,
        "projector_hidden_act": "gelu",
        "text_config": {
            **text,
            "model_type": "llama",
            "vocab_size": _num_rows(words),
            "pad_token_id": words.pad_token_id,
        },
        "vision_config": {**vision, "model_type": "clip_vision_model"},
        "vision_feature_layer": config.get("mm_vision_select_layer", _FEATURE_LAYER),
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": name,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
