"""What a family's LLM may do: be driven layer by layer or head by head, add rows, have windows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.family_contract import DecoderLayers, Family, VisionFeatures
from adallava.families.layer_inputs import LayerInputs


@runtime_checkable
class DrivesDecoder(Protocol):
    """The LLM's layers can be driven one by one: for methods inside the LLM, and schedules."""

    def decoder(self) -> DecoderLayers:
        """Return them.

        Raises:
            UnsupportedModeError: for an LLM whose layers are not known.
        """
        ...


def decoder_of(family: Family) -> DecoderLayers:
    """Return the LLM's layers.

    Raises:
        UnsupportedModeError: for a family, or an LLM, whose layers are not known.
    """
    if not isinstance(family, DrivesDecoder):
        raise UnsupportedModeError(
            f"methods inside the LLM and schedulers cannot see the layers of models of type {family.name!r}: choose a "
            "method that selects before the LLM"
        )
    return family.decoder()


@runtime_checkable
class SplitsHeads(Protocol):
    """Decoder layers that can run some groups of their heads only."""

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
        """Return what a layer passes on if each row runs only some of its groups of heads; see `head_groups`."""
        ...


def head_groups_of(decoder: DecoderLayers) -> SplitsHeads:
    """Return the layers as ones whose groups of heads can be run alone.

    Raises:
        UnsupportedModeError: if they cannot.
    """
    if not isinstance(decoder, SplitsHeads):
        raise UnsupportedModeError(
            "this model's layers cannot be split into groups of heads: choose a scheduler of whole layers"
        )
    return decoder


@runtime_checkable
class AdaptsGenerate(Protocol):
    """The stock class has a `generate` that must be given embeddings by name."""

    def generating(self, model: Any) -> Any:
        """Return the stock model, or a view of it, as one whose `generate` takes embeddings. Good for one call."""
        ...


def generating(family: Family, model: Any) -> Any:
    """Return the stock model, or a view of it, as one whose `generate` takes embeddings; for most families itself."""
    return family.generating(model) if isinstance(family, AdaptsGenerate) else model


@runtime_checkable
class MayHaveWindows(Protocol):
    """Some layers of the LLM may see the last so many tokens alone."""

    @property
    def window_tokens(self) -> int | None:
        """The narrowest window; None if every token sees all before it."""
        ...


def window_tokens(family: Family) -> int | None:
    """Return the narrowest sliding window among the LLM's layers; None if there is none."""
    return family.window_tokens if isinstance(family, MayHaveWindows) else None


def window_note(family: Family) -> str | None:
    """Return, in words, how windows count where tokens are dropped; None for an LLM without windows."""
    window = window_tokens(family)
    if window is None:
        return None
    return (
        f"the LLM's sliding windows of {window} tokens count the tokens that are kept: where prompt and answer would "
        "be longer with every vision token, dropped tokens are not the same as masked ones"
    )


@runtime_checkable
class ReadsAhead(Protocol):
    """Some tokens read others after them, such as those of their own image, by masks that the stock model makes."""

    reads_ahead: ClassVar[bool]


def reads_ahead(family: Family) -> bool:
    """Return whether some tokens read others after them."""
    return isinstance(family, ReadsAhead) and family.reads_ahead


@runtime_checkable
class AddsRows(Protocol):
    """Rows made of the vision tokens are added to their states after some of the LLM's layers: deepstack.

    `VisionFeatures.levels` is what they are made from. The family drives its decoder, too.
    """

    def side_rows(self, level: int, features: Tensor) -> Tensor:
        """Return what is added for features of one level, counted from 0: [I, K, C] to [I, K, D]."""
        ...

    def all_side_rows(self, vision: VisionFeatures) -> Mapping[int, Tensor]:
        """Return what is added for every token, [I, N, D] by layer, to the stock model's bits."""
        ...


def side_rows(family: Family) -> AddsRows:
    """Return the family as one that adds rows.

    Raises:
        UnsupportedModeError: if it gives levels, and does not say what is added for them.
    """
    if not isinstance(family, AddsRows):
        raise UnsupportedModeError(f"family {family.name!r} gives levels of features and has no `side_rows`")
    return family


def adds_rows(family: Family) -> bool:
    """Return whether rows are added after layers of the LLM, so that it runs in a view."""
    return isinstance(family, AddsRows)
