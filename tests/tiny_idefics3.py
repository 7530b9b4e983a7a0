"""Tiny random Idefics3 and SmolVLM in stock format, and their prompts by hand: tiles of 8 x 8 patches, 4 x 4 tokens.

By hand, since the processors need torchvision (SmolVLM's, and Idefics3's of older transformers) and num2words.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save_tiny_adapter, tiny_tokenizer

from adallava.selection.selector_contract import TowerShape

SIZES = [(90, 60), (40, 40), (30, 90)]
GRIDS = [((8, 12), (4, 4)), ((12, 12), (4, 4)), ((12, 4), (4, 4))]
"""By hand: the longer side becomes 168 pixels, the other is filled up to tiles of 56; and the whole."""

LACKS = (
    *("budget-token", "downsample", "cls-attention", "visionzip"),
    *("prumerge", "prumerge-k", "prumerge-plus", "prumerge-plus-k"),
)
"""Methods that read a class token, which SigLIP has not, or send something else through the tower."""

SHAPE = TowerShape(num_vision_tokens=16, vision_width=4 * 32, llm_width=48, grid=(4, 4))

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]
TILE_PX = 56
ROWS, COLUMNS = 3, 3


def tiny_idefics3_tokenizer() -> Any:
    """Bytes, and a tag for each place of a tile, as the published ones have."""
    tags = {
        f"row_{row}_col_{column}_token": f"<row_{row}_col_{column}>"
        for row in range(1, ROWS + 1)
        for column in range(1, COLUMNS + 1)
    }
    return tiny_tokenizer(
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
        **tags,
    )


def tiny_idefics3_base(
    kind: str = "Idefics3",
    *,
    attn_implementation: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    num_hidden_layers: int = 4,
    num_key_value_heads: int = 2,
) -> Any:
    """Return a random model of "Idefics3" or "SmolVLM", in eval mode; weights as in `tiny_base`."""
    import transformers

    tokenizer = tiny_idefics3_tokenizer()
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": TILE_PX,
        "patch_size": 7,
    }
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, text_config=text, image_token_id=tokenizer.image_token_id, scale_factor=2
    )
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(dtype).eval()


def tiny_idefics3_processor() -> Any:
    """Return Idefics3's own, tiles of 56 x 56 pixels; older transformers has none without torchvision."""
    import transformers

    cls = getattr(transformers, "Idefics3ImageProcessorPil", None) or transformers.Idefics3ImageProcessor
    try:
        images = cls(size={"longest_edge": 3 * TILE_PX}, max_image_size={"longest_edge": TILE_PX})
    except ImportError as error:
        pytest.skip(" ".join(str(error).split())[:80])
    return transformers.Idefics3Processor(images, tiny_idefics3_tokenizer(), image_seq_len=16)


def tiny_idefics3(folder: Path, kind: str = "Idefics3") -> Path:
    """Save a random model with its processor, and a random adapter for `question`, to `folder`; return it."""
    processor = tiny_idefics3_processor()
    tiny_idefics3_base(kind).save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", SHAPE)
    return folder


def expanded(cut: tuple[int, int]) -> str:
    """Return what stands in a prompt for a picture of (rows, columns) of tiles; (0, 0) for one that is not cut."""
    rows, columns = cut
    run, mark = "<image>" * 16, "<fake_token_around_image>"
    tiles = "".join(
        "".join(f"{mark}<row_{row}_col_{column}>{run}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return tiles + ("\n" if rows else "") + f"{mark}<global-img>{run}{mark}"


def prompts_with_tiles(
    tokenizer: Any, cuts: Sequence[Sequence[tuple[int, int]]] = (((2, 3),), ((0, 0), (2, 1)), ((1, 2),))
) -> dict[str, Any]:
    """Return a batch of prompts with pictures cut so, between text, as their processors make them; random pixels."""
    texts = [
        "a " + "".join(f"{expanded(cut)} b " for cut in pictures) + question
        for question, pictures in zip(QUESTIONS, cuts, strict=False)
    ]
    counts = [sum(rows * columns + 1 for rows, columns in pictures) for pictures in cuts]
    pixels = torch.randn(len(cuts), max(counts), 3, TILE_PX, TILE_PX, generator=torch.Generator().manual_seed(1))
    there = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    mask = there[..., None, None].expand(*there.shape, TILE_PX, TILE_PX).long()
    return dict(tokenizer(texts, return_tensors="pt", padding=True)) | {
        "pixel_values": pixels * mask[:, :, None],
        "pixel_attention_mask": mask,
    }
