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

from adallava.conversion.names import EMBEDDINGS, VISION_PREFIX, clip_name, is_buffer, stock_name
from adallava.conversion.processor import read_tokenizer, save_processor
from adallava.conversion.scheduler import SCHEDULER_PREFIX, method_of, write_scheduler
from adallava.conversion.shards import read_config, read_tensors, weight_files
from adallava.conversion.supported import check_supported
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import load_family

_PAD_ROWS_TO = 64
"""As in the published checkpoints: 32000 words and two special tokens become 32064 rows."""

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
        vision_tower_from: the folder whose weights the vision tower has.
        scheduler: the adapter's folder with AdaLLaVA's scheduler, if there was one; its name is the scheduler's.
        method: that AdaLLaVA's LLM was tuned with; None for all vision tokens.
    """

    folder: Path
    num_weights: int
    vision_tower_from: Path
    scheduler: Path | None
    method: str | None


def convert_llava(source: Path, vision_tower: Path, output: Path, *, tokenizer: Path | None = None) -> Converted:
    """Convert a checkpoint.

    Args:
        source: in the layout of the original code, of LLaVA-1.5 or AdaLLaVA, with a Llama as LLM.
        vision_tower: the CLIP checkpoint that `mm_vision_tower` names. Its config and picture settings are always
            taken; its weights where the source has none of its own.
        output: a folder that is new or empty.
        tokenizer: a folder with the LLM's tokenizer; None = the source.

    Raises:
        CheckpointError: if files are missing, damaged or refused, or a weight is missing, unknown or of another shape.
        UnsupportedModeError: for another family, projector or way to put pictures in.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{str(output)!r} exists and is not an empty folder: give a new one")
    config, clip = read_config(source), read_config(vision_tower)
    check_supported(source, config)
    method = method_of(config)
    vision = clip.get("vision_config") if clip.get("model_type") == "clip" else clip
    if not isinstance(vision, dict) or "patch_size" not in vision:
        raise CheckpointError(f"folder {str(vision_tower)!r} is no CLIP checkpoint: its config has no vision_config")
    pictures = _picture_settings(vision_tower)
    words = read_tokenizer(source if tokenizer is None else tokenizer)
    _check_words(words, config, source if tokenizer is None else tokenizer)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: an error leaves no folder that looks like a model.
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        writer, scheduler = _copy_weights(partial, source, vision_tower, int(config["vocab_size"]), _num_rows(words))
        _write_json(partial / "config.json", _stock_config(config, vision, words, writer.dtype))
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
        vision_tower if writer.tower_added else source,
        None if adapter is None else output / adapter.relative_to(partial),
        method,
    )


def _copy_weights(
    folder: Path, source: Path, vision_tower: Path, num_words: int, num_rows: int
) -> "tuple[_Writer, dict[str, Tensor]]":
    """Write every weight under its published name, a file of the source at a time; return the scheduler's apart."""
    writer = _Writer(folder)
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
            part[new] = _with_rows(tensor, num_words, num_rows) if new in EMBEDDINGS else tensor.contiguous()
        writer.write(part)
    if not any(name.startswith(VISION_PREFIX) for name in writer.files):
        _write_tower(writer, vision_tower, writer.dtype)
    writer.finish()
    return writer, scheduler


class _Writer:
    """Writes shards as they come and the index at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Path] = []
        self._bytes = 0
        self.files: dict[str, str] = {}
        self.dtype = torch.float16
        self.tower_added = False

    def write(self, part: dict[str, Tensor]) -> None:
        if not part:
            return
        path = self._folder / f"model-{len(self._parts) + 1:05d}.safetensors"
        save_file(part, path, metadata={"format": "pt"})
        self._parts.append(path)
        self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in part.values())
        self.dtype = next(iter(part.values())).dtype
        self.files |= dict.fromkeys(part, path.name)

    def finish(self) -> None:
        names = {path.name: f"{path.stem}-of-{len(self._parts):05d}.safetensors" for path in self._parts}
        for path in self._parts:
            path.rename(path.with_name(names[path.name]))
        index = {"metadata": {"total_size": self._bytes}, "weight_map": {n: names[f] for n, f in self.files.items()}}
        _write_json(self._folder / "model.safetensors.index.json", index)


def _picture_settings(vision_tower: Path) -> dict[str, Any]:
    pictures = read_config(vision_tower, "preprocessor_config.json")
    missing = [name for name in ("image_mean", "image_std") if name not in pictures]
    if missing:
        raise CheckpointError(f"{vision_tower / 'preprocessor_config.json'} is damaged: it has no {missing[0]}")
    return pictures


def _check_whole(folder: Path, source: Path) -> None:
    """Load what was written, mapped and not copied: every weight that the config asks for is there, in its shape."""
    try:
        load_family(str(folder), dtype="auto", device=torch.device("cpu"), attn_implementation="eager")
    except (CheckpointError, UnsupportedModeError) as error:
        reason = str(error).replace(f"at {str(folder)!r} ", "").replace(f" at {str(folder)!r}", "")
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


def _with_rows(tensor: Tensor, num_words: int, num_rows: int) -> Tensor:
    """Return the matrix with rows for the new tokens: the mean of the others.

    In the output layer a mean row's logit is the mean of all logits, so that no new token is ever the likeliest.
    """
    words = tensor[:num_words]
    mean = words.float().mean(dim=0, keepdim=True).to(tensor.dtype)
    return torch.cat([words, mean.expand(num_rows - num_words, -1)])


def _write_tower(writer: _Writer, folder: Path, dtype: torch.dtype) -> None:
    part = {}
    for path in weight_files(folder):
        for name, tensor in read_tensors(path):
            new = clip_name(name)
            if new is not None and not is_buffer(name):
                part[new] = tensor.to(dtype).contiguous()
    if not part:
        raise CheckpointError(f"folder {str(folder)!r} is no CLIP checkpoint: it has no vision_model weights")
    writer.write(part)
    writer.tower_added = True


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
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": name,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
