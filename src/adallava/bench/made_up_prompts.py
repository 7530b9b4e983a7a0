"""Prompts of one image each, of random words around noise or a file: the same ones at every call."""

from pathlib import Path
from typing import Any

import torch

from adallava.errors import InputError
from adallava.families.capabilities.of_pictures import made_up_ids, take_pictures
from adallava.model import AdaLlava
from adallava.tasks.images import open_rgb

BEFORE_PICTURE_TOKENS = 5
"""Of a prompt's text; a method inside the LLM needs some after the image, too."""

_PICTURE_PX = 560
"""Of a side, where a tower takes any."""

_MOST_WORDS = 1000
"""Ids that words are drawn from."""


def make_prompts(model: AdaLlava, batch_size: int, text_tokens: int, image: Path | None = None) -> dict[str, Any]:
    """Return a batch as `generate` takes it, on the model's device.

    Args:
        model: for its N, its processor's pictures, its type and its device.
        batch_size: B prompts of one length.
        text_tokens: of each prompt, `BEFORE_PICTURE_TOKENS` of them before the picture, tags of tiles left out.
        image: of every prompt, as the model's processor sizes it; None for noise.

    Raises:
        InputError: for too little text to have some on both sides of the picture, an image that cannot be read, or one
            where there is no processor to size it.
    """
    if text_tokens <= BEFORE_PICTURE_TOKENS:
        raise InputError(
            f"--text-tokens is {text_tokens}: give at least {BEFORE_PICTURE_TOKENS + 1}, {BEFORE_PICTURE_TOKENS} of "
            "which come before the image"
        )
    generator = torch.Generator().manual_seed(0)
    words = _words(model)
    text = words[torch.randint(len(words), (batch_size, text_tokens), generator=generator)]
    pictures = _pictures(model, batch_size, generator, image)
    given, _ = take_pictures(model.family, pictures)
    assert given is not None
    tokens = torch.tensor(made_up_ids(model.family, given, batch_size)).expand(batch_size, -1)
    ids = torch.cat([text[:, :BEFORE_PICTURE_TOKENS], tokens, text[:, BEFORE_PICTURE_TOKENS:]], dim=1)
    ids = ids.to(model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pictures}


def _pictures(model: AdaLlava, batch_size: int, generator: torch.Generator, image: Path | None) -> dict[str, Any]:
    """Return what the processor makes of a file or of noise, or noise where there is no processor."""
    processor = getattr(model.processor, "image_processor", None)
    width, height = getattr(model.processor, "picture_px", None) or (_side(model),) * 2
    if processor is None and image is not None:
        raise InputError(
            f"--image {image}: these shapes cut every image to {width} x {height} pixels, which noise stands in for; "
            "leave it out, or give shapes whose images keep their size"
        )
    if processor is None:
        tiles = getattr(model.processor, "tiles", ())
        pixels = torch.randn(batch_size, *tiles, 3, height, width, generator=generator)
        mask = {"pixel_attention_mask": torch.ones(batch_size, *tiles, height, width, dtype=torch.int64)}
        beside = {name: mask[name] for name in model.family.picture_inputs if name in mask}
        return {"pixel_values": pixels.to(model.device, model.dtype), **beside}
    shown: Any = None if image is None else open_rgb(image)
    if shown is None:
        shown = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
    made = processor(images=[[shown]] * batch_size, return_tensors="pt")
    given = {name: made[name] for name in model.family.picture_inputs if name in made}
    given["pixel_values"] = given["pixel_values"].to(model.device, model.dtype)
    return given


def _side(model: AdaLlava) -> int:
    """Return the pixels of an image's side: the tower's own, or of one that takes any size, a photograph's."""
    side = getattr(model.base.config.vision_config, "image_size", None) or _PICTURE_PX
    return int(side if isinstance(side, int) else side[0])


def _words(model: AdaLlava) -> torch.Tensor:
    """Return ids that are not special ones."""
    config = model.base.config
    special = {model.family.image_token_id, 0, 1, 2}
    tokenizer = getattr(model.processor, "tokenizer", None)
    special |= set() if tokenizer is None else set(tokenizer.all_special_ids)
    size = min(int(config.get_text_config().vocab_size), _MOST_WORDS)
    return torch.tensor([number for number in range(size) if number not in special])
