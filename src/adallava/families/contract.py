"""What the rest of the package needs of a model family. All else about it stays in the family's file."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.layer_inputs import LayerInputs
from adallava.families.picture_inputs import PictureInputs
from adallava.scheduling.contract import DecoderShape, Scheduler
from adallava.selection.contract import Need, TextTowerMethod, TowerLayer, TowerShape
from adallava.selection.layer_contract import AnySelector, LayerSelector

_TOWER_NEEDS = (Need.CLS_TOKEN, Need.FEATURE_LAYER, Need.LAST_LAYER)
"""Read off the stock tower's states."""


@dataclass(frozen=True)
class VisionFeatures:
    """The tower's output for I images.

    Attributes:
        features: [I, N, C] contiguous, the patches, before the projector; N of the largest image, what is behind an
            image's own N is never read.
        budget_features: [I, C], the output at the budget token, if one went in.
        feature_layer: of the layer that puts out the features, if asked for.
        last_layer: of the tower's last layer, if asked for.
        unprojected: what the stock projector reads, laid out in memory as the stock model does; see `project_all`.
            None where the tower was not run as the stock model runs it.
    """

    features: Tensor
    budget_features: Tensor | None = None
    feature_layer: TowerLayer | None = None
    last_layer: TowerLayer | None = None
    unprojected: Tensor | None = None


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
    """

    name: ClassVar[str]
    transformers_class: ClassVar[str]

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

    @property
    def provides(self) -> frozenset[Need]:
        """What this model can give to a method."""
        ...

    @property
    def one_grid(self) -> bool:
        """True if every picture has the grid and the tokens of `shape`."""
        ...

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return (rows, columns) of each image's tokens; N = rows * columns placeholders stand for it in a prompt.

        On the host, from shapes alone. An image is what is selected from: a family may show one picture as several.

        Args:
            pictures: P of them.

        Raises:
            InputError: if something is given beside the pixels that the family does not read, or is missing that it
                needs.
        """
        ...

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return how many pictures go through the tower for each image: 1, or as many as it has tiles.

        On the host, from shapes alone.

        Args:
            pictures: P of them.
        """
        ...

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return what each image's tokens look at, to be drawn on: [3, rows * P, columns * P], P pixels a patch.

        Args:
            pictures: P of them. A token that is no patch has zeros.
        """
        ...

    def encode(
        self,
        pictures: PictureInputs,
        budget_token: Tensor | None = None,
        *,
        needs: Collection[Need] = (),
        grid: tuple[int, int] | None = None,
    ) -> VisionFeatures:
        """Run the tower.

        Args:
            pictures: P of them.
            budget_token: [I, C], appended to the tower's input.
            needs: what a method reads of the tower's layers; the rest is not computed.
            grid: of the patches of a picture that is resized first; None = as the model was trained.
        """
        ...

    def load_text_tower(self, folder_or_id: str) -> TextTower:
        """Load the text half of a CLIP checkpoint that fits the vision tower.

        Raises:
            CheckpointError: if its files are missing or damaged, or it does not fit.
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

    def decoder(self) -> "DecoderLayers":
        """Return the LLM's layers, for methods inside the LLM.

        Raises:
            UnsupportedModeError: for an LLM whose layers are not known.
        """
        ...


RunLayer = Callable[[Tensor, LayerInputs], Tensor]
"""Runs a decoder layer on hidden states, [B, S, D], and what it reads beside them."""


class AroundLayer(Protocol):
    """What a view calls in place of each decoder layer."""

    def __call__(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Return what layer `index` passes on.

        Args:
            index: of the layer.
            layer: the stock layer: `layer(hidden, inputs)` is what the stock model would have run.
            hidden: [B, S, D].
            inputs: what the stock model would have given it beside them.
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

    def check_splittable(self) -> None:
        """Raise `UnsupportedModeError` for layers that cannot be split into groups of heads."""
        ...

    def run_groups(
        self,
        layer: int,
        hidden: Tensor,
        inputs: LayerInputs,
        rows: Sequence[Tensor],
        gates: Tensor | None = None,
        mlp_rows: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return what a layer passes on of which each row runs only some groups of heads."""
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

    def attention_shares(self, layer: int, hidden: Tensor, position_ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """Return where the tokens at `rows`, [R, 2] (sample, place), look in one layer by a mask, [R, heads, S]."""
        ...

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None, cache: Any) -> Tensor | None:
        """Return the mask for queries `hidden` at the length of one layer's own cache."""
        ...

    def position_embeddings(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary cosines and sines of positions [B, S]."""
        ...


def check_needs(family: Family, selector: AnySelector, model_name: str = "") -> None:
    """Refuse a method that needs what the model lacks, before anything runs.

    Raises:
        UnsupportedModeError: naming the method, what it needs, and what to do; of a method inside the LLM, also for an
            LLM whose layers are not known, or are too few.
    """
    no_grid = getattr(family, "no_grid", None)
    if no_grid is not None:
        raise UnsupportedModeError(
            f"method {selector.name!r} chooses among patches, and {no_grid}: method 'full' alone runs this model"
        )
    if not isinstance(selector.needs, frozenset | set) or not all(isinstance(need, Need) for need in selector.needs):
        raise UnsupportedModeError(
            f"method {selector.name!r} has needs={selector.needs!r}: give a frozenset of selection.contract.Need"
        )
    missing = sorted(selector.needs - family.provides)
    where = f"the model {model_name!r}" if model_name else "this model"
    if missing:
        raise UnsupportedModeError(
            f"method {selector.name!r} needs {', '.join(missing)}, which {where} does not have "
            f"(its tower is of type {_tower_type(family)!r}): choose another method"
        )
    if Need.BUDGET_TOKEN in selector.needs and selector.needs & {*_TOWER_NEEDS, Need.RESIZED_PICTURE}:
        raise UnsupportedModeError(
            f"method {selector.name!r} needs a budget token together with {', '.join(sorted(selector.needs))}: "
            "a tower with a budget token gives nothing but its features"
        )
    if isinstance(selector, TextTowerMethod) and Need.TEXT_TOWER in selector.needs and selector.text_tower is None:
        raise UnsupportedModeError(
            f"method {selector.name!r} compares patches with the question through a CLIP text tower, which {where} "
            "does not have: give the folder or hub id of the CLIP checkpoint that its vision tower came from "
            f"(text_tower=…, or --method-option {selector.name}.text_tower=…), or choose another relevance "
            "(see docs/methods.md)"
        )
    if isinstance(selector, LayerSelector):
        _check_layers(family, selector)


def check_scheduler(family: Family, scheduler: Scheduler) -> None:
    """Refuse a scheduler that cannot split the model's LLM, before anything runs.

    Raises:
        UnsupportedModeError: naming what stands in the way.
    """
    decoder = family.decoder()
    if scheduler.units(decoder.shape).groups > 1:
        decoder.check_splittable()


def _check_layers(family: Family, selector: LayerSelector) -> None:
    """Refuse an LLM with too few layers now, not at the first answer."""
    num_tokens = family.shape.num_vision_tokens
    selector.schedule(family.decoder().num_layers, num_tokens, num_tokens)


def _tower_type(family: Family) -> str:
    config = getattr(family.model.config, "vision_config", None)
    return str(getattr(config, "model_type", "unknown"))
