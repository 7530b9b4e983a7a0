"""What the stock model does with some of its vision tokens taken out by hand, one sample at a time.

Written on its own, from transformers' public functions, as what the package's results are compared with.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def stock_features(base: Any, sample: dict[str, Any]) -> Tensor:
    """Return the stock model's vision tokens behind the projector, [N over all images, D]."""
    sizes = [sample["image_sizes"]] if "image_sizes" in sample else []
    return torch.cat(list(base.model.get_image_features(sample["pixel_values"], *sizes).pooler_output))


def pruned_prompt(
    base: Any,
    sample: dict[str, Any],
    kept: Sequence[Sequence[int]],
    tokens_per_image: Sequence[int],
    tower_features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return embeddings [1, L, D] and positions [1, L] of one unpadded prompt of which only `kept` patches stay.

    `tower_features` ([I, N, C]) stand for the stock tower's, if given.
    """
    (ids,) = sample["input_ids"]
    if tower_features is None:
        features = stock_features(base, sample)
    else:
        features = base.model.multi_modal_projector(tower_features).flatten(0, 1)
    stays = [patch in indices for indices, size in zip(kept, tokens_per_image, strict=True) for patch in range(size)]
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
    return torch.stack(rows)[None], torch.tensor(positions)[None]


@torch.no_grad()
def greedy(base: Any, embeds: Tensor, positions: Tensor, num_new_tokens: int) -> tuple[list[int], Tensor]:
    """Return greedy tokens and each step's logits, by a full forward pass without a cache at every step."""
    tokens, logits = [], []
    for _ in range(num_new_tokens):
        mask = torch.ones_like(positions)
        result = base(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False)
        logits.append(result.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] == base.generation_config.eos_token_id:
            break
        new = base.get_input_embeddings()(torch.tensor([[tokens[-1]]]))
        embeds = torch.cat([embeds, new], dim=1)
        positions = torch.cat([positions, positions[:, -1:] + 1], dim=1)
    return tokens, torch.stack(logits)
