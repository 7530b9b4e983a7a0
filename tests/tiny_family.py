"""What tests know by hand of the family of a tiny model, told from its processor."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Grid = tuple[int, int]


class TinyFamily(NamedTuple):
    """One family's.

    Attributes:
        sizes: (width, height) of the pictures that its models are asked about, in turn.
        grids: of the images of each, alone in its prompt.
        together: of each in a prompt of several; None = as alone.
        lacks: methods that it refuses; its own test file says why.
        base: makes a random base, see `models.tiny_base`.
        rows: of `pixel_values` that each picture has; None = one.
    """

    sizes: Sequence[tuple[int, int]]
    grids: Sequence[tuple[Grid, ...]]
    base: Callable[..., Any]
    lacks: tuple[str, ...] = ()
    together: tuple[Grid, ...] | None = None
    rows: Sequence[int] | None = None


def tiny_family(processor: Any) -> TinyFamily:
    """Return the family that a processor belongs to."""
    import tiny_gemma3
    import tiny_idefics3
    import tiny_internvl
    import tiny_mistral3
    import tiny_next
    import tiny_onevision

    known = {
        "Gemma3Processor": TinyFamily(
            tiny_gemma3.SIZES, tiny_gemma3.GRIDS, tiny_gemma3.tiny_gemma3_base, tiny_gemma3.LACKS
        ),
        "Idefics3Processor": TinyFamily(
            tiny_idefics3.SIZES, tiny_idefics3.GRIDS, tiny_idefics3.tiny_idefics3_base, tiny_idefics3.LACKS
        ),
        "LlavaNextProcessor": TinyFamily(
            tiny_next.NEXT_SIZES, tiny_next.NEXT_GRIDS, tiny_next.tiny_next_base, tiny_next.NEXT_LACKS
        ),
        "InternVLProcessor": TinyFamily(
            tiny_internvl.SIZES,
            [((4, 4),) * tiles for tiles in tiny_internvl.TILES],
            tiny_internvl.tiny_internvl_base,
            ("budget-token",),
            rows=tiny_internvl.TILES,
        ),
        "PixtralProcessor": TinyFamily(
            tiny_mistral3.SIZES, tiny_mistral3.GRIDS, tiny_mistral3.tiny_mistral3_base, tiny_mistral3.LACKS
        ),
        "LlavaOnevisionProcessor": TinyFamily(
            tiny_onevision.SIZES,
            tiny_onevision.GRIDS,
            tiny_onevision.tiny_onevision_base,
            tiny_onevision.LACKS,
            together=((4, 4), (1, 1)),
        ),
    }
    name = type(processor).__name__
    return _qwen(name) if name.startswith("Qwen") else known.get(name, _llava())


def _llava() -> TinyFamily:
    import models

    return TinyFamily([(28, 28)], [((4, 4),)], models.tiny_base)


def _qwen(name: str) -> TinyFamily:
    import pytest
    import tiny_qwen

    kind = {"Qwen2VLProcessor": "qwen2_vl", "Qwen2_5_VLProcessor": "qwen2_5_vl"}.get(name, "qwen3_vl")

    def base(**options: Any) -> Any:
        if "llm" in options:
            pytest.skip("its LLM is its own")
        return tiny_qwen.tiny_qwen_base(kind, **options)

    return TinyFamily(tiny_qwen.QWEN_SIZES, [(grid,) for grid in tiny_qwen.QWEN_GRIDS], base, tiny_qwen.QWEN_LACKS)
