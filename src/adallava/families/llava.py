"""LLaVA: every image at one fixed size.

What more its tower and projector can do is here, too.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import UnsupportedModeError
from adallava.families.capabilities.of_classes import BlankShape
from adallava.families.family_contract import TextTower, VisionFeatures
from adallava.families.llava_parts import LlavaParts
from adallava.families.picture_inputs import PictureInputs
from adallava.families.text_tower import load_text_tower
from adallava.selection.selector_contract import AskedAttention, Need


class LlavaFamily(LlavaParts):
    """Drives a stock `LlavaForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "llava"
    transformers_class = "LlavaForConditionalGeneration"
    picture_inputs = ("pixel_values",)
    blank_tokens: ClassVar[Mapping[str, str]] = {"image_token": "<image>"}
    blank_picture = "<image>"

    @property
    def one_grid(self) -> bool:
        """True: every picture is cut to one size."""
        return True

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grid of each image: all are alike."""
        return (self._shape.grid,) * len(pictures.pixel_values)

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images: each picture is one."""
        rows = torch.tensor(images, dtype=torch.int64).to(pictures.pixel_values.device, non_blocking=True)
        return PictureInputs(pictures.pixel_values.index_select(0, rows))

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return the pictures, [3, H, W], without a border narrower than a patch, which the tower cuts off."""
        vision = self._model.config.vision_config
        side = vision.image_size // vision.patch_size * vision.patch_size
        return tuple(pictures.pixel_values[..., :side, :side])

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what patches receive of attention; see `ReadsAttention`."""
        return self._run_tower(pictures.pixel_values, needs, asked)

    def encode_with_token(self, pictures: PictureInputs, budget_token: Tensor) -> VisionFeatures:
        """Run the tower with one more token after the patches; see `ReadsBudgetToken`.

        Args:
            pictures: [I, 3, H, W].
            budget_token: [I, C], appended after the tower's embeddings: [CLS, P_1 … P_N, BUDGET].

        Raises:
            UnsupportedModeError: for a tower that is not CLIP's.
        """
        states = self._states_with_token(pictures.pixel_values, budget_token)
        budget_features = torch.cat([states[layer][:, -1] for layer in self._layers], dim=-1)
        return VisionFeatures(self._patches([state[:, :-1] for state in states]).contiguous(), budget_features)

    def encode_resized(self, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
        """Run the tower on pictures resized to a grid of patches; see `ResizesPictures`.

        They are resized bicubic and antialiased, and the tower's position embeddings are interpolated.

        Args:
            pictures: [I, 3, H, W].
            grid: (rows, columns).
        """
        if grid == self._shape.grid:
            return self._run_tower(pictures.pixel_values)
        return self._run_tower(self._resize(pictures.pixel_values, grid), interpolate_pos_encoding=True)

    def load_text_tower(self, folder_or_id: str) -> TextTower:
        """Load the text half of the CLIP checkpoint that the vision tower came from.

        Raises:
            CheckpointError: if its files are missing or damaged, or its widths are not the tower's.
        """
        return load_text_tower(folder_or_id, self._tower, self._shape.vision_width, self.device)

    def _resize(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor:
        patch = self._model.config.vision_config.patch_size
        size = (grid[0] * patch, grid[1] * patch)
        # Antialiasing has no kernel for half precision on every device.
        resized = F.interpolate(pixel_values.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        return resized.to(pixel_values.dtype)

    def project_with_summary(self, pictures: PictureInputs) -> tuple[Tensor, Tensor | None]:
        """Return each patch and the class token projected, [I, N, D] and [I, D]; see `AlignsPatches`."""
        tower = self._model.model.vision_tower
        states = tower(pictures.pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        projected: Tensor = self._model.model.multi_modal_projector(states[-1])
        return (projected[:, 1:], projected[:, 0]) if self._has_cls else (projected, None)

    def scale_projector(self, factor: Tensor) -> None:
        """Multiply the projector's last layer, in place."""
        last = self._model.model.multi_modal_projector.linear_2
        last.weight.mul_(factor)
        last.bias.mul_(factor)

    @staticmethod
    def blank_model(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
        """Return an untrained model; see `MadeFromNothing`."""
        from adallava.families.llava_blank import blank_model

        return blank_model(shape, vocab_size, token_ids["image_token"], ids)

    @staticmethod
    def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
        """Return the processor of an untrained model; see `MadeFromNothing`."""
        from adallava.families.llava_blank import blank_processor

        return blank_processor(tokenizer, shape, chat_template)

    def _states_with_token(self, pixel_values: Tensor, token: Tensor) -> list[Tensor]:
        tower = self._tower
        if not hasattr(tower, "pre_layrnorm"):
            raise UnsupportedModeError(
                f"a budget token can pass through a CLIP tower only; this model's is {type(tower).__name__}"
            )
        hidden = tower.embeddings(pixel_values)
        hidden = torch.cat([hidden, token.to(hidden.dtype).unsqueeze(1)], dim=1)
        hidden = tower.pre_layrnorm(hidden)
        states = [hidden]
        for layer in tower.encoder.layers:
            # Image tokens all see each other: no mask, as in the tower's own forward.
            hidden = layer(hidden, None)
            states.append(hidden)
        return states
