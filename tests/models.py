"""Tiny random checkpoints in stock format, made on the spot: no download, and nothing that is learned."""

import itertools
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_family import tiny_family

from adallava.adapters import save_adapter, weights_sha256
from adallava.errors import AdallavaError
from adallava.registry import load_selector_class, scheduler_names, selector_names, selects_inside_llm
from adallava.scheduling import build_scheduler
from adallava.selection import build_selector
from adallava.selection.selector_contract import TowerShape

WORDS = [
    "USER",
    "ASSISTANT",
    ":",
    "what",
    "is",
    "the",
    "colour",
    "red",
    "blue",
    "?",
    "yes",
    "no",
    "a",
    "1",
    "2",
]

TINY_SHAPE = TowerShape(num_vision_tokens=16, vision_width=32, llm_width=48, grid=(4, 4))

LEARNED = ("budget-token", "question")


def _selects_inside_llm(name: str) -> bool:
    """A method of another package that cannot be loaded fails its own tests, not the collection of all."""
    try:
        return selects_inside_llm(load_selector_class(name))
    except AdallavaError:
        return False


INSIDE_LLM = tuple(name for name in selector_names() if _selects_inside_llm(name))
"""Methods that drop tokens between the LLM's layers."""

BEFORE_LLM = tuple(name for name in selector_names() if name not in INSIDE_LLM)

MECHANISMS = (
    "random",
    "pool",
    "none",
    "downsample",
    "prumerge",
    "budget-token",
    "question",
    "mmtok",
    "fastv",
    "pyramiddrop",
)
"""A method for each way in which tokens reach the LLM: gathered, merged, none, a smaller picture, an own K, the
budget's token, the question's, words, one drop in the LLM, several. The choice itself is crossed over every method."""

IN_A_FAMILY = ("uniform", "pool", "none", "downsample", "divprune", "visionzip", "mmtok")
"""Of methods that a further family runs: gathered, merged, none, a smaller picture, one after the other, by the tower's
attention, by words. `test_attention_received.py` holds what any method reads of its tower."""

DROPS = ("fastv", "pyramiddrop")
"""One drop inside the LLM, and several: what masks and caches do about them does not depend on what was chosen."""


def rest_is_long(names: Iterable[str], quick: Container[str]) -> list[Any]:
    """Return a parameter for each name; those that the quick ones stand for run in `make test-long`."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.long]) for name in names]


def each_once(*choices: Sequence[Any]) -> list[Any]:
    """Return a parameter for each combination; those in which each value stands once or more, in turn, are not long."""
    quick = [tuple(turn % len(values) for values in choices) for turn in range(max(map(len, choices)))]
    return [
        pytest.param(
            *(values[place] for values, place in zip(choices, places, strict=True)),
            marks=[] if places in quick else [pytest.mark.long],
        )
        for places in itertools.product(*(range(len(values)) for values in choices))
    ]


METHOD_OPTIONS: dict[str, dict[str, Any]] = {"cdpruner": {"relevance": "llm-embeddings"}}
"""Of methods that cannot run by their defaults on a model without a text tower."""


def tiny_tokenizer(**special: str) -> Any:
    """Byte-level BPE without merges: every byte is a token. By default `<image>` is one, too."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=special or {"image_token": "<image>"},
        padding_side="left",
    )


def tiny_processor() -> Any:
    """28 x 28 pixels in patches of 7: N = 16."""
    from transformers import LlavaProcessor

    return LlavaProcessor(
        image_processor=_image_processor(),
        tokenizer=tiny_tokenizer(),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _image_processor() -> Any:
    import transformers

    # Without torchvision the plain name falls back to the PIL class; by its own name it is the same everywhere.
    cls = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return cls(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def tiny_base(
    *,
    attn_implementation: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    vision_feature_layer: int | list[int] = -2,
    weight_std: float = 0.2,
    seed: int = 0,
    llm: str = "llama",
    **llm_options: Any,
) -> Any:
    """Return a random Llava: two layers in the tower and four in the LLM, grouped-query attention, in eval mode.

    The weights are wide enough for logits to differ by much more than rounding from token to token.
    """
    from transformers import AutoConfig, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        projection_dim=16,
    )
    text = AutoConfig.for_model(
        llm,
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=llm_options.pop("num_hidden_layers", 4),
        num_attention_heads=4,
        num_key_value_heads=llm_options.pop("num_key_value_heads", 2),
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **llm_options,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy="default",
    )
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=weight_std)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(dtype).eval()


def tiny_llava(folder: Path, *, adapters: bool = True, **base_options: Any) -> Path:
    """Save a random Llava with processor, and random adapters for the learned methods, to `folder`; return it."""
    tiny_base(**base_options).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    if adapters:
        for method in LEARNED:
            save_tiny_adapter(folder, folder / "adapters" / method, method)
    return folder


