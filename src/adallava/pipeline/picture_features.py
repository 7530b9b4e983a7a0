"""What the tower made of a batch's pictures, kept between calls that choose from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch

from adallava.errors import InputError
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.call import Request
from adallava.pipeline.prepare import tower_output
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import AttentionMethod


@dataclass(frozen=True)
class PictureFeatures:
    """The tower's output for the pictures of a batch, as one method reads it.

    Attributes:
        pictures: that the tower saw.
        read_by: what the method reads of the tower's layers.
        vision: the output; None for a method whose tower sees another picture, or more, at each budget.
    """

    pictures: PictureInputs
    read_by: tuple[object, ...]
    vision: VisionFeatures | None

    @property
    def num_bytes(self) -> int:
        """Memory that the output takes, on the model's device."""
        return sum(tensor.nbytes for tensor in _tensors(self.vision))

    def of(self, selector: AnySelector | None, pictures: PictureInputs | None) -> VisionFeatures | None:
        """Return the output for a call.

        Raises:
            InputError: if the call has other pictures, or the method reads something else of the tower.
        """
        if self.read_by != _read_by(selector):
            raise InputError(
                "features were made for a method that reads something else of the tower: encode them again"
            )
        if pictures is None or not _are_same(self.pictures, pictures):
            raise InputError("features belong to other images than pixel_values: encode them again")
        return self.vision


def encode_pictures(family: Family, selector: AnySelector | None, request: Request) -> PictureFeatures:
    """Run the tower on the pictures of a request.

    Raises:
        InputError: for a request without pictures.
    """
    if request.pictures is None:
        raise InputError("there is nothing to encode without images: give pixel_values")
    vision = tower_output(family, selector, request.to(family.device))
    return PictureFeatures(request.pictures, _read_by(selector), vision)


def _are_same(one: PictureInputs, other: PictureInputs) -> bool:
    """Return whether pixels and what comes with them are equal: blank images of two shapes may have equal patches."""
    mine, theirs = ({"pixel_values": all_.pixel_values, **all_.beside} for all_ in (one, other))
    return mine.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name].to(value.device)) for name, value in mine.items()
    )


def _read_by(selector: AnySelector | None) -> tuple[object, ...]:
    needs: Sequence[object] = () if selector is None else sorted(selector.needs)
    asked = tuple(selector.asked_attention) if isinstance(selector, AttentionMethod) else ()
    return (*needs, *asked)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _tensors(getattr(value, part.name))
