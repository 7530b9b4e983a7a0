"""What the rest of the package needs of a model family. All else about it stays in the family's file."""

from collections.abc import Callable
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

    def decoder(self) -> "DecoderLayers":
        """Return the LLM's layers, for methods inside the LLM.

        Raises:
            UnsupportedModeError: for an LLM whose layers are not known.
        """
        ...


class AroundLayer(Protocol):
    """What a view calls in place of each decoder layer."""

    def __call__(self, index: int, layer: Callable[..., Tensor], hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Return what layer `index` passes on.

        Args:
            index: of the layer.
            layer: the stock layer: `layer(hidden, **kwargs)` is what the stock model would have run.
            hidden: [B, S, D].
            kwargs: the stock model's own, among them `attention_mask`, `position_embeddings`, `position_ids` and
                `past_key_values`.
        """
        ...


class DecoderLayers(Protocol):
    """An LLM's decoder layers, to be driven one by one. See `families/decoder.py`."""

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        ...

    def view(self, around: AroundLayer) -> Any:
        """Return a model for one call, with `around` in place of each layer."""
        ...

    def attention(
        self,
        layer: int,
        hidden: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *,
        samples: Tensor,
        places: Tensor,
        padding_mask: Tensor,
    ) -> Tensor:
        """Return where the tokens at `places`, [I, R], look in one layer, averaged over heads, [I, R, S]."""
        ...

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None, past_key_values: Any) -> Tensor | None:
        """Return the mask for queries `hidden` at the length of one layer's own cache."""
        ...

    def position_embeddings(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary cosines and sines of positions [B, S]."""
        ...
