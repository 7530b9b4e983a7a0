"""An auxiliary loss for the bundled scenes: in one layer, the end of a question looks at what it asks about.

Learning to answer from answers alone stands still until the LLM happens to look at the right patches; the generator
knows which they are. The loss is the cross-entropy of that layer's attention mass on them, per head.
"""

from typing import Any

import torch
from torch import Tensor

from adallava.families.llama_attention import attention_shares
from adallava.training.packing import Packed

_LEAST_MASS = 1e-6


def grounding_loss(
    llm: Any,
    layer: int,
    hidden: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    packed: Packed,
    kept_evidence: Tensor,
) -> Tensor:
    """Return the mean of -log(attention mass on a question's evidence) over heads and questions that kept any.

    Args:
        llm: the `LlamaModel`.
        layer: whose attention is taught.
        hidden: [B, S, D], its input.
        position_ids: [B, S].
        mask: [B, 1, S, S] bool.
        packed: the questions; `packed.asks` marks the last token of each.
        kept_evidence: [R, K] bool, which of the kept tokens show what question r is about; R questions in order.
    """
    shared = hidden.shape[1] - packed.text_ids.shape[1]
    prefix = packed.prefix_ids.shape[1]
    rows = packed.asks.nonzero()
    rows[:, 1] += shared
    shares = attention_shares(llm, layer, hidden, position_ids, mask[:, 0], rows)
    mass = (shares[:, :, prefix:shared] * kept_evidence.unsqueeze(1)).sum(dim=-1)
    has_any = kept_evidence.any(dim=-1)
    losses = -mass.clamp_min(_LEAST_MASS).log().mean(dim=1)
    return torch.where(has_any, losses, 0.0).sum() / has_any.sum().clamp_min(1)
