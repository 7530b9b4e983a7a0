"""`cdpruner`: a diverse set of tokens, weighted by how relevant each is to the question."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.greedy import choose_greedily
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape

Relevance = Literal["text-tower", "llm-embeddings", "none"]

_SMALLEST_GAIN = 1e-6
"""Below it, what is left of a token outside the span of those kept is rounding (float32)."""


class CDPrunerSelector(Method):
    """Greedy MAP of a determinantal point process whose kernel is similarity times relevance of both tokens.

    CDPruner (Zhang et al., section 3, arXiv 2506.10967; code Theia-4869/CDPruner, `llava_arch.py`, `encode_images`).
    Similarity is the cosine after the projector. Relevance is the *negated* cosine with the question in CLIP's shared
    space, as in the code (its authors: seen in CLIP only, their issue 14), scaled to (0, 1] within each image.

    Differs from the code: scaled per image, not over the batch (equal at the code's batch of 1); past the rank of the
    kernel, where the code divides by zero, the rest are taken by relevance; float32; ascending indices (so the code).

    Cost: the K picks depend on each other: K steps of about eight kernels, and K^2 N multiply-adds.

    Args:
        relevance: "text-tower", the paper's for LLaVA, needs `text_tower`. "llm-embeddings": cosine (not negated) of
            projected tokens with the LLM's embeddings of the question's words, averaged, in the way of the authors'
            ports to models without CLIP's text tower (their issue 7); here a departure from the paper. "none":
            diversity alone, the paper's ablation.
        text_tower: folder or hub id of the CLIP checkpoint that the vision tower came from.

    Raises:
        InputError: for another value of `relevance`.
    """

    name: ClassVar[str] = "cdpruner"

    def __init__(self, *, relevance: Relevance = "text-tower", text_tower: str | None = None) -> None:
        """Choose what relevance is measured by."""
        if relevance not in get_args(Relevance):
            raise InputError(f"cdpruner: relevance={relevance!r} is not one of {', '.join(get_args(Relevance))}")
        self._relevance, self._text_tower = relevance, text_tower

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]  # it depends on an option
        """Projected tokens, and what relevance is measured by."""
        read = {"text-tower": {Need.TEXT_TOWER}, "llm-embeddings": {Need.WORDS}, "none": set()}[self._relevance]
        return frozenset({Need.PROJECTED, *read})

    @property
    def text_tower(self) -> str | None:
        """Where the CLIP checkpoint is."""
        return self._text_tower

    def words(self, question: str) -> list[str]:
        """Return the question's words, all of them."""
        return question.split()

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        return choose_greedily(self, inputs)

    def table(self, inputs: SelectionInput) -> tuple[Tensor, Tensor]:
        """Return the process's kernel, [I, N, N], and each token's relevance, [I, N]."""
        assert inputs.projected is not None
        normed = F.normalize(inputs.projected.float(), dim=-1)
        quality = self._quality(inputs, normed)
        return quality.unsqueeze(2) * (normed @ normed.transpose(1, 2)) * quality.unsqueeze(1), quality

    def order(self, table: Tensor, steps: int) -> Tensor:
        """Return the first picks, [I, steps] int64."""
        return map_order(table, steps)

    def _quality(self, inputs: SelectionInput, normed: Tensor) -> Tensor:
        if self._relevance == "none":
            return torch.ones_like(normed[..., 0])
        if self._relevance == "text-tower":
            assert inputs.text_relevance is not None
            relevance = -inputs.text_relevance
        else:
            assert inputs.word_embeds is not None
            assert inputs.word_mask is not None
            cosines = normed @ F.normalize(inputs.word_embeds.float(), dim=-1).transpose(1, 2)
            mask = inputs.word_mask.unsqueeze(1)
            relevance = (cosines * mask).sum(dim=2) / mask.sum(dim=2).clamp_min(1)
        low, high = relevance.amin(dim=1, keepdim=True), relevance.amax(dim=1, keepdim=True)
        return (relevance - low + 1e-6) / (high - low).clamp_min(1e-6)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of pairs of tokens, of the greedy steps, and of words with tokens.

        The projector over N tokens counts as projector; a text tower is counted where it is run.
        """
        num_tokens = shape.num_vision_tokens
        if keep_count in (0, num_tokens):
            return 0
        words = num_question_tokens if self._relevance == "llm-embeddings" else 0
        pairs = 2 * num_tokens * (num_tokens + words) * shape.llm_width
        return pairs + num_tokens * (keep_count - 1) * (keep_count - 2)


def map_order(kernel: Tensor, steps: int) -> Tensor:
    """Return the first picks of greedy MAP inference of a determinantal point process, [I, steps] int64.

    Chen, Zhang & Zhou, "Fast Greedy MAP Inference for DPP", algorithm 1 (arXiv 1709.05135): an incremental Cholesky
    factorisation; each pick has the largest gain in volume left.

    Args:
        kernel: [I, N, N] float32, positive semi-definite.
        steps: how many picks.
    """
    num_images, num_tokens = kernel.shape[:2]
    diagonal = kernel.diagonal(dim1=1, dim2=2)
    gains = diagonal.clone()
    # Past the rank of the kernel the gains are rounding: the diagonal decides, below every real gain.
    fallback = diagonal / diagonal.amax(dim=1, keepdim=True).clamp_min(1e-30) * _SMALLEST_GAIN
    rows = torch.arange(num_images, device=kernel.device)
    factors = kernel.new_zeros((num_images, num_tokens, steps))
    picks: list[Tensor] = []
    # Each step is many small kernels, whose number is its time: none of them is there for nothing.
    for step in range(steps):
        gain, pick = torch.where(gains > _SMALLEST_GAIN, gains, fallback).max(dim=1)
        picks.append(pick)
        if step == steps - 1:
            break
        for ranked in (gains, fallback):
            ranked.scatter_(1, pick[:, None], -float("inf"))
        column = kernel[rows, pick]
        if step > 0:
            # A product and a sum, not `@`: a batched product's bits depend on the size of the batch.
            earlier = factors[..., :step]
            column = column - (earlier * earlier[rows, pick].unsqueeze(1)).sum(dim=-1)
        # What is past the rank is divided by infinity: it takes nothing from the others' gains.
        factor = column / torch.where(gain > _SMALLEST_GAIN, gain, float("inf")).sqrt()[:, None]
        factors[..., step] = factor
        gains = gains - factor.square()
    return torch.stack(picks, dim=1)