def save_tiny_adapter(base: Path, folder: Path, method: str, shape: TowerShape = TINY_SHAPE) -> None:
    """Save random weights of a learned method as an adapter of `base`, their scores spread well apart."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        selector: Any = build_selector(method, shape)
        for parameter in selector.parameters():
            torch.nn.init.normal_(parameter, std=0.12)
    save_adapter(
        folder,
        selector,
        shape=shape,
        base_model_name_or_path=str(base),
        base_weights_sha256=weights_sha256(base),
    )


def tiny_image(seed: int = 0, size: tuple[int, int] = (28, 28)) -> Image.Image:
    """Return a picture of random colours, RGB, of (width, height)."""
    shape = (size[1], size[0], 3)
    noise = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def tiny_inputs(processor: Any, questions: list[str], *, images_each: int = 1) -> dict[str, Any]:
    """Return a batch of prompts with `images_each` pictures each, of its family's sizes in turn, padded on the left."""
    from adallava.model import build_prompt

    sizes = tiny_family(processor).sizes
    numbers = [range(row * images_each, (row + 1) * images_each) for row in range(len(questions))]
    pictures = [[tiny_image(number, sizes[number % len(sizes)]) for number in own] for own in numbers]
    batch = processor(
        images=pictures if images_each else None,
        text=[build_prompt(processor, question, images_each) for question in questions],
        return_tensors="pt",
        padding=True,
    )
    return dict(batch)


def tiny_grids(model: Any, pictures: Sequence[int]) -> list[tuple[int, int]]:
    """Return, by hand, (rows, columns) of the images that a model makes of the pictures of one of `tiny_inputs`."""
    family = tiny_family(model.processor)
    if len(pictures) > 1 and family.together is not None:
        return [*family.together] * len(pictures)
    return [grid for picture in pictures for grid in family.grids[picture % len(family.grids)]]


def tiny_tokens(model: Any, pictures: Sequence[int]) -> list[int]:
    """Return N of each of those images."""
    return [rows * columns for rows, columns in tiny_grids(model, pictures)]


def lacking(model: Any) -> tuple[str, ...]:
    """Return the methods that a model's family refuses."""
    return tiny_family(model.processor).lacks


def base_like(model: Any, **options: Any) -> Any:
    """Return a random base of the model's family, see `tiny_base`."""
    return tiny_family(model.processor).base(**options)


def with_every_option(full: Any, method: str) -> Any:
    """Return the model with a method, under options with which a model without a text tower can run it."""
    if method in lacking(full):
        pytest.skip("the family refuses it, as its own tests hold")
    return full.with_method(method, **METHOD_OPTIONS.get(method, {}))


def sample_of(inputs: dict[str, Any], index: int, *, images_each: int = 1) -> dict[str, Any]:
    """Return one sample of a batch, alone and without padding."""
    real = inputs["attention_mask"][index].bool()
    images = slice(index * images_each, (index + 1) * images_each)
    of_tokens = (
        name for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids") if name in inputs
    )
    alone = {name: inputs[name][index : index + 1, real] for name in of_tokens}
    beside = {name: inputs[name][images] for name in ("image_sizes", "image_grid_thw") if name in inputs}
    if "batch_num_images" in inputs:
        beside["batch_num_images"] = inputs["batch_num_images"][index : index + 1]
    if "pixel_attention_mask" in inputs:  # Of which each sample has a row.
        row = slice(index, index + 1)
        beside = {name: inputs[name][row] for name in ("pixel_values", "pixel_attention_mask")}
    elif "pixel_values" in inputs:
        beside["pixel_values"] = torch.cat(_pixels_by_picture(inputs, images_each)[images])
    return alone | beside


def in_other_order(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of one picture a prompt backward, padding and all."""
    backward = {name: tensor.flip(0) for name, tensor in inputs.items()}
    return backward | {"pixel_values": torch.cat(_pixels_by_picture(inputs, 1)[::-1])}


def _pixels_by_picture(inputs: dict[str, Any], images_each: int) -> Sequence[torch.Tensor]:
    """Return the rows of each picture's pixels: of each of its patches, of each of its tiles, or one."""
    from tiny_internvl import TILES

    pixels, count = inputs["pixel_values"], len(inputs["input_ids"]) * images_each
    if "image_grid_thw" in inputs:
        return pixels.split(inputs["image_grid_thw"].prod(dim=1).tolist())
    if len(pixels) != count:
        return pixels.split([TILES[picture % len(TILES)] for picture in range(count)])
    return pixels.split(1)


SCHEDULERS = scheduler_names()
WHOLE_LAYERS = ("first", "fixed", "spaced")
"""Run as `random` does, once they have chosen: `make test-long` alone crosses them with all that follows a choice."""
SCHEDULER_OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"plans": "4/3+5"}, "adallava-heads": {"rank": 2}}
"""For an LLM of six layers and its default prefix of three."""


def six_layers(full: Any, **base_options: Any) -> Any:
    """Return a model of the same family whose LLM has six layers, random like `tiny_base`."""
    from adallava import AdaLlava

    return AdaLlava(base_like(full, num_hidden_layers=6, **base_options), full.processor)


def six_layers_for(full: Any, scheduler: str, **base_options: Any) -> Any:
    """Return `six_layers`, with a key-value head for each query head where the scheduler wants it."""
    heads = {"num_key_value_heads": 4} if scheduler == "adallava-heads" else {}
    return six_layers(full, **heads, **base_options)


def scheduled(model: Any, name: str) -> Any:
    """Return the model with a scheduler; a learned one with random weights whose logits lie well apart."""
    shape = model.family.decoder().shape
    with torch.random.fork_rng():
        torch.manual_seed(3)
        scheduler: Any = build_scheduler(name, shape, **SCHEDULER_OPTIONS.get(name, {}))
        if isinstance(scheduler, torch.nn.Module):
            for parameter in scheduler.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return model.with_scheduler(scheduler)
