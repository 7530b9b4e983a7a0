"""Qwen3-VL: native image size; features of some tower layers also enter the LLM's first layers (deepstack)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adallava.families.family_contract import VisionFeatures
from adallava.families.qwen_vl_parts import QwenVLParts, UnitFeatures


class Qwen3VLFamily(QwenVLParts):
    """Drives a stock `Qwen3VLForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "qwen3_vl"
    transformers_class = "Qwen3VLForConditionalGeneration"
    processor_name = "Qwen3VLProcessor"

    @property
    def _side_order(self) -> Sequence[int]:
        """By the layer of the tower that each reads."""
        layers = list(self._visual.deepstack_visual_indexes)
        return [layers.index(layer) for layer in sorted(layers)]

    def _side_merger(self, level: int) -> Any:
        return self._visual.deepstack_merger_list[self._side_order[level]]

    def side_rows(self, level: int, features: Tensor) -> Tensor:
        """Return what is added after layer `level` of the LLM, [I, K, D]; see `AddsRows`."""
        return self._merged(self._side_merger(level), features)

    def all_side_rows(self, vision: VisionFeatures) -> Mapping[int, Tensor]:
        """Return what is added for every token, [I, N, D] by layer: all pictures at once, as the stock model does."""
        assert isinstance(vision, UnitFeatures)
        return {
            level: self._side_merger(level)(read)[vision.order][vision.places]
            for level, read in enumerate(vision.level_reads)
        }


class Qwen3VLMoeFamily(Qwen3VLFamily):
    """The same with a mixture of experts in the LLM: a stock `Qwen3VLMoeForConditionalGeneration`."""

    name = "qwen3_vl_moe"
    transformers_class = "Qwen3VLMoeForConditionalGeneration"
