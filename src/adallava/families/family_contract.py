"""What the rest of the package needs of every model family: the core. What only some can do is in `capabilities`."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from adallava.families.layer_inputs import LayerInputs
from adallava.families.picture_inputs import PictureInputs
from adallava.scheduling.scheduler_contract import DecoderShape
from adallava.selection.selector_contract import Need, TowerLayer, TowerShape


@dataclass(frozen=True)
class VisionFeatures:
    """The tower's output for I images.

    Attributes:
        features: [I, N, C] contiguous, the patches, before the projector; N of the largest image, what is after an
            image's own N is never read.
        budget_features: [I, C], the output at the budget token, if one went in.
        attention_received: [I, N, A] float32 contiguous, of the A kinds that were asked for; see `ReadsAttention`.
        feature_layer: of the layer that puts out the features, if asked for.
        last_layer: of the tower's last layer, if asked for.
        unprojected: what the stock projector reads, laid out in memory as the stock model does; see `project_all`.
            None where the tower was not run as the stock model runs it.
        levels: what is added after layers of the LLM is made from, [I, N, C] by layer; see `AddsRows`.
    """

    features: Tensor
    budget_features: Tensor | None = None
    attention_received: Tensor | None = None
    feature_layer: TowerLayer | None = None
    last_layer: TowerLayer | None = None
    unprojected: Tensor | None = None
    levels: Mapping[int, Tensor] = field(default_factory=dict)


class TextTower(Protocol):
    """The text half of the CLIP model that a vision tower came from."""

    def relevance(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the cosine of each token with its image's question, [I, N] float32, see `SelectionInput`.

        Args:
            features: [I, N, C], the tower's output.
            questions: one per image.
        """
        ...

    def flops(self, question: str, num_vision_tokens: int) -> int:
        """Return the matrix products for one image of N patches with a question."""
        ...


class Family(Protocol):
    """One loaded model of a family, driven stage by stage.

    Attributes:
        name: the `model_type` of its configs, under which it is registered.
        transformers_class: the name of transformers' class that loads it.
        picture_inputs: what its processor gives of pictures, by name, their pixels first.
    """

    name: ClassVar[str]
    transformers_class: ClassVar[str]
    picture_inputs: ClassVar[tuple[str, ...]]

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
        """The id of the placeholder of one vision token in a prompt."""
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

    @property
    def provides(self) -> frozenset[Need]:
        """What this model's tower can give to a method; a need that rests on a capability is met with that too."""
        ...

    @property
    def one_grid(self) -> bool:
        """True if every picture has the grid and the tokens of `shape`."""
        ...

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return (rows, columns) of each image's tokens; a prompt has N = rows * columns placeholders for it.

        On the host, from shapes alone. An image is what is selected from: a family may show one picture as several, and
        tokens that belong to no grid as one more, of one row.

        Args:
            pictures: as the processor made them.

        Raises:
            InputError: if something is given besides the pixels that the family does not read, or is missing that it
                needs.
        """
        ...

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower.

        Args:
            pictures: as the processor made them.
            needs: what a method reads of the tower's layers; the rest is not computed.
        """
        ...

    def project(self, features: Tensor) -> Tensor:
        """Map tower features, [I, K, C], to the LLM's input, [I, K, D]."""
        ...

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Return the LLM's input for every token, [I, N, D], to the stock model's bits.

        The bits of a product depend on the shape and the strides of what it reads: this reads the stock model's own.

        Args:
            vision: of `encode`, with `unprojected`.
        """
        ...

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Return the LLM's input embeddings of token ids, [..., D]."""
        ...

    def llm_of(self, model: Any) -> Any:
        """Return the LLM without its head, of the stock model or of a view of it; it is called on embeddings."""
        ...

    @property
    def num_llm_layers(self) -> int:
        """Layers of the LLM, of whatever kind it is."""
        ...


RunLayer = Callable[[Tensor, LayerInputs], Tensor]
"""Runs a decoder layer on hidden states, [B, S, D], and what it reads besides them."""


class AroundLayer(Protocol):
    """What a view calls in place of each decoder layer."""

    def __call__(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Return what layer `index` passes on.

        Args:
            index: of the layer.
            layer: the stock layer: `layer(hidden, inputs)` is what the stock model would have run.
            hidden: [B, S, D].
            inputs: what the stock model would have given it besides them.
        """
        ...


class ReorderCache(Protocol):
    """What beam search calls to put a cache's rows into the order of the beams that go on."""

    def __call__(self, cache: Any, beam_idx: Tensor) -> Any:
        """Return the cache with row i taken from row `beam_idx[i]`, [rows] int64."""
        ...


class DecoderLayers(Protocol):
    """An LLM's decoder layers, to be driven one by one. See `families/decoder.py`."""

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        ...

    @property
    def shape(self) -> DecoderShape:
        """What decides how the LLM can be split."""
        ...

    def view(self, around: AroundLayer, reorder_cache: ReorderCache | None = None) -> Any:
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

    def key_norms(self, layer: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Return the L1 norms of all tokens' keys in one layer, [B, S]."""
        ...

    def last_norm(self, hidden: Tensor) -> Tensor:
        """Return hidden states after the norm that follows the last layer."""
        ...

    def attention_shares(self, layer: int, hidden: Tensor, position_ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """Return where the tokens at `rows`, [R, 2] (sample, place), look in one layer by a mask, [R, heads, S]."""
        ...

    def kind(self, layer: int) -> Hashable:
        """Return what a layer shares with those that read the same mask and rotary tables."""
        ...

    @property
    def is_mixed(self) -> bool:
        """Whether layers are of several kinds."""
        ...

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None, cache: Any) -> Tensor | None:
        """Return the mask for queries `hidden` at the length of one layer's own cache."""
        ...

    def position_embeddings(self, layer: int, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary cosines and sines of positions, [B, S] or [R, B, S], for one layer."""
        ...
