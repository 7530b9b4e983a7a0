"""Qwen2.5-VL and Qwen3-VL in vLLM, whose positions are those of the full prompt ("original").

Which tokens stay is known on the device alone, and their places must reach positions that are made on the host.
vLLM has a way for that, made for videos that it prunes itself: a row brings its position along in further channels, and
the model corrects the prompt's before the LLM runs. It is opened here for images, after the model is made, so that
vLLM's own pruning of videos stays off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from adallava.errors import InputError, UnsupportedModeError
from adallava.serving.budgeted_model import BudgetedModel
from adallava.serving.chosen_rows import ChosenRows
from adallava.serving.mrope_columns import MOST_A_SIDE, Run, as_channels, from_channels, full_prompt, gathered, placed
from adallava.serving.processing import BudgetedProcessor

_OPENED = 1e-12
"""A rate of vLLM's own pruning of videos that is on, and prunes nothing."""


class _Grids(BudgetedProcessor):
    """Images at their own size."""

    def _image_token_id(self) -> int:
        return int(self.info.get_hf_config().image_token_id)

    def _grid(self, width: int, height: int, asked: Mapping[str, object]) -> tuple[int, int]:
        size, total = self.info._get_vision_info(
            image_width=width,
            image_height=height,
            num_frames=1,
            image_processor=self.info.get_image_processor(**asked),
            mm_kwargs=asked,
            modality="image",
        )
        vision = self.info.get_hf_config().vision_config
        rows = size.height // vision.patch_size // vision.spatial_merge_size
        return rows, total // rows

    def _check(self, image: int, rows: int, columns: int) -> None:
        if max(rows, columns) > MOST_A_SIDE:
            raise InputError(
                f"image {image} has {rows} x {columns} tokens, and with a budget a side may have {MOST_A_SIDE}: "
                "send it smaller, or ask for token_budget 1.0"
            )


class _PlacedRows(BudgetedModel):
    """Rows that bring their places along."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Make vLLM's model, then open its way for positions.

        Raises:
            UnsupportedModeError: if vLLM is to prune videos itself.
        """
        multimodal = vllm_config.model_config.multimodal_config
        if multimodal.video_pruning_rate and multimodal.video_pruning_rate != _OPENED:
            raise UnsupportedModeError(
                f"video_pruning_rate={multimodal.video_pruning_rate} prunes videos by vLLM's own means, which use the "
                "same way to the positions: leave it out, or start vLLM without ADALLAVA_METHOD"
            )
        multimodal.video_pruning_rate = None
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        multimodal.video_pruning_rate = _OPENED

    def get_encoder_cudagraph_config(self) -> Any:
        """Return vLLM's graphs of the tower without any: they would go past the choice."""
        return replace(super().get_encoder_cudagraph_config(), modalities=[])  # type: ignore[misc]

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return positions as in the full prompt, [3, L], and what is added to those of later tokens."""
        ordered = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        runs = [self._run(feature) for feature in ordered]
        if all(run.kept == run.total for run in runs):
            stock: tuple[Tensor, int] = super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]
            return stock
        full, starts, columns = full_prompt(input_tokens, runs)
        moved = [
            replace(feature, mm_position=replace(feature.mm_position, offset=start, length=run.total))
            for feature, start, run in zip(ordered, starts, runs, strict=True)
        ]
        positions, _ = super().get_mrope_input_positions(full, moved)  # type: ignore[misc]
        return gathered(positions, columns)

    def _run(self, feature: Any) -> Run:
        place = feature.mm_position
        if feature.modality != "image":
            return Run(place.offset, place.length, place.length)
        merge = self.config.vision_config.spatial_merge_size  # type: ignore[attr-defined]
        total = int(feature.data["image_grid_thw"].data.prod()) // merge**2
        return Run(place.offset, place.length, total)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """Return rows without their channels of positions, and the prompt's positions with them put in."""
        device = mrope_positions.device
        ids = torch.as_tensor(input_ids).to(device)
        config = self.config  # type: ignore[attr-defined]
        is_picture = (ids == config.image_token_id) | (ids == config.video_token_id)
        rows = [part[:, :-3] for part in multimodal_embeddings]
        places = [from_channels(part[:, -3:].to(device)) for part in multimodal_embeddings]
        positions = placed(mrope_positions, is_picture, places, num_computed_tokens)
        # Text after the images keeps its position, the prompt's end above all.
        return rows, positions, int(mrope_positions[:, -1].max()) + 1 - len(ids)

    def _llm(self) -> Any:
        return self.get_language_model()  # type: ignore[attr-defined]

    def _pixels(self, pixel_values: Tensor) -> Tensor:
        # vLLM may leave it to the device to scale and shift them, as the first step of its tower.
        pixels: Tensor = self.visual.input_norm(pixel_values, self._model_config.dtype)  # type: ignore[attr-defined]
        return pixels

    def _stock_rows(self, rows: Any, kwargs: dict[str, Any]) -> Any:
        return tuple(torch.cat([part, part.new_full((len(part), 3), -1)], dim=1) for part in rows or ())

    def _engine_rows(self, rows: ChosenRows, number: int, kwargs: dict[str, Any]) -> Tensor:
        _, columns = self._grids(kwargs)[number]
        places = as_channels(rows.places, columns).to(rows.embeds.dtype)
        return torch.cat([rows.embeds, *rows.added, places], dim=1)

    def _grids(self, kwargs: dict[str, Any]) -> list[tuple[int, int]]:
        merge = self.config.vision_config.spatial_merge_size  # type: ignore[attr-defined]
        return [(rows // merge, columns // merge) for _, rows, columns in kwargs["image_grid_thw"].tolist()]

    def _token_counts(self, kwargs: dict[str, Any]) -> list[int]:
        return [rows * columns for rows, columns in self._grids(kwargs)]

    def _some(self, kwargs: dict[str, Any], images: Sequence[int]) -> dict[str, Any]:
        patches = kwargs["image_grid_thw"].prod(-1).tolist()
        parts = kwargs["pixel_values"].split(patches)
        return {
            "pixel_values": torch.cat([parts[image] for image in images]),
            "image_grid_thw": kwargs["image_grid_thw"][list(images)],
        }


class Qwen25Processor(_Grids, Qwen2_5_VLMultiModalProcessor):
    """Of Qwen2.5-VL."""


class Qwen3Processor(_Grids, Qwen3VLMultiModalProcessor):
    """Of Qwen3-VL."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen25Processor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class Qwen25Model(_PlacedRows, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3Processor, info=Qwen3VLProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class Qwen3Model(_PlacedRows, Qwen3VLForConditionalGeneration):
    """Qwen3-VL, whose rows for layers after the first (deepstack) follow a token's own."""
