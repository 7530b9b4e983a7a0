"""Stage `base`: the LLM learns to answer, at full budget and with tokens missing.

Tokens are truly gathered, as at inference: there is no mask through which a dropped token could leak.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family
from adallava.scheduling.scheduler_contract import Units, half_of_layers
from adallava.selection.selector_contract import Selection
from adallava.training.grounding import grounding_loss
from adallava.training.keep import draw_keep, select_tokens
from adallava.training.missing_layers import draw_missing_layers, without_layers
from adallava.training.packing import IGNORE, Packed, packed_mask, packed_positions, shared_positions
from adallava.training.pictures import Beside, one_grid_of, picture_inputs
from adallava.training.recipe import KeepMix


@dataclass(frozen=True)
class PackedRun:
    """What the LLM made of packed questions.

    Attributes:
        logits: [A, V] where each of the batch's A answer tokens must follow.
        targets: [A] the ids that should follow.
        hidden_states: input of each layer and output of the last, [B, S, D] each; None unless asked for.
        position_ids: [B, S], or [R, B, S].
        mask: [B, 1, S, S] bool.
    """

    logits: Tensor
    targets: Tensor
    hidden_states: tuple[Tensor, ...] | None
    position_ids: Tensor
    mask: Tensor


def run_packed(
    family: Family,
    kept: Tensor,
    vision_positions: Tensor,
    packed: Packed,
    shared: Tensor,
    *,
    with_hidden_states: bool = False,
    missing_layers: frozenset[int] = frozenset(),
) -> PackedRun:
    """Run the LLM over packed questions.

    Args:
        family: the model.
        kept: [B, K, D] projected vision tokens.
        vision_positions: [B, K] their patch indices.
        packed: the questions.
        shared: positions of what they share; see `shared_positions`.
        with_hidden_states: True to return every layer's input.
        missing_layers: LLM layers that are passed over; not together with `with_hidden_states`.
    """
    mask = packed_mask(packed, kept.shape[1])
    bias = torch.zeros_like(mask, dtype=kept.dtype).masked_fill(~mask, torch.finfo(kept.dtype).min)
    position_ids = packed_positions(packed, vision_positions, shared)
    model = without_layers(family, missing_layers) if missing_layers else family.model
    result = family.llm_of(model)(
        inputs_embeds=torch.cat(
            [family.embed_text(packed.prefix_ids), kept, family.embed_text(packed.text_ids)], dim=1
        ),
        attention_mask=bias,
        position_ids=position_ids,
        use_cache=False,
        output_hidden_states=with_hidden_states,
    )
    answers = packed.targets != IGNORE
    states = result.last_hidden_state[:, -packed.text_ids.shape[1] :][answers]
    return PackedRun(
        family.model.get_output_embeddings()(states), packed.targets[answers], result.hidden_states, position_ids, mask
    )


class BaseObjective(nn.Module):
    """What the Trainer sees in stage `base`."""

    def __init__(
        self,
        family: Family,
        keep: KeepMix,
        *,
        ground_weight: float,
        ground_layer: int,
        missing_layers_share: float = 0.0,
        prefix_layers: int | None = None,
        lowest_latency: float = 0.0,
    ) -> None:
        """Hold the model; with a `ground_weight`, the grounding loss of a layer is added.

        In `missing_layers_share` of the steps, random layers after the prefix are passed over, without grounding; a
        share of `lowest_latency` is always left.

        Raises:
            UnsupportedModeError: if that is asked for with a prefix that leaves no layer.
        """
        super().__init__()
        self.base = family.model
        self.family, self.keep = family, keep
        self.ground_weight, self.ground_layer = ground_weight, ground_layer
        self.missing_layers_share, self._lowest_latency = missing_layers_share, lowest_latency
        self._units: Units | None = None
        if missing_layers_share:
            shape = decoder_of(family).shape
            self._units = Units(shape.num_layers, half_of_layers(shape) if prefix_layers is None else prefix_layers)

    def forward(
        self,
        pixel_values: Tensor,
        packed: Packed,
        evidence: Tensor | None = None,
        asked_patches: Tensor | None = None,
        reference_rows: Tensor | None = None,
        reference_patches: Tensor | None = None,
        beside: Beside | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return `loss`, and the loss and accuracy of answer tokens by way of leaving tokens out."""
        pictures = picture_inputs(self.family, pixel_values, beside)
        grid, shared = one_grid_of(self.family, pictures), shared_positions(self.family, packed, pictures)
        packed = packed.to(pixel_values.device)
        features = self.family.encode(pictures).features
        keep = draw_keep(self.keep, features.shape[1])
        selection = select_tokens(keep, features, grid, evidence)
        missing = self._draw_missing()
        grounded = (
            self.ground_weight > 0 and not missing and asked_patches is not None and selection.merge_weights is None
        )
        kept = self.family.project(selection.apply(features))
        run = run_packed(
            self.family, kept, selection.indices, packed, shared, with_hidden_states=grounded, missing_layers=missing
        )
        answered = F.cross_entropy(run.logits.float(), run.targets)
        suffix = f"_without_{len(missing)}" if missing else ""
        outputs = {
            "loss": answered,
            f"loss_{keep.way}{suffix}": answered,
            f"accuracy_{keep.way}_{keep.keep_count}{suffix}": (run.logits.argmax(-1) == run.targets).float().mean(),
        }
        if grounded and asked_patches is not None:
            ends = packed.asks.nonzero()
            outputs["ground"] = self._ground(run, packed, selection, self.ground_layer, ends, asked_patches)
            outputs["loss"] = answered + self.ground_weight * outputs["ground"]
        if grounded and reference_rows is not None and reference_patches is not None:
            # A layer earlier, so that the end of the question can read what its nouns found.
            outputs["nouns"] = self._ground(
                run, packed, selection, self.ground_layer - 1, reference_rows, reference_patches
            )
            outputs["loss"] = outputs["loss"] + self.ground_weight * outputs["nouns"]
        return outputs

    def _draw_missing(self) -> frozenset[int]:
        if self._units is None or float(torch.rand(())) >= self.missing_layers_share:
            return frozenset()
        return draw_missing_layers(self._units, self._lowest_latency)

    def _ground(
        self, run: PackedRun, packed: Packed, selection: Selection, layer: int, rows: Tensor, patches: Tensor
    ) -> Tensor:
        assert run.hidden_states is not None
        hidden = run.hidden_states[layer]
        shared = hidden.shape[1] - packed.text_ids.shape[1]
        return grounding_loss(
            decoder_of(self.family),
            layer,
            hidden,
            run.position_ids,
            run.mask,
            torch.stack([rows[:, 0], rows[:, 1] + shared], dim=1),
            slice(packed.prefix_ids.shape[1], shared),
            patches.gather(1, selection.indices[rows[:, 0]]),
        )
