"""What a family may say of pictures: what its processor made of them, how the tower sees them, what is drawn."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities.of_tokens import GivesCompanions
from adallava.families.family_contract import Family
from adallava.families.picture_inputs import PictureInputs

_OF_PICTURES = {"pixel_values", "image_sizes", "batch_num_images", "image_grid_thw", "pixel_attention_mask"}
"""What processors make of pictures, of whatever family: not to be taken for an argument of `generate`."""

_OF_VIDEOS = {"pixel_values_videos", "image_sizes_videos", "video_grid_thw"}


def take_pictures(family: Family, given: Mapping[str, Any]) -> tuple[PictureInputs | None, dict[str, Any]]:
    """Return what a processor gave of the pictures, and what else was given; tokens' own inputs are made again.

    Args:
        family: whose processor it is.
        given: by name, `input_ids` among them; None is as if it were not given.

    Raises:
        InputError: for what belongs to pictures that are not there, or to those of other families.
    """
    pixels, *beside = family.picture_inputs
    rest = {name: value for name, value in given.items() if name not in family.picture_inputs}
    for name in (_OF_PICTURES | _OF_VIDEOS) & rest.keys():
        if rest.pop(name) is not None and name in _OF_VIDEOS:
            raise InputError(f"only images are supported, and {name} belongs to a video: give its frames as images")
        if given[name] is not None:
            raise InputError(f"models of type {family.name!r} take no {name}: give what their own processor makes")
    if isinstance(family, GivesCompanions):
        rest = {name: value for name, value in rest.items() if name not in family.token_inputs}
    pictures = PictureInputs.of(given.get(pixels), **{name: given.get(name) for name in beside})
    input_ids = rest.pop("input_ids", None)
    if pictures is not None and input_ids is not None and isinstance(family, ReadsPrompts):
        pictures = family.with_prompts(pictures, input_ids.cpu())
    return pictures, rest


@runtime_checkable
class ReadsPrompts(Protocol):
    """What its processor made of the pictures, it says in the prompts alone."""

    def with_prompts(self, pictures: PictureInputs, input_ids: Tensor) -> PictureInputs:
        """Return the pictures with what the prompts, [B, L], say of them besides their pixels. On the host.

        Raises:
            InputError: if prompts and pictures do not fit together.
        """
        ...


@runtime_checkable
class MakesUpPrompts(Protocol):
    """A picture in a prompt is more than placeholders, or the pictures alone do not say how many."""

    def made_up_ids(self, pictures: PictureInputs, num_prompts: int) -> list[int]:
        """Return the ids of one picture in a made-up prompt, one of `num_prompts` with pictures alike."""
        ...


def made_up_ids(family: Family, pictures: PictureInputs, num_prompts: int) -> list[int]:
    """Return the ids of one picture in a made-up prompt; for most families placeholders alone."""
    if isinstance(family, MakesUpPrompts):
        return family.made_up_ids(pictures, num_prompts)
    each = sum(rows * columns for rows, columns in family.grids(pictures)) // num_prompts
    return [family.image_token_id] * each


@runtime_checkable
class ShowsTiles(Protocol):
    """An image may be seen by the tower in several pictures."""

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return how many pictures go through the tower for each image. On the host, from shapes alone."""
        ...


def tower_runs(family: Family, pictures: PictureInputs) -> tuple[int, ...]:
    """Return how many pictures go through the tower for each image: 1, or as many as it has tiles."""
    return family.tower_runs(pictures) if isinstance(family, ShowsTiles) else (1,) * len(family.grids(pictures))


@runtime_checkable
class ShowsWhole(Protocol):
    """A picture may be several images, one of which shows all of it."""

    def whole_images(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return for each picture the number of the image that shows all of it. On the host, from shapes alone."""
        ...


def whole_images(family: Family, pictures: PictureInputs) -> tuple[int, ...]:
    """Return for each picture the number of the image that shows all of it; for most families each image is one."""
    if isinstance(family, ShowsWhole):
        return family.whole_images(pictures)
    return tuple(range(len(family.grids(pictures))))


@runtime_checkable
class ShowsPatches(Protocol):
    """What each token looks at can be drawn."""

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return what each image's tokens look at: [3, rows * P, columns * P], P pixels a patch.

        Args:
            pictures: as the processor made them. A token that is not a patch has zeros.
        """
        ...


def shown_patches(family: Family, pictures: PictureInputs) -> tuple[Tensor, ...]:
    """Return what each image's tokens look at, to be drawn on: [3, rows * P, columns * P], P pixels a patch.

    Raises:
        UnsupportedModeError: for a family that cannot tell.
    """
    if not isinstance(family, ShowsPatches):
        raise UnsupportedModeError(f"what the tokens of models of type {family.name!r} look at cannot be drawn")
    return family.pictures(pictures)
