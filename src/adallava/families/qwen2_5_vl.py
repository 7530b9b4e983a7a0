"""Qwen2.5-VL: native image size; window attention in most layers of the tower."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from adallava.families.capabilities.of_classes import BlankShape
from adallava.families.picture_inputs import PictureInputs
from adallava.families.qwen_vl_parts import QwenVLParts


class Qwen25VLFamily(QwenVLParts):
    """Drives a stock `Qwen2_5_VLForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "qwen2_5_vl"
    transformers_class = "Qwen2_5_VLForConditionalGeneration"
    processor_name = "Qwen2_5_VLProcessor"
    blank_tokens: ClassVar[Mapping[str, str]] = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    blank_picture = "<|vision_start|><|image_pad|><|vision_end|>"

    def project_with_summary(self, pictures: PictureInputs) -> tuple[Tensor, Tensor | None]:
        """Return each token as the LLM would read it, [I, N, D], without a class token; see `AlignsPatches`."""
        return self.project(self.encode(pictures).features), None

    def scale_projector(self, factor: Tensor) -> None:
        """Multiply the merger's last layer, in place."""
        last = self._visual.merger.mlp[-1]
        last.weight.mul_(factor)
        last.bias.mul_(factor)

    @staticmethod
    def blank_model(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
        """Return an untrained model; see `MadeFromNothing`."""
        from adallava.families.qwen_vl_blank import blank_model

        return blank_model(shape, vocab_size, token_ids, ids)

    @staticmethod
    def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
        """Return the processor of an untrained model; see `MadeFromNothing`."""
        from adallava.families.qwen_vl_blank import blank_processor

        return blank_processor(tokenizer, shape, chat_template)
