"""Stage `base`: the LLM learns to answer, at full budget and with tokens missing.

Tokens are truly gathered, as at inference: there is no mask through which a dropped token could leak.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.contract import Family
from adallava.training.align import AlignmentLoss
from adallava.training.keep import draw_keep, select_tokens
from adallava.training.packing import IGNORE, Packed, packed_mask, packed_positions
from adallava.training.recipe import KeepMix


def packed_logits(
    family: Family, kept: Tensor, vision_positions: Tensor, packed: Packed, num_vision_tokens: int
) -> tuple[Tensor, Tensor]:
    """Run the LLM over packed questions and return what it says where an answer token must follow.

    Args:
        family: the model.
        kept: [B, K, D] projected vision tokens.
        vision_positions: [B, K] their patch indices.
        packed: the questions.
        num_vision_tokens: N.

    Returns:
        logits: [A, V] for the A answer tokens of the batch.
        targets: [A] ids that should follow.
    """
    mask = packed_mask(packed, kept.shape[1])
    bias = torch.zeros_like(mask, dtype=kept.dtype).masked_fill(~mask, torch.finfo(kept.dtype).min)
    embeds = torch.cat([family.embed_text(packed.prefix_ids), kept, family.embed_text(packed.text_ids)], dim=1)
    hidden = family.model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=bias,
        position_ids=packed_positions(packed, vision_positions, num_vision_tokens),
        use_cache=False,
    ).last_hidden_state
    answers = packed.targets != IGNORE
    states = hidden[:, -packed.text_ids.shape[1] :][answers]
    return family.model.lm_head(states), packed.targets[answers]


class BaseObjective(nn.Module):
    """What the Trainer sees in stage `base`."""

    def __init__(
        self,
        family: Family,
        keep: KeepMix,
        *,
        tower_learns: bool,
        alignment: AlignmentLoss | None,
        weight: float,
    ) -> None:
        """Hold the model; with `alignment`, its loss on the projected patches is added with `weight`."""
        super().__init__()
        self.base = family.model
        self.family, self.keep, self.tower_learns = family, keep, tower_learns
        self.alignment, self.weight = alignment, weight

    def forward(
        self,
        pixel_values: Tensor,
        packed: Packed,
        evidence: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return `loss` and `accuracy` of answer tokens, and the loss by way of leaving tokens out."""
        with torch.set_grad_enabled(self.tower_learns and torch.is_grad_enabled()):
            features = self.family.encode(pixel_values).features
        num_tokens = features.shape[1]
        keep = draw_keep(self.keep, num_tokens)
        selection = select_tokens(keep, features, self.family.shape.grid, evidence)
        kept = self.family.project(selection.apply(features))
        logits, targets = packed_logits(
            self.family, kept, selection.indices, packed.to(pixel_values.device), num_tokens
        )
        loss = F.cross_entropy(logits.float(), targets)
        outputs = {
            f"loss_{keep.way}": loss,
            f"accuracy_{keep.way}_{keep.keep_count}": (logits.argmax(-1) == targets).float().mean(),
        }
        if self.alignment is not None and labels is not None:
            projected = self.family.project(features)
            parts = self.alignment(projected, self.base.get_input_embeddings().weight, labels)
            aligned = torch.stack(tuple(parts.values())).mean()
            loss = loss + self.weight * aligned
            outputs["align"] = aligned
        return {"loss": loss, **outputs}
