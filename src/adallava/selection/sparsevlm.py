"""`sparsevlm`: text tokens that fit the image rank its tokens at three layers; a part of the rest is recycled."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.selection.base import Method
from adallava.selection.layer_contract import (
    Drop,
    DropInput,
    PromptInput,
    Raters,
    attention_of_present,
    present_tokens,
)
from adallava.selection.recycle import ClusterCounts, cluster_owners
from adallava.selection.selector_contract import Selection, TowerShape, keep_highest, top_k_in_order

_PAPER_DEPTH = 32
_PAPER_LAYERS = (2, 6, 15)
"""Layers whose attention ranks, of 32: the authors' `pruning_loc`."""

_PAPER_TOKENS = 576
_PAPER_KEPT = ((66, 30, 17), (238, 48, 26), (303, 110, 36), (300, 200, 110))
"""Tokens that attention keeps at each of these layers: the authors' lists for 64, 96, 128 and 192 tokens. Those names
are averages over the layers, and the recycled tokens come on top."""


class SparseVLMSelector(Method):
    """SparseVLM (Zhang et al. 2024, sections 3.2 to 3.4, arXiv 2410.04417), version 1.0 of the authors' code.

    Raters are the text tokens after the image to which, by softmax over the text of the input embeddings' products
    and mean over vision tokens, more falls than to the mean of them. At three layers the vision tokens are ranked by
    the raters' attention, averaged over heads and raters. Of the tokens that lose, the best 30 % are clustered
    (density peaks among nearest neighbors) and every cluster's mean goes on as one token.

    A budget states K after the last drop, recycled tokens included. The counts of the earlier drops are
    interpolated between the authors' lists: K = 18, 27, 39 and 113 of 576 (17 + 1, 26 + 1, 36 + 3, 110 + 3) give the
    authors' 64, 96, 128 and 192 exactly; N keeps all. The authors cluster m = int(0.3 D) + 1 of D dropped tokens
    into int(m / 10) + 1; so for a given count after the drop, as many tokens are kept by attention as leave room for
    just these clusters. Layers are scaled to the LLM's depth.

    Against the authors' code (Gumpest/SparseVLMs, commit 26a5f48, score.py, modelling_sparse_llama.py, utils.py):
    the same raters, ranks and clusters. What differs: of equally dense tokens the one with more attention counts as
    the denser, where they add noise of up to 1e-6; a recycled token takes the place of its cluster's center, with its
    position, not after all kept ones; the authors count positions again after each drop, which is
    `positions="compact"` here; the mean divides by the number of tokens, not by it plus 1e-6; at least one text token
    rates; softmax and means are in float32. The paper's choice of counts by the rank of the attention matrix is not
    in their code, which has the lists.
    """

    name: ClassVar[str] = "sparsevlm"
    merges: ClassVar[bool] = True

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> tuple[Drop, ...]:
        """Return the three drops.

        Raises:
            UnsupportedModeError: for an LLM of fewer than 4 layers.
        """
        if num_layers <= len(_PAPER_LAYERS):
            raise UnsupportedModeError(
                f"sparsevlm drops tokens at 3 layers, and this LLM has {num_layers}: choose another method"
            )
        counts = _stage_counts(num_vision_tokens, keep_count)
        layers = _scaled_layers(num_layers)
        return tuple(Drop(layer + 1, layer, count) for layer, count in zip(layers, counts, strict=True))

    def raters(self, inputs: PromptInput) -> Raters:
        """Name all text tokens, with equal weights for those that fit the image and 0 for the others."""
        mask = inputs.text_mask
        products = (inputs.vision_embeds @ inputs.text_embeds.transpose(1, 2)).float()
        present = present_tokens(inputs).unsqueeze(2)
        shares = products.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(dim=2)
        # Images of a batch may differ in their number of tokens: the mean is over those that an image has.
        shares = (shares * present).sum(dim=1) / present.sum(dim=1)
        num_text = mask.sum(dim=1, keepdim=True)
        # Padding has no share, so that the sum is the text's own.
        fits = mask & (shares > shares.sum(dim=1, keepdim=True) / num_text)
        fits = torch.where(fits.any(dim=1, keepdim=True), fits, mask).float()
        rows = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        return Raters(rows, fits / fits.sum(dim=1, keepdim=True))

    def choose(self, inputs: DropInput) -> Selection:
        """Keep the tokens with the most attention, and recycle a part of the rest."""
        counts = tuple(map(recycling, inputs.token_counts, inputs.keep_counts))
        scores = attention_of_present(inputs)
        if not any(count.clusters for count in counts):
            return keep_highest(scores, inputs.keep_counts)
        owners = self._owners(inputs, scores, counts)
        owns_itself = (owners == torch.arange(owners.shape[1], device=owners.device)).float()
        indices = top_k_in_order(owns_itself, inputs.keep_counts)
        members = (owners.unsqueeze(1) == indices.unsqueeze(2)).float()
        # Entries past K may have no member at all.
        weights = members / members.sum(dim=2, keepdim=True).clamp_min(1.0)
        return Selection(indices, inputs.keep_counts, scores=scores, merge_weights=weights)

    def _owners(self, inputs: DropInput, scores: Tensor, counts: tuple["Recycling", ...]) -> Tensor:
        """Return the token that each token goes on in, [I, n] int64: itself, its cluster's center, or -1."""
        num_tokens = scores.shape[1]
        places = torch.arange(num_tokens, device=scores.device)
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept_counts = torch.tensor([count.kept for count in counts], dtype=torch.int64)
        kept = rank < kept_counts.to(scores.device, non_blocking=True).unsqueeze(1)
        own = torch.where(kept, places, -1)
        dropped = scores.masked_fill(kept | ~present_tokens(inputs), float("-inf"))
        return cluster_owners(own, inputs.hidden, dropped, [ClusterCounts(c.merged, c.clusters) for c in counts])

    def num_raters(self, num_text_tokens: int) -> int:
        """Return T: which of them rate is known on the device alone."""
        return num_text_tokens

    def flops(self, shape: TowerShape, num_text_tokens: int, drops: tuple[Drop, ...]) -> int:
        """Return the products of vision and text embeddings, and at each drop [K, n] with [n, D]."""
        before, width = shape.num_vision_tokens, shape.llm_width
        if drops[-1].keep_count == before:
            return 0
        total = 2 * before * num_text_tokens * width
        for drop in drops:
            if recycling(before, drop.keep_count).clusters:
                total += 2 * drop.keep_count * before * width
            before = drop.keep_count
        return total


