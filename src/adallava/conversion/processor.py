"""The processor of a converted checkpoint: the LLM's tokenizer with two more tokens, LLaVA's pictures and wording."""

import json
from pathlib import Path
from typing import Any

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


def read_tokenizer(folder: Path) -> Any:
    """Return a Llama tokenizer with `<image>` and `<pad>` behind its words, padding on the left.

    Raises:
        CheckpointError: if its files are missing or cannot be read.
    """
    from transformers import AddedToken, LlamaTokenizerFast

    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise CheckpointError(
            f"folder {str(folder)!r} has neither tokenizer.json nor tokenizer.model: name a folder that has "
            "(--tokenizer)"
        )
    try:
        words = LlamaTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise CheckpointError(
            f"cannot read the tokenizer in {str(folder)!r}: {str(error).strip().splitlines()[0]}. A tokenizer.model "
            "needs the package sentencepiece; or name a folder with a tokenizer.json (--tokenizer)"
        ) from error
    words.add_tokens(AddedToken("<image>", special=True, normalized=False), special_tokens=True)
    words.add_special_tokens({"pad_token": AddedToken("<pad>", special=True, normalized=False)})
    words.padding_side = "left"
    return words


def save_processor(
    output: Path, words: Any, config: dict[str, Any], vision: dict[str, Any], pictures: dict[str, Any]
) -> None:
    """Write tokenizer, picture settings, chat template and generation config.

    Args:
        output: the folder.
        words: the tokenizer.
        config: of the original checkpoint; with `image_aspect_ratio` "pad" pictures are padded to squares in the mean
            colour first, as its evaluation does.
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
