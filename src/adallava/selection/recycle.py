"""Clusters of dropped tokens by density peaks among nearest neighbors, in a batch of images of different counts.

After Du et al. 2016 (DPC-KNN), as SparseVLM uses it: a center is dense and far from any denser token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClusterCounts:
    """Of one image: how many tokens are merged, and into how many clusters. Both 0 for an image without any."""

    merged: int
    clusters: int


def cluster_owners(own: Tensor, hidden: Tensor, scores: Tensor, counts: Sequence[ClusterCounts]) -> Tensor:
    """Return `own` with every merged token pointing to its cluster's center, [I, n] int64.

    Args:
        own: [I, n] int64, what each token points to without merging.
        hidden: [I, n, D], what distances are measured between.
        scores: [I, n], -inf for a token that must not be merged; the highest are.
        counts: of each image, on the host.
    """
    most_merged = max(count.merged for count in counts)
    tokens = scores.argsort(dim=1, descending=True, stable=True)[:, :most_merged]
    merged = _on_device([count.merged for count in counts], hidden.device)
    clusters = _on_device([count.clusters for count in counts], hidden.device)
    present = torch.arange(most_merged, device=hidden.device) < merged
    states = hidden.gather(1, tokens.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])).float()
    distances = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist") / states.shape[-1] ** 0.5
    centres = _centres(distances, present, clusters)[:, : max(count.clusters for count in counts)]
    owner = tokens.gather(1, _nearest(distances, centres, clusters))
    # Entries without a token write into one column more, which is cut off.
    padded = torch.cat([own, own.new_zeros(len(own), 1)], dim=1)
    return padded.scatter(1, tokens.masked_fill(~present, own.shape[1]), owner)[:, :-1]


def _centres(distances: Tensor, present: Tensor, clusters: Tensor) -> Tensor:
    """Return all entries, those that make the best centers first, [I, M] int64."""
    between = present.unsqueeze(1) & present.unsqueeze(2)
    nearest = distances.masked_fill(~between, float("inf")).sort(dim=-1).values
    counted = torch.arange(nearest.shape[-1], device=nearest.device) < clusters.unsqueeze(-1)
    near = torch.where(counted & nearest.isfinite(), nearest, 0.0).square().sum(dim=-1)
    density = (-near / clusters.clamp_min(1)).exp()
    # Each other's nearest neighbors are equally dense when two are counted: the earlier is taken as the denser, so
    # that only one of them can be a center.
    order = torch.arange(density.shape[1], device=density.device)
    earlier = order.unsqueeze(0) < order.unsqueeze(1)
    ties = (density.unsqueeze(1) == density.unsqueeze(2)) & earlier
    denser = between & ((density.unsqueeze(1) > density.unsqueeze(2)) | ties)
    farthest = torch.where(between, distances, 0.0).amax(dim=(1, 2)).view(-1, 1, 1)
    to_denser = torch.where(denser, distances, farthest).amin(dim=-1)
    peaks = (to_denser * density).masked_fill(~present, float("-inf"))
    return peaks.argsort(dim=1, descending=True, stable=True)


def _nearest(distances: Tensor, centres: Tensor, clusters: Tensor) -> Tensor:
    """Return each entry's nearest center, [I, M] int64; a center's is itself, even if another lies in one place."""
    to_centres = distances.gather(2, centres.unsqueeze(1).expand(-1, distances.shape[1], -1))
    itself = torch.arange(distances.shape[1], device=distances.device).view(1, -1, 1) == centres.unsqueeze(1)
    used = torch.arange(centres.shape[1], device=centres.device) < clusters
    to_centres = to_centres.masked_fill(itself, -1.0).masked_fill(~used.unsqueeze(1), float("inf"))
    return centres.gather(1, to_centres.argmin(dim=2))


def _on_device(values: Sequence[int], device: torch.device) -> Tensor:
    """Return host integers as a column, [I, 1] int64."""
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True).unsqueeze(1)
