"""What a processor made of a batch's pictures, on its way to the family that reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adallava.errors import InputError


@dataclass(frozen=True)
class PictureInputs:
    """The pictures of a batch. What is in it, and which part is whose, only a family knows; the rest hands it on.

    Attributes:
        pixel_values: as the processor makes them: a row for each picture, or for each patch, or for each sample.
        beside: what else the processor gave of the pictures, by its names, on the host: it is read to plan, before
            anything runs.
    """

    pixel_values: Tensor
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, pixel_values: Tensor | None, **beside: Tensor | None) -> "PictureInputs | None":
        """Return what a caller gave by name; None without pictures.

        Raises:
            InputError: for what belongs to pictures that are not there.
        """
        given = {name: tensor for name, tensor in beside.items() if tensor is not None}
        if pixel_values is None:
            for name in given:
                raise InputError(f"{name} without pixel_values: give both, or neither")
            return None
        return cls(pixel_values, {name: tensor.cpu() for name, tensor in given.items()})

    def to(self, target: torch.device | torch.dtype) -> "PictureInputs":
        """Return them with the pixels on a device, or of a type."""
        return replace(self, pixel_values=self.pixel_values.to(target))
