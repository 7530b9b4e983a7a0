"""LLaVA-1.5 in vLLM. Its positions are counted over what is left ("compact")."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from adallava.errors import UnsupportedModeError
from adallava.serving.budgeted_model import BudgetedModel
from adallava.serving.key_names import named_as_vllm
from adallava.serving.processing import BudgetedProcessor


class LlavaInfo(LlavaProcessingInfo):
    """Refuses what LLaVA's class is for besides LLaVA."""

    def get_hf_config(self) -> Any:
        """Return the config.

        Raises:
            UnsupportedModeError: for a Pixtral in LLaVA's layout.
        """
        config = super().get_hf_config()
        if config.vision_config.model_type == "pixtral":
            raise UnsupportedModeError("a Pixtral is not served with a budget: start vLLM without ADALLAVA_METHOD")
        return config


class LlavaProcessor(BudgetedProcessor, LlavaMultiModalProcessor):
    """Images of one size."""

    def _image_token_id(self) -> int:
        return int(self.info.get_hf_config().image_token_index)

    def _grid(self, width: int, height: int, asked: Mapping[str, object]) -> tuple[int, int]:
        total = self.info.get_num_image_tokens(image_width=width, image_height=height)
        side = self.info.get_vision_encoder_info().get_patch_grid_length()
        return total // side, side


@MULTIMODAL_REGISTRY.register_processor(LlavaProcessor, info=LlavaInfo, dummy_inputs=LlavaDummyInputsBuilder)
class Model(BudgetedModel, LlavaForConditionalGeneration):
    """Every image is one row of `pixel_values`."""

    hf_to_vllm_mapper: ClassVar[Any] = named_as_vllm(LlavaForConditionalGeneration.hf_to_vllm_mapper)

    def _llm(self) -> Any:
        return self.get_language_model()

    def _token_counts(self, kwargs: dict[str, Any]) -> list[int]:
        assert self._chooser is not None
        return [self._chooser.num_tokens] * len(kwargs["pixel_values"])

    def _some(self, kwargs: dict[str, Any], images: Sequence[int]) -> dict[str, Any]:
        return {"pixel_values": kwargs["pixel_values"][list(images)]}
