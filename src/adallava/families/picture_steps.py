"""What transformers' image processors do to a picture: the classes whose steps are known, and what sets them apart."""

import copy
from dataclasses import dataclass
from typing import Any

from adallava.families.transformers_internals import pil_llava_processor_class

_PADDING = "LlavaImageProcessor"
_TILING = "LlavaNextImageProcessor"
_KNOWN = frozenset(("CLIPImageProcessor", _PADDING, _TILING, "SiglipImageProcessor"))
"""Seen in transformers 5.17, 5.23 and 5.24. `Pil` after the name is the same without torchvision."""

_SQUEEZING = frozenset(
    (
        *("Gemma3ImageProcessor", "GotOcr2ImageProcessor", "Idefics3ImageProcessor", "LlavaOnevisionImageProcessor"),
        *("PixtralImageProcessor", "Qwen2VLImageProcessor", "SmolVLMImageProcessor"),
    )
)
"""They change a picture's sides to fixed lengths, to whole tiles or whole tokens, and cut nothing off."""

_PADDING_SEVERAL = "LlavaOnevisionImageProcessor"
"""It pads to a square where a prompt has several pictures."""


@dataclass(frozen=True)
class PictureSteps:
    """A known kind of image processor.

    Attributes:
        pads_to_square: it pads to a square first.
        squeezes: it shows the whole in a square of a fixed side, whatever the picture's.
        shows_all: nothing is cut off, of no picture.
    """

    pads_to_square: bool
    squeezes: bool
    shows_all: bool = False


def picture_steps(settings: Any, num_pictures: int = 1) -> PictureSteps | None:
    """Return what an image processor does to the pictures of a prompt; None for one whose steps are not known."""
    kind = _kind(settings)
    if kind == _PADDING_SEVERAL and num_pictures > 1:
        return PictureSteps(pads_to_square=True, squeezes=True)
    if kind in _SQUEEZING:
        return PictureSteps(pads_to_square=False, squeezes=True, shows_all=True)
    if kind not in _KNOWN:
        return None
    # Others mean something else by do_pad.
    return PictureSteps(pads_to_square=kind == _PADDING and bool(settings.do_pad), squeezes=kind == _TILING)


def why_not_padded(settings: Any) -> str | None:
    """Return for whom, and why, an image processor cannot pad pictures to squares; None if it can."""
    if hasattr(settings, "image_grid_pinpoints"):
        return "LLaVA-NeXT: it shows each whole, in tiles that are padded already"
    if _kind(settings) not in _KNOWN:
        return f"{type(settings).__name__}: only for {', '.join(sorted(_KNOWN))}"
    return None


def pixel_limits(settings: Any) -> tuple[int, int] | None:
    """Return the least and the most pixels that a picture is scaled to; None for one that has sizes of its own."""
    if not _kind(settings).startswith("Qwen2VLImageProcessor"):
        return None
    return int(settings.size["shortest_edge"]), int(settings.size["longest_edge"])


def with_limits(settings: Any, least: int, most: int) -> Any:
    """Return the same image processor with other limits; its names for them are edges, and they are areas."""
    limited = copy.deepcopy(settings)
    limited.size = {"shortest_edge": least, "longest_edge": most}
    for name, value in (("min_pixels", least), ("max_pixels", most)):
        if getattr(limited, name, None) is not None:
            setattr(limited, name, value)
    return limited


def padding_processor(settings: Any, **own: Any) -> Any:
    """Return transformers' own image processor that can pad to squares.

    Args:
        settings: an image processor of a known kind; it is made with or without torchvision as this one.
        own: its settings.
    """
    if type(settings).__name__.endswith("Pil"):
        return pil_llava_processor_class()(**own)
    from transformers import LlavaImageProcessor

    return LlavaImageProcessor(**own)


def _kind(settings: Any) -> str:
    return type(settings).__name__.removesuffix("Pil")
