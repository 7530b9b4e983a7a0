"""The processor of a converted checkpoint: the LLM's tokenizer with two more tokens, LLaVA's images and wording."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adallava.checkpoints.files import check_tokenizer
from adallava.checkpoints.own_code import check_no_code
from adallava.errors import CheckpointError

CHAT_TEMPLATE = (
    "{{ 'A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user\\'s questions. ' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + '</s>' }}"
    "{% endfor %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The conversation `vicuna_v1` that LLaVA-1.5 was trained and measured with; llava-hf's has no system sentence."""


_READS_MODEL = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
"""Packages that transformers reads a tokenizer.model with, by what is imported of them."""


def read_tokenizer(folder: Path) -> Any:
    """Return a Llama tokenizer with `<image>` and `<pad>` after its words, padding on the left.

    Its rules are those of llava-hf's published tokenizer.json, whatever version of transformers wrote the files: `<s>`
    first, and `▁` before each text between special tokens, so after `<image>` too. The original code comes to the same
    ids: it takes the text before and after an image apart, and each begins with `▁`.

    Raises:
        CheckpointError: if its files are missing or cannot be read.
    """
    from transformers import AddedToken, LlamaTokenizerFast, PreTrainedTokenizerFast

    _check_files(folder)
    check_no_code(folder)
    check_tokenizer(folder)
    try:
        read = LlamaTokenizerFast.from_pretrained(
            folder, local_files_only=True, add_bos_token=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged file makes tokenizers, sentencepiece or protobuf raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"cannot read the tokenizer in {str(folder)!r}: {lines[0]}. Name a folder with a tokenizer.json of the "
            "same words (--tokenizer)"
        ) from error
    tokens = {name: getattr(read, name) for name in ("bos_token", "eos_token", "unk_token")}
    backend = _by_rules(read.backend_tokenizer)
    words = PreTrainedTokenizerFast(tokenizer_object=backend, add_bos_token=True, padding_side="left", **tokens)
    words.add_tokens(AddedToken("<image>", special=True, normalized=False), special_tokens=True)
    words.add_special_tokens({"pad_token": AddedToken("<pad>", special=True, normalized=False)})
    return words


def _check_files(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        return
    if not (folder / "tokenizer.model").is_file():
        raise CheckpointError(
            f"folder {str(folder)!r} has neither tokenizer.json nor tokenizer.model: name a folder that has "
            "(--tokenizer)"
        )
    missing = [package for package, module in _READS_MODEL.items() if not _is_installed(module)]
    if missing:
        raise CheckpointError(
            f"folder {str(folder)!r} has only a tokenizer.model, which needs {' and '.join(missing)}: pip install "
            "'adallava[tokenizer-model]', or name a folder with the tokenizer.json of the same words (--tokenizer)"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Its parent is missing.
        return False


def _by_rules(backend: Any) -> Any:
    """Return the words of a tokenizer under the rules of llava-hf's published one."""
    from tokenizers import decoders, normalizers

    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def save_processor(
    output: Path, words: Any, config: dict[str, Any], vision: dict[str, Any], pictures: dict[str, Any]
) -> None:
    """Write tokenizer, image settings, chat template and generation config.

    Args:
        output: the folder.
        words: the tokenizer.
        config: of the original checkpoint; with `image_aspect_ratio` "pad" images are padded to squares in the mean
            color first, as its evaluation does.
        vision: the tower's config.
        pictures: the CLIP checkpoint's preprocessor_config.json.
    """
    words.save_pretrained(output)
    side = int(vision["image_size"])
    settings = {
        "image_processor_type": "LlavaImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_pad": config.get("image_aspect_ratio") == "pad",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": pictures.get("resample", 3),
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": pictures["image_mean"],
        "image_std": pictures["image_std"],
        "do_convert_rgb": True,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": int(vision["patch_size"]),
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    for name, value in (
        ("preprocessor_config.json", settings),
        ("processor_config.json", processor),
        ("generation_config.json", ids),
    ):
        (output / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (output / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
