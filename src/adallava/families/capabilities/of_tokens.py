"""What a family may say of tokens: what travels with them, in which order they are, whether they are patches."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from adallava.families.family_contract import Family
from adallava.families.picture_inputs import PictureInputs


@runtime_checkable
class GivesCompanions(Protocol):
    """Tokens carry more into the LLM than a count of their place: several rows of positions, say, or types.

    Attributes:
        token_inputs: what its processor gives of each token besides ids and mask, by name. `companions` makes it again,
            from ids that are what this call makes of them; what a caller gives is not read.
    """

    token_inputs: ClassVar[tuple[str, ...]]

    def companions(
        self, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
    ) -> Mapping[str, Tensor]:
        """Return what each token of the full prompts carries, [B, L] or [R, B, L] int64, by the LLM's arguments.

        On the host. What is called `position_ids`, [R, B, L], takes the place of the count.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L], or None.
            pictures: of all prompts, or None.
        """
        ...


def companions_of(
    family: Family, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
) -> Mapping[str, Tensor]:
    """Return what each token of the full prompts carries besides its place; nothing, for most families."""
    return family.companions(input_ids, attention_mask, pictures) if isinstance(family, GivesCompanions) else {}


@runtime_checkable
class HasPositionRows(GivesCompanions, Protocol):
    """The LLM reads several rows of positions, and before them one that counts the tokens that are there."""

    def recounted(self, rows: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Return the rows counted again over what is left, [R, B, Lc]: of everything, they are the rows themselves.

        Args:
            rows: [R, B, Lc], as they were.
            images: [B, Lc] int64, the number of each vision token's image; -1 for others.
            steps: [B, Lc] int64, 1 for a token that others read; 0 for a hidden one, and padding.
        """
        ...


@runtime_checkable
class ScattersTokens(Protocol):
    """There may be text between the placeholders of an image, or their order may differ from its grid's."""

    def placeholder_orders(self, pictures: PictureInputs) -> tuple[Tensor | None, ...]:
        """Return for each image which of its placeholders belongs to each of its tokens, [N] int64, on the host.

        Placeholders are counted in the order of the prompt. None for an image whose placeholders are in order.
        """
        ...


def placeholder_orders(family: Family, pictures: PictureInputs) -> tuple[Tensor | None, ...] | None:
    """Return for each image which placeholder belongs to each of its tokens; None if each image's are in one run."""
    return family.placeholder_orders(pictures) if isinstance(family, ScattersTokens) else None


@runtime_checkable
class MayLackGrid(Protocol):
    """The features of an image may be others than the grid of its patches, as the config of a model says."""

    @property
    def no_grid(self) -> str | None:
        """Why they are; None if each feature is a patch of the grid, over which methods choose."""
        ...


def why_no_grid(family: Family) -> str | None:
    """Return why the features of an image are not the grid of its patches; None if they are."""
    return family.no_grid if isinstance(family, MayLackGrid) else None
