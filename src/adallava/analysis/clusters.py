"""Samples that share an image are not independent: what is flipped, resampled and halved is the image."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adallava.records.sample import PICTURES_JOINED

FEW = 40
"""Below so many images of equal weight Student's t takes the bootstrap's place (Cameron, Gelbach & Miller 2008, The
Review of Economics and Statistics 90: with few clusters normal limits are too narrow)."""


@dataclass(frozen=True)
class Clusters:
    """Which samples share an image.

    Attributes:
        of_samples: number of each sample's image, [samples]; 0 to images - 1, in order of first appearance.
    """

    of_samples: NDArray[np.intp]

    @classmethod
    def distinct(cls, num_samples: int) -> "Clusters":
        """Return samples on as many images."""
        return cls(np.arange(num_samples))

    @classmethod
    def by_picture(cls, sample_ids: Sequence[str], pictures: Mapping[str, str | None]) -> "Clusters":
        """Return samples grouped by image; one whose image is not known is a group of its own.

        Samples with several images are in one group if they share any, or each shares one with a third.
        """
        groups: dict[Hashable, Hashable] = {}

        def group_of(key: Hashable) -> Hashable:
            """Return the key of the group of a sample or picture, and shorten the way for the next look."""
            while (above := groups.setdefault(key, key)) != key:
                groups[key] = key = groups[above]
            return key

        firsts: list[Hashable] = []
        for sample_id in sample_ids:
            known = pictures.get(sample_id)
            own: list[Hashable] = [("", sample_id)] if not known else [*known.split(PICTURES_JOINED)]
            for key in own[1:]:
                groups[group_of(key)] = group_of(own[0])
            firsts.append(own[0])
        keys = [group_of(key) for key in firsts]
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return cls(np.array([number[key] for key in keys], dtype=np.intp))

    @property
    def num_samples(self) -> int:
        """Samples."""
        return len(self.of_samples)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Samples of each image, [images]."""
        return np.bincount(self.of_samples).astype(np.float64)

    @property
    def num(self) -> int:
        """Images."""
        return len(self.sizes)

    @property
    def shared(self) -> bool:
        """Whether any two samples share an image."""
        return self.num < self.num_samples

    @cached_property
    def effective(self) -> float:
        """How many images of equal size weigh as much (Carter, Schnepel & Steigerwald 2017, same journal 99)."""
        return float(np.square(self.sizes.sum()) / np.square(self.sizes).sum()) if self.num else 0.0

    @property
    def few(self) -> bool:
        """Whether samples share too few images for resampling them."""
        return self.shared and self.effective < FEW

    def among(self, samples: NDArray[np.bool_]) -> "Clusters":
        """Return the same of some samples."""
        _, first, number = np.unique(self.of_samples[samples], return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.intp)
        rank[np.argsort(first)] = np.arange(len(first))
        return Clusters(rank[number])

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over each image's samples: [..., samples] to [..., images]."""
        if not self.shared:
            return values
        order = np.argsort(self.of_samples, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.sizes[:-1])]).astype(np.intp)
        # Rounded, so that thirds which sum to a whole are one.
        return np.asarray(np.round(np.add.reduceat(values[..., order], starts, axis=-1), 12), dtype=np.float64)

    def mean_variance(self, values: NDArray[np.float64]) -> float:
        """Return the variance of the mean of values, [samples], by the sums over images.

        Each image's squared residual counts 1 / (1 - its share of the samples) times: CR2 of Bell & McCaffrey (2002,
        Survey Methodology 28) for a mean, which is the factor G / (G - 1) where images have equally many samples.
        Infinite for one image.
        """
        if self.num < 2:
            return float("inf")
        residuals = self.sums(values) - self.sizes * values.mean()
        return float((np.square(residuals) / (1.0 - self.sizes / self.num_samples)).sum() / self.num_samples**2)

    @property
    def degrees_of_freedom(self) -> float:
        """Of that variance."""
        return max(1.0, self.effective - 1.0)
