"""What the stock model does with some of its vision tokens taken out by hand, one sample at a time.

Written on its own, from transformers' public functions, as what the package's results are compared with.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def _seen(base: Any, sample: dict[str, Any]) -> Any:
    beside = [sample[name] for name in ("image_sizes", "image_grid_thw", "pixel_attention_mask") if name in sample]
    return base.model.get_image_features(sample["pixel_values"], *beside)


def stock_features(base: Any, sample: dict[str, Any]) -> Tensor:
    """Return the stock model's vision tokens behind the projector, [N over all images, D]."""
    return torch.cat(list(_seen(base, sample).pooler_output))


def stock_levels(base: Any, sample: dict[str, Any]) -> list[Tensor]:
    """Return what the stock model adds to its vision tokens' states behind its first layers, [N over all, D] each."""
    levels = getattr(_seen(base, sample), "deepstack_features", None) or []
    return [level if isinstance(level, Tensor) else torch.cat(level) for level in levels]


def stock_positions(base: Any, sample: dict[str, Any]) -> Tensor:
    """Return the positions of an unpadded prompt, [1, L]; of a model with rows of them [3, 1, L]."""
    ids = sample["input_ids"]
    if not hasattr(base.model, "get_rope_index"):
        return torch.arange(ids.shape[1])[None]
    types = (ids == base.config.image_token_id).int()
    rows: Tensor = base.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=sample["image_grid_thw"])[0]
    return rows


