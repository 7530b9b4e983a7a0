"""An auxiliary loss for the bundled scenes: in one layer, the end of a question looks at what it asks about.

Learning to answer from answers alone makes no progress until the LLM happens to look at the right patches; the
generator knows which they are. The loss is the cross-entropy of that layer's attention mass on them, per head.
"""

import torch
from torch import Tensor

from adallava.families.family_contract import DecoderLayers

_LEAST_MASS = 1e-6


def grounding_loss(
    decoder: DecoderLayers,
    layer: int,
    hidden: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    rows: Tensor,
    vision: slice,
    kept_evidence: Tensor,
) -> Tensor:
    """Return the mean of -log(attention mass on a question's evidence) over heads and tokens that kept any.

    Args:
        decoder: the LLM's layers.
        layer: whose attention is taught.
        hidden: [B, S, D], its input.
        position_ids: [B, S].
        mask: [B, 1, S, S] bool.
        rows: [R, 2] int64, (sample, place) of the tokens that are taught.
        vision: places of the K vision tokens.
        kept_evidence: [R, K] bool, which of the kept tokens show what token r should look at.
    """
    shares = decoder.attention_shares(layer, hidden, position_ids, mask[:, 0], rows)
    mass = (shares[:, :, vision] * kept_evidence.unsqueeze(1)).sum(dim=-1)
    has_any = kept_evidence.any(dim=-1)
    losses = -mass.clamp_min(_LEAST_MASS).log().mean(dim=1)
    return torch.where(has_any, losses, 0.0).sum() / has_any.sum().clamp_min(1)