@dataclass(frozen=True)
class Recycling:
    """How a count after a drop is made up: `kept` by attention, and `clusters` of `merged` dropped tokens."""

    kept: int
    merged: int
    clusters: int


def recycling(num_tokens: int, keep_count: int) -> Recycling:
    """Return how n tokens become K: the most kept by attention that leave room for the clusters of what is dropped.

    Clusters are as many as in the authors' code, and at most a fifth of K, the largest share in their lists: of very
    few tokens, attention still keeps most. One more token kept means one fewer dropped and never more clusters, so
    kept and clusters together rise by 0 or 1 and meet every K. At K = n nothing is dropped.
    """
    if keep_count == num_tokens:
        return Recycling(num_tokens, 0, 0)
    for kept in range(keep_count, -1, -1):
        merged, clusters = _authors_clusters(num_tokens - kept)
        clusters = min(clusters, keep_count // 5)
        if kept + clusters == keep_count:
            return Recycling(kept, merged if clusters else 0, clusters)
    raise AssertionError(f"no way to keep {keep_count} of {num_tokens}")


def _authors_clusters(num_dropped: int) -> tuple[int, int]:
    """Return how many of the dropped tokens the authors merge, and into how many clusters."""
    merged = int(num_dropped * 0.3) + 1
    return merged, int(merged / 10) + 1


def _scaled_layers(num_layers: int) -> list[int]:
    """Return the ranking layers for an LLM of another depth: in proportion, distinct, one layer left after them."""
    layers: list[int] = []
    for place, paper_layer in enumerate(_PAPER_LAYERS):
        scaled = math.floor(paper_layer * num_layers / _PAPER_DEPTH + 0.5)
        latest = num_layers - 2 - (len(_PAPER_LAYERS) - 1 - place)
        layers.append(min(latest, max(scaled, layers[-1] + 1 if layers else 0)))
    return layers


def _stage_counts(num_vision_tokens: int, keep_count: int) -> tuple[int, ...]:
    """Return the tokens after each drop, recycled ones included, the last of them K."""
    share = keep_count / num_vision_tokens
    points = [(0.0, 0.0, 0.0), *(_with_recycled(kept) for kept in _PAPER_KEPT), (1.0, 1.0, 1.0)]
    low, high = next((a, b) for a, b in pairwise(points) if a[-1] <= share <= b[-1])
    way = (share - low[-1]) / (high[-1] - low[-1])
    counts, before = [], num_vision_tokens
    for first, second in zip(low[:-1], high[:-1], strict=True):
        count = round(num_vision_tokens * (first + way * (second - first)))
        before = min(before, max(keep_count, count))
        counts.append(before)
    return (*counts, keep_count)


def _with_recycled(kept: tuple[int, ...]) -> tuple[float, ...]:
    """Return the shares of N after each drop of the authors' code, if attention keeps `kept`."""
    before, shares = _PAPER_TOKENS, []
    for count in kept:
        before = count + _authors_clusters(before - count)[1]
        shares.append(before / _PAPER_TOKENS)
    return tuple(shares)
