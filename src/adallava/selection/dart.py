"""`dart`: after the second layer, a few pivots, and the tokens that are least like them."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.layer_contract import (
    Drop,
    DropInput,
    DropStates,
    PromptInput,
    Raters,
    last_text_token,
    present_tokens,
)
from adallava.selection.marked import mark, marked_in_order, on_device, rows_at
from adallava.selection.one_drop import check_layer, one_drop
from adallava.selection.selector_contract import Selection, TowerShape, top_k_in_order


class DartSelector(Method):
    """DART (Wen et al. 2025, "Stop Looking for Important Tokens in Multimodal Language Models", arXiv 2502.11494).

    After layer `layer`, the vision tokens and the text tokens after the image whose keys in that layer, turned by
    their positions, have the largest L1 norms are pivots. One pivot after the other, vision tokens first and in the
    prompt's order, takes those of the vision tokens that are left whose states, after the LLM's last norm, have the
    lowest cosine with its own, equally many for each. Kept are the vision pivots and what was taken.

    Against the authors' code (of the copy xqy1111111/DART, commit d6a5af6, modeling_llama_self.py,
    `get_retained_image_token`; the copy's parent was not found): the same choice where the order of pivots is the
    same. The code goes through them in the order of a Python set, which is that of the prompt below 32 tokens and of
    no meaning above. Its count is 4 + 8 * (count // 8), so that what its scripts call 128 is K = 132 here; of a K that
    is not 4 + 8t, the first pivots take one token more. Fewer text tokens than pivots, which stop the code, are all
    pivots. The row of attention that is recorded as scores decides nothing.

    Args:
        layer: layers that read all tokens.
        image_pivots: vision tokens that are pivots; never more than K.
        text_pivots: text tokens that are pivots.
    """

    name: ClassVar[str] = "dart"
    reads_question: ClassVar[bool] = False
    reads_states: ClassVar[bool] = True

    def __init__(self, *, layer: int = 2, image_pivots: int = 4, text_pivots: int = 4) -> None:
        """Take the options.

        Raises:
            AdallavaError: for a layer below 1.
            InputError: for a number of pivots below 1 of vision tokens, or 0 of text tokens.
        """
        check_layer(self.name, layer)
        if image_pivots < 1 or text_pivots < 0:
            raise InputError(
                f"dart: image_pivots is {image_pivots} and text_pivots {text_pivots}: give at least 1 and 0"
            )
        self._layer, self._image_pivots, self._text_pivots = layer, image_pivots, text_pivots

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> tuple[Drop, ...]:
        """Return the one drop.

        Raises:
            UnsupportedModeError: if no layer would be left after it.
        """
        return one_drop(self.name, self._layer, num_layers, keep_count)

    def raters(self, inputs: PromptInput) -> Raters:
        """Name the last token of the question, for the record."""
        return last_text_token(inputs)

    def num_raters(self, num_text_tokens: int) -> int:
        """Return 1."""
        return 1

    def choose(self, inputs: DropInput) -> Selection:
        """Keep the vision pivots, and what each pivot takes."""
        assert inputs.states is not None
        states, present = inputs.states, present_tokens(inputs)
        num_tokens, counts = present.shape[1], inputs.keep_counts
        if counts == inputs.token_counts:
            return Selection(marked_in_order(present, counts), counts, scores=inputs.attention)
        firsts = [min(self._image_pivots, count) for count in counts]
        pivots = top_k_in_order(states.key_norms.masked_fill(~present, -float("inf")), firsts)
        places = torch.arange(pivots.shape[1], device=pivots.device)
        by_text, there = self._text_pivot_states(states)
        active = torch.cat([places < on_device(firsts, pivots), there], dim=1)
        units = F.normalize(states.normed.float(), dim=-1)
        cosines = torch.cat([rows_at(units, pivots), by_text], dim=1) @ units.transpose(1, 2)
        taken = mark(pivots, firsts, num_tokens)
        shares = _shares(on_device([k - first for k, first in zip(counts, firsts, strict=True)], pivots), active)
        for number in range(cosines.shape[1]):
            unlike = (-cosines[:, number]).masked_fill(taken | ~present, -float("inf"))
            rank = unlike.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            taken = taken | (rank < shares[:, number, None])
        return Selection(marked_in_order(taken, counts), counts, scores=inputs.attention)

    def _text_pivot_states(self, states: DropStates) -> tuple[Tensor, Tensor]:
        """Return the directions of text pivots in the prompt's order, [I, P, D], and which are there, [I, P] bool."""
        mask, length = states.text_mask, states.text_mask.shape[1]
        norms = states.text_key_norms.masked_fill(~mask, -float("inf"))
        highest = norms.argsort(dim=1, descending=True, stable=True)[:, : self._text_pivots]
        places = highest.masked_fill(~mask.gather(1, highest), length).sort(dim=1).values
        there = places < length
        return F.normalize(rows_at(states.text_normed.float(), places.clamp_max(length - 1)), dim=-1), there

    def flops(self, shape: TowerShape, num_text_tokens: int, drops: tuple[Drop, ...]) -> int:
        """Return the products of pivots with all tokens."""
        keep_count = drops[-1].keep_count
        if keep_count == shape.num_vision_tokens:
            return 0
        pivots = min(self._image_pivots, keep_count) + min(self._text_pivots, num_text_tokens)
        return 2 * pivots * shape.num_vision_tokens * shape.llm_width


def _shares(rests: Tensor, active: Tensor) -> Tensor:
    """Return how many tokens each pivot takes, [I, P] int64: equally many, the first ones one more.

    Args:
        rests: [I, 1] int64, tokens to take.
        active: [I, P] bool, which pivots there are.
    """
    number = active.sum(dim=1, keepdim=True).clamp_min(1)
    rank = active.cumsum(dim=1) - 1
    return (rests // number + (rank < rests % number)) * active
