"""What the rest of the package needs of a model family. All else about it stays in the family's file."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from adallava.selection.contract import TowerShape


@dataclass(frozen=True)
class VisionFeatures:
    """The tower's output for I images.

    Attributes:
        features: [I, N, C], the patches, before the projector.
        budget_features: [I, C], the output at the budget token, if one went in.
    """

    features: Tensor
    budget_features: Tensor | None


class Family(Protocol):
    """One loaded model of a family, driven stage by stage."""

    @property
    def model(self) -> Any:
        """The stock transformers model, whose `generate` and `forward` run the LLM."""
        ...

    @property
    def shape(self) -> TowerShape:
        """N, C, D and the grid."""
        ...

    @property
    def image_token_id(self) -> int:
        """The id that stands for one vision token in a prompt."""
        ...

    @property
    def pad_token_id(self) -> int:
        """The id that padding is written with; any id, since padding is masked."""
        ...

    @property
    def device(self) -> torch.device:
        """The one device that all parameters are on."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating-point type."""
        ...

    def encode(self, pixel_values: Tensor, budget_token: Tensor | None = None) -> VisionFeatures:
        """Run the tower on [I, 3, H, W]; with `budget_token`, [I, C], appended to its input."""
        ...

    def project(self, features: Tensor) -> Tensor:
        """Map tower features, [I, K, C], to the LLM's input, [I, K, D]."""
        ...

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Return the LLM's input embeddings of token ids, [..., D]."""
        ...
