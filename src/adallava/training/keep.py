"""Ways of leaving vision tokens out while a base learns to answer without them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.registry import load_selector_class
from adallava.selection.selector_contract import Selection, SelectionInput, top_k_in_order
from adallava.training.recipe import KeepMix

WAYS = ("full", "evidence", "random", "uniform", "pool", "question")


@dataclass(frozen=True)
class Keep:
    """What one step keeps: one way and one K for the whole batch, so that no padding is computed."""

    way: str
    keep_count: int


def draw_keep(mix: KeepMix, num_vision_tokens: int) -> Keep:
    """Draw a step's way and K from the recipe's mix, by torch's CPU generator."""
    weights = torch.tensor([getattr(mix, way) for way in WAYS])
    way = WAYS[int(torch.multinomial(weights, 1))]
    if way == "full":
        return Keep(way, num_vision_tokens)
    counts = {"evidence": mix.evidence_keep_counts, "question": mix.question_keep_counts}.get(way, mix.keep_counts)
    return Keep(way, min(num_vision_tokens, counts[int(torch.randint(len(counts), ()))]))


def select_tokens(keep: Keep, features: Tensor, grid: tuple[int, int], evidence: Tensor | None) -> Selection:
    """Choose `keep.keep_count` tokens of every image, blind to the question.

    Args:
        keep: way and K.
        features: [I, N, C].
        grid: (rows, columns).
        evidence: [I, N] bool, patches that show anything; needed for the way `evidence`, which prefers them.

    Raises:
        InputError: `evidence` is asked for but the data does not have it.
    """
    images, num_tokens = features.shape[:2]
    counts = (keep.keep_count,) * images
    if keep.way == "evidence":
        if evidence is None:
            raise InputError("keep.evidence needs data with labeled patches (the bundled scenes): set it to 0")
        scores = torch.rand(images, num_tokens, device=features.device) + evidence
        return Selection(top_k_in_order(scores, counts), counts)
    method = "uniform" if keep.way == "full" else keep.way
    inputs = SelectionInput(
        features=features,
        grid=grid,
        keep_counts=counts,
        budget_ratios=torch.full((images,), keep.keep_count / num_tokens, device=features.device),
        seeds=torch.randint(2**62, (images,)).to(features.device),
        question_embeds=features.new_zeros(images, 0, 1),
        question_mask=torch.zeros(images, 0, dtype=torch.bool, device=features.device),
    )
    selection: Selection = load_selector_class(method)().select(inputs)
    return selection
