"""What the stock model does with some of its vision tokens taken out by hand, one sample at a time.

Written on its own, from transformers' public functions, as what the package's results are compared with.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pruned_prompt(
    base: Any, sample: dict[str, Any], kept: Sequence[Sequence[int]], tower_features: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return embeddings [1, L, D] and positions [1, L] of one unpadded prompt of which only `kept` patches stay.

    `tower_features` ([I, N, C]) stand for the stock tower's, if given.
    """
    (ids,) = sample["input_ids"]
    if tower_features is None:
        features = torch.stack(list(base.model.get_image_features(sample["pixel_values"]).pooler_output))
    else:
        features = base.model.multi_modal_projector(tower_features)
    rows, positions, seen = [], [], 0
    for position, token in enumerate(ids.tolist()):
        if token == base.config.image_token_id:
            image, patch = divmod(seen, features.shape[1])
            seen += 1
            if patch not in kept[image]:
                continue
            rows.append(features[image, patch])
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