def counted_anew(base: Any, sample: dict[str, Any], kept: Sequence[Sequence[int]], grids: Sequence[Any]) -> Tensor:
    """Return the positions of what is left, counted anew, as `stock_positions`: an image's rows and columns that are
    left become neighbors, and text goes on behind the longer side."""
    (ids,) = sample["input_ids"]
    if stock_positions(base, sample).dim() == 2:
        text = int((ids != base.config.image_token_id).sum())
        return torch.arange(text + sum(map(len, kept)))[None]
    rows: list[tuple[int, int, int]] = []
    image, seen, begin = 0, 0, 0
    for token in ids.tolist():
        if token != base.config.image_token_id:
            rows.append((begin, begin, begin))
            begin += 1
            continue
        height, width = grids[image]
        left = sorted({patch // width for patch in kept[image]}), sorted({patch % width for patch in kept[image]})
        if seen in kept[image]:
            own = (begin, begin + left[0].index(seen // width), begin + left[1].index(seen % width))
            rows.append(own)
        seen += 1
        if seen == height * width:
            begin, image, seen = begin + max(map(len, left)), image + 1, 0
    return torch.tensor(rows).T.unsqueeze(1)


def llm_of(base: Any) -> Any:
    """Return the LLM without its head."""
    return base.model.text_model if hasattr(base.model, "connector") else base.model.language_model


def projector_of(base: Any) -> Any:
    """Return what maps the tower's features to the LLM's input."""
    if hasattr(base.model, "connector"):
        return base.model.connector.modality_projection
    return base.model.visual.merger if hasattr(base.model, "visual") else base.model.multi_modal_projector


def given_mask(base: Any, mask: Tensor) -> Any:
    """Return a mask that is made already, as the LLM takes it: some take one for each kind of layer."""
    types = getattr(base.config.text_config, "layer_types", None)
    return dict.fromkeys(types, mask) if types and hasattr(base.model, "visual") else mask


def types_of(base: Any, embeds: Tensor) -> dict[str, Tensor]:
    """Return what an LLM that asks is told of its tokens: 1 for those of pictures, which are no words'."""
    if "token_type_ids" not in signature(base.forward).parameters:
        return {}
    words = base.get_input_embeddings()(torch.arange(base.config.text_config.vocab_size))
    is_word = (embeds.unsqueeze(2) == words).all(dim=-1).any(dim=-1)
    return {"token_type_ids": (~is_word).long()}


def as_read(positions: Tensor) -> Tensor:
    """Return positions as the LLM reads them: rows of them, [3, 1, S], behind a count, [4, 1, S]."""
    if positions.dim() == 2:
        return positions
    return torch.cat([torch.arange(positions.shape[-1]).expand(1, 1, -1), positions])


def in_prompt_order(base: Any, num_tokens: int) -> Sequence[int]:
    """Return the tokens of an image in the order of their placeholders: row by row, but for one of several tiles."""
    if not hasattr(base.model, "connector"):
        return range(num_tokens)
    from tiny_idefics3 import GRIDS

    (grid,) = {grid for of_picture in GRIDS for grid in of_picture if grid[0] * grid[1] == num_tokens}
    tokens = torch.arange(num_tokens).view(grid)
    tiles = [tile for row in tokens.split(4) for tile in row.split(4, dim=1)]
    order: list[int] = torch.cat([tile.flatten() for tile in tiles]).tolist()
    return order


@contextmanager
def adding(base: Any, levels: Sequence[Tensor], places: Tensor) -> Iterator[None]:
    """Add rows, [n, D] behind each of the first layers, to the states at `places`, [n], of whole prompts."""

    def behind(rows: Tensor) -> Any:
        # A token that is decoded stands alone.
        return lambda _, __, states: states.index_add(1, places, rows[None]) if states.shape[1] > 1 else states

    layers = llm_of(base).layers
    hooks = [layer.register_forward_hook(behind(rows)) for layer, rows in zip(layers, levels, strict=False)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def kept_rows(
    base: Any, sample: dict[str, Any], kept: Sequence[Sequence[int]], tokens_per_image: Sequence[int]
) -> list[Tensor]:
    """Return of `stock_levels` those of kept tokens."""
    firsts = accumulate(tokens_per_image, initial=0)
    rows = [first + patch for first, own in zip(firsts, kept, strict=False) for patch in own]
    return [level[rows] for level in stock_levels(base, sample)]


def pruned_prompt(
    base: Any,
    sample: dict[str, Any],
    kept: Sequence[Sequence[int]],
    tokens_per_image: Sequence[int],
    tower_features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return embeddings [1, L, D] and positions, [1, L] or [3, 1, L], of one prompt of which only `kept` patches stay.

    `tower_features` ([I, N, C]) stand for the stock tower's, if given.
    """
    (ids,) = sample["input_ids"]
    if tower_features is None:
        features = stock_features(base, sample)
    else:
        features = base.model.multi_modal_projector(tower_features).flatten(0, 1)
    sizes = zip(kept, tokens_per_image, strict=True)
    stays = [patch in indices for indices, size in sizes for patch in in_prompt_order(base, size)]
    assert len(stays) == len(features)
    rows, positions, seen = [], [], 0
    for position, token in enumerate(ids.tolist()):
        if token == base.config.image_token_id:
            seen += 1
            if not stays[seen - 1]:
                continue
            rows.append(features[seen - 1])
        else:
            rows.append(base.get_input_embeddings()(torch.tensor(token)))
        positions.append(position)
    return torch.stack(rows)[None], stock_positions(base, sample)[..., positions]


def extended(positions: Tensor, count: int) -> Tensor:
    """Return positions with `count` more of text behind them."""
    return torch.cat([positions, positions[..., -1:] + 1 + torch.arange(count)], dim=-1)


@torch.no_grad()
def greedy(base: Any, embeds: Tensor, positions: Tensor, num_new_tokens: int) -> tuple[list[int], Tensor]:
    """Return greedy tokens and each step's logits, by a full forward pass without a cache at every step."""
    tokens, logits = [], []
    for _ in range(num_new_tokens):
        mask = torch.ones(1, positions.shape[-1], dtype=torch.int64)
        read = {"inputs_embeds": embeds, "position_ids": as_read(positions), "attention_mask": mask}
        result = base(**read, **types_of(base, embeds), use_cache=False)
        logits.append(result.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] == base.generation_config.eos_token_id:
            break
        new = base.get_input_embeddings()(torch.tensor([[tokens[-1]]]))
        embeds = torch.cat([embeds, new], dim=1)
        positions = extended(positions, 1)
    return tokens, torch.stack(logits)
