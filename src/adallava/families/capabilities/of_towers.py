"""What a family's vision tower may do besides `encode`: give attention, take one more token, small pictures, words."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.family_contract import Family, TextTower, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.selection.selector_contract import AskedAttention, Need


@runtime_checkable
class HasTextTower(Protocol):
    """The text half that its vision tower was trained with can be added to it."""

    def load_text_tower(self, folder_or_id: str) -> TextTower:
        """Load it from a checkpoint that fits the vision tower.

        Raises:
            CheckpointError: if its files are missing or damaged, or it does not fit.
        """
        ...


def load_text_tower(family: Family, folder_or_id: str) -> TextTower:
    """Load the text half of a checkpoint that fits the vision tower.

    Raises:
        UnsupportedModeError: for a family that takes none.
        CheckpointError: if its files are missing or damaged, or it does not fit.
    """
    if not isinstance(family, HasTextTower):
        raise UnsupportedModeError(f"models of type {family.name!r} take no text tower: choose another method")
    return family.load_text_tower(folder_or_id)


@runtime_checkable
class ReadsAttention(Protocol):
    """What patches receive of attention in the tower's layers is known, with or without a class token."""

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower as `encode` does, and give `attention_received`.

        Args:
            pictures: as for `encode`.
            asked: the layers.
            needs: as for `encode`.
        """
        ...


def with_attention(
    family: Family, pictures: PictureInputs, asked: Sequence[AskedAttention], needs: Collection[Need]
) -> VisionFeatures:
    """Run the tower, and give what patches receive of attention.

    Raises:
        UnsupportedModeError: for a family that cannot tell.
    """
    if not isinstance(family, ReadsAttention):
        raise UnsupportedModeError(f"models of type {family.name!r} give no attention: choose another method")
    return family.encode_with_attention(pictures, asked, needs=needs)


@runtime_checkable
class ReadsBudgetToken(Protocol):
    """One more token can pass through the tower."""

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images, by their numbers."""
        ...

    def encode_with_token(self, pictures: PictureInputs, budget_token: Tensor) -> VisionFeatures:
        """Run the tower with a token, [I, C], at the end of its input; `budget_features` are what comes out there."""
        ...


def with_budget_token(family: Family, pictures: PictureInputs, budget_token: Tensor) -> VisionFeatures:
    """Run the tower with a budget token, [I, C].

    Raises:
        UnsupportedModeError: for a family, or a tower, that takes none.
    """
    if not isinstance(family, ReadsBudgetToken):
        raise UnsupportedModeError(f"models of type {family.name!r} take no budget token: choose another method")
    return family.encode_with_token(pictures, budget_token)


@runtime_checkable
class ResizesPictures(Protocol):
    """The tower takes smaller pictures than it was trained with."""

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images, by their numbers."""
        ...

    def encode_resized(self, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
        """Run the tower on pictures resized to (rows, columns) of patches."""
        ...


def resized(family: Family, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
    """Run the tower on pictures resized to (rows, columns) of patches.

    Raises:
        UnsupportedModeError: for a family whose pictures cannot be resized.
    """
    if not isinstance(family, ResizesPictures):
        raise UnsupportedModeError(f"models of type {family.name!r} take no resized image: choose another method")
    return family.encode_resized(pictures, grid)


def some_pictures(family: Family, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
    """Return the pictures of some images, by their numbers, for a family that takes a budget token or resizes."""
    assert isinstance(family, ReadsBudgetToken | ResizesPictures)
    return family.some_pictures(pictures, images)


@runtime_checkable
class AlignsPatches(Family, Protocol):
    """Tower and projector can learn words before the LLM ever runs: the training stage `align`."""

    def project_with_summary(self, pictures: PictureInputs) -> tuple[Tensor, Tensor | None]:
        """Return each patch and the class token as the LLM would read them, [I, N, D] and [I, D], of the last layer.

        None for a tower without a class token. All pictures have as many patches.
        """
        ...

    def scale_projector(self, factor: Tensor) -> None:
        """Multiply all that the projector puts out, in place, by one number, []."""
        ...


def aligning(family: Family) -> AlignsPatches:
    """Return the family as one whose patches can be aligned with words.

    Raises:
        UnsupportedModeError: if they cannot.
    """
    if not isinstance(family, AlignsPatches):
        raise UnsupportedModeError(
            f"stage 'align' trains tower and projector apart from the LLM, which models of type {family.name!r} do not "
            "allow: start from one of another family"
        )
    return family
