"""What the Qwen-VL families share: pictures at their own size, a tower of patches, and a merger of 2 x 2 of them.

    a picture of 56 x 84 pixels     4 x 6 patches of 14        `image_grid_thw` (1, 4, 6), 24 rows of `pixel_values`
    what is selected from           2 x 3 tokens               each the features of its 2 x 2 patches, side by side
    what the LLM reads              the merger's, of K of them

The stock tower runs with what reads its patches put in the merger's place: so a window's order is undone by the tower
itself, and the merger reads kept tokens alone.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.errors import CheckpointError, InputError
from adallava.families.costed_parts import CostedParts
from adallava.families.family_contract import VisionFeatures
from adallava.families.mrope import recounted
from adallava.families.native_grids import tower_arguments
from adallava.families.native_size import SHAPE_PX, NativeSizeParts, shape_at_native_size
from adallava.families.picture_inputs import PictureInputs
from adallava.families.qwen_vl_costs import costed_units
from adallava.families.tower_kernels import OtherEmbed, TowerKernels
from adallava.families.tower_layer import layer_at, rotary_attention_to_patches
from adallava.families.tower_windows import layers_with
from adallava.families.transformers_internals import ROTARY_TABLES, attention_of, without_videos
from adallava.selection.selector_contract import AskedAttention, Need


class QwenVLParts(NativeSizeParts):
    """Drives the tower, its merger and the LLM of a stock model. Holds it, changes nothing in it."""

    picture_inputs = ("pixel_values", "image_grid_thw")
    token_inputs = ("mm_token_type_ids",)
    processor_name: ClassVar[str]
    _kernels: TowerKernels | None = None

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model.

        Raises:
            CheckpointError: as of every family; or if a picture's patches cannot be merged.
        """
        super().__init__(model)
        visual = self._visual
        self._merge = int(visual.spatial_merge_size)
        patch = visual.patch_embed.patch_size
        if not isinstance(patch, int) or min(patch, self._merge) < 1:
            raise CheckpointError(
                f"vision_config has patch_size={patch} and spatial_merge_size={self._merge}: both must be whole "
                "numbers from 1 on"
            )
        width, heads = int(visual.patch_embed.embed_dim), model.config.vision_config.num_heads
        self._shape = shape_at_native_size(model.config, patch, self._merge, width=width, heads=heads)

    @classmethod
    def processor_class(cls) -> Any:
        """Return its processor without videos."""
        return without_videos(cls.processor_name)

    def with_tower_kernels(self, kernels: TowerKernels) -> Self:
        """Return the family with the same model, whose tower runs by `kernels`; see `HasTowerKernels`."""
        other = copy.copy(self)
        other._kernels = kernels
        return other

    @property
    def _visual(self) -> Any:
        return self._model.model.visual

    @property
    def provides(self) -> frozenset[Need]:
        """No class token, and keys that are turned by their places; but attention received, and smaller pictures."""
        attention = {Need.ATTENTION_RECEIVED} if len(self._whole_picture_layers) > 0 else set()
        return frozenset({Need.PROJECTED, Need.RESIZED_PICTURE, Need.WORDS}) | attention

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grid of each picture's tokens.

        Args:
            pictures: [patches of all, pixels of one], with their `image_grid_thw`, [I, 3] of patches.

        Raises:
            InputError: without `image_grid_thw`, or for one that does not fit the patches.
        """
        merge = self._merge
        sizes = _sizes(pictures)
        for frames, rows, columns in sizes:
            if frames != 1 or min(rows, columns) < merge or rows % merge or columns % merge:
                raise InputError(
                    f"image_grid_thw has an image of {frames} x {rows} x {columns} patches: one frame is needed, of "
                    f"rows and columns that {merge} divides"
                )
        num_patches = sum(rows * columns for _, rows, columns in sizes)
        if num_patches != len(pictures.pixel_values):
            raise InputError(
                f"image_grid_thw says {num_patches} patches, and pixel_values has {len(pictures.pixel_values)} rows: "
                "give both as the processor makes them"
            )
        return tuple((rows // merge, columns // merge) for _, rows, columns in sizes)

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture as the tower sees it, [3, rows * P, columns * P], put together from its patches."""
        embed, merge = self._visual.patch_embed, self._merge
        channels, frames, side = int(embed.in_channels), int(embed.temporal_patch_size), int(embed.patch_size)
        seen, first = [], 0
        for rows, columns in self.grids(pictures):
            count = rows * columns * merge**2
            patches = pictures.pixel_values[first : first + count]
            first += count
            # One frame twice: the first is the picture.
            by_token = patches.view(rows, columns, merge, merge, channels, frames, side, side)[:, :, :, :, :, 0]
            whole = by_token.permute(4, 0, 2, 5, 1, 3, 6)
            seen.append(whole.reshape(channels, rows * merge * side, columns * merge * side))
        return tuple(seen)

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images: each picture is one."""
        counts = [frames * rows * columns for frames, rows, columns in _sizes(pictures)]
        starts = [0, *accumulate(counts)]
        own = torch.cat([torch.arange(starts[image], starts[image] + counts[image]) for image in images])
        pixels = pictures.pixel_values.index_select(0, own.to(pictures.pixel_values.device, non_blocking=True))
        return PictureInputs(pixels, {"image_grid_thw": pictures.beside["image_grid_thw"][list(images)]})

    def encode_resized(self, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
        """Run the tower on pictures resized to a grid of tokens, bicubic and antialiased; see `ResizesPictures`."""
        if all(own == grid for own in self.grids(pictures)):
            return self.encode(pictures)
        embed, merge = self._visual.patch_embed, self._merge
        side, frames = int(embed.patch_size), int(embed.temporal_patch_size)
        rows, columns = grid
        size = (rows * merge * side, columns * merge * side)
        patches = []
        for picture in self.pictures(pictures):
            # Antialiasing has no kernel for half precision on every device.
            (smaller,) = F.interpolate(picture[None].float(), size=size, mode="bicubic", antialias=True)
            by_token = smaller.view(-1, rows, merge, side, columns, merge, side).permute(1, 4, 2, 5, 0, 3, 6)
            twice = by_token.unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1)
            patches.append(twice.reshape(rows * columns * merge**2, -1))
        sizes = torch.tensor([[1, rows * merge, columns * merge]] * len(patches), dtype=torch.int64)
        pixels = torch.cat(patches).to(pictures.pixel_values.dtype)
        return self.encode(PictureInputs(pixels, {"image_grid_thw": sizes}))

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower over the patches of all pictures, as the stock model does, without its merger.

        What a token receives of attention is the mean of its patches; see `ReadsAttention`.
        """
        grids = self.grids(pictures)
        twin, readers = _reading(self._visual, self._merge**2, self._side_order)
        sizes, device = pictures.beside["image_grid_thw"], pictures.pixel_values.device
        given = tower_arguments(self._visual, sizes, device)
        if self._kernels is not None:
            twin._modules["patch_embed"] = OtherEmbed(self._visual.patch_embed)
        blocks = self._blocks(given, device)
        indices = [layer_at(one.depth, self._whole_picture_layers, len(blocks)) for one in asked]
        entered = _reading_blocks(twin, blocks, sorted(set(indices)))
        output = twin(pictures.pixel_values.type(self._visual.dtype), grid_thw=sizes, return_dict=True, **given)
        order = output.pooler_output[:, 0]
        places = _places([rows * columns for rows, columns in grids]).to(order.device, non_blocking=True)
        read = tuple(reader.read for reader in readers)
        units = [one.reshape(-1, self._shape.vision_width)[order][places] for one in read]
        return UnitFeatures(
            units[0],
            unprojected=read[0],
            levels=dict(enumerate(units[1:])),
            level_reads=read[1:],
            order=order,
            places=places,
            attention_received=self._received([entered[index] for index in indices], order, places, grids)
            if asked
            else None,
        )

    @property
    def _whole_picture_layers(self) -> Sequence[int]:
        """Layers of the tower in which each patch sees the whole picture; the others see windows."""
        visual = self._visual
        with_windows = hasattr(visual, "fullatt_block_indexes")
        return sorted(visual.fullatt_block_indexes) if with_windows else range(len(visual.blocks))

    def _blocks(self, given: Mapping[str, Tensor], device: torch.device) -> Sequence[nn.Module]:
        """Return the tower's layers, with windows if it has any.

        Args:
            given: of `tower_arguments`.
            device: of the tower.
        """
        visual, kernels = self._visual, self._kernels
        ends, pictures = given.get("cu_window_seqlens"), given["cu_seqlens"]
        if attention_of(visual.config) != "sdpa" or (ends is None and kernels is None):
            return cast(Sequence[nn.Module], visual.blocks)
        whole = set(self._whole_picture_layers)
        windowed = {} if ends is None else {index: ends for index in range(len(visual.blocks)) if index not in whole}
        if kernels is not None:
            windowed |= dict.fromkeys(whole, pictures)
        return layers_with(visual, windowed, device, kernels)

    def _received(
        self, entered: "Sequence[_BlockReader]", order: Tensor, places: Tensor, grids: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Return what each token receives of attention in some layers, [I, N, A] float32, 0 after an image's own."""
        unit, columns = self._merge**2, []
        for block in entered:
            tables = [block.hidden, *block.tables]
            # Patches of one token lie side by side, in the tower's order of tokens.
            read = [table.reshape(-1, unit, table.shape[-1])[order][places] for table in tables]
            rows = []
            for image, (down, across) in enumerate(grids):
                hidden, *turns = (table[image, : down * across].flatten(0, 1) for table in read)
                of_patches = rotary_attention_to_patches(block.block, hidden, turns)
                of_tokens = of_patches.view(-1, unit).mean(dim=1)
                rows.append(F.pad(of_tokens, (0, places.shape[1] - len(of_tokens))))
            columns.append(torch.stack(rows))
        return torch.stack(columns, dim=-1)

    def project(self, features: Tensor) -> Tensor:
        """Map tokens' patches, [I, K, C], to the LLM's input, [I, K, D]."""
        return self._merged(self._visual.merger, features)

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D]: all pictures at once, as the stock model does."""
        assert isinstance(vision, UnitFeatures)
        assert vision.unprojected is not None
        merged: Tensor = self._visual.merger(vision.unprojected)
        return merged[vision.order][vision.places]

    def _merged(self, merger: nn.Module, features: Tensor) -> Tensor:
        merged: Tensor = merger(features.reshape(-1, self._shape.layer_width))
        return merged.view(*features.shape[:2], -1)

    @property
    def _side_order(self) -> Sequence[int]:
        """Which of the tower's further mergers run, in their order: of what is added after layers of the LLM."""
        return ()

    def companions(
        self, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
    ) -> Mapping[str, Tensor]:
        """Return the positions of frame, row and column, [3, B, L], by the stock model's own function.

        Raises:
            InputError: for a video, or pictures without text between them, which the stock model takes for one.
        """
        if bool((input_ids == self._model.config.video_token_id).any()):
            raise InputError("a prompt holds placeholders of a video, and only images are supported: give its frames")
        is_image = input_ids == self.image_token_id
        grids = None if pictures is None else pictures.beside["image_grid_thw"]
        runs = _num_runs(is_image, attention_mask)
        if runs != (0 if grids is None else len(grids)):
            raise InputError(
                f"the prompts' placeholders are in {runs} runs, and there are {0 if grids is None else len(grids)} "
                "images: between two images there must be text, such as the tokens that end one and begin the next"
            )
        rows, _ = self._model.model.get_rope_index(
            input_ids, mm_token_type_ids=is_image.int(), image_grid_thw=grids, attention_mask=attention_mask
        )
        return {"position_ids": rows}

    def recounted(self, rows: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Return positions counted again, [3, B, Lc]; see `mrope.recounted`."""
        return recounted(rows, images, steps)

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        return costed_units(model, side_px=SHAPE_PX)


@dataclass(frozen=True, kw_only=True)
class UnitFeatures(VisionFeatures):
    """Features of tokens of 2 x 2 patches.

    Attributes:
        level_reads: what the merger of each level reads, laid out as the stock model does.
        order: [N of all] int64, the place of each token, picture after picture, among what mergers put out.
        places: [I, N of the largest] int64, the place of each image's tokens among those of all.
    """

    level_reads: tuple[Tensor, ...]
    order: Tensor
    places: Tensor


class _Reader(nn.Module):
    """Stands where a merger is: keeps the patches that it would read, and numbers what it would put out."""

    read: Tensor

    def __init__(self, unit: int) -> None:
        super().__init__()
        self._unit = unit

    def forward(self, patches: Tensor) -> Tensor:
        """Return the numbers of the tokens, [N, 1] int64, which the tower puts back in order as it would the tokens."""
        self.read = patches
        return torch.arange(len(patches) // self._unit, device=patches.device).unsqueeze(1)


class _BlockReader(nn.Module):
    """Stands where a layer is: keeps what it reads, and runs it."""

    hidden: Tensor
    tables: tuple[Tensor, Tensor]

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, **beside: Any) -> Tensor:
        """Run the layer."""
        self.hidden, self.tables = hidden_states, beside[ROTARY_TABLES]
        passed: Tensor = self.block(hidden_states, **beside)
        return passed


def _reading_blocks(twin: Any, blocks: Sequence[nn.Module], indices: Sequence[int]) -> dict[int, _BlockReader]:
    """Give a tower's twin these layers, with readers where `indices` are, and return the readers by their index."""
    readers = {index: _BlockReader(blocks[index]) for index in indices}
    twin._modules["blocks"] = nn.ModuleList([readers.get(index, block) for index, block in enumerate(blocks)])
    return readers


def _reading(visual: Any, unit: int, side_order: Sequence[int]) -> tuple[Any, list[_Reader]]:
    """Return a tower for one call that shares all but its mergers, and what replaces them, in their order.

    Args:
        visual: the stock tower.
        unit: patches that a merger takes together.
        side_order: of its further mergers.
    """
    twin, reader = copy.copy(visual), _Reader(unit)
    twin._modules = {**visual._modules, "merger": reader}
    if not side_order:
        return twin, [reader]
    side = [_Reader(unit) for _ in visual.deepstack_merger_list]
    twin._modules["deepstack_merger_list"] = nn.ModuleList(side)
    return twin, [reader, *(side[place] for place in side_order)]


def _sizes(pictures: PictureInputs) -> list[tuple[int, int, int]]:
    """Return frames, rows and columns of patches of each picture."""
    grids = pictures.beside.get("image_grid_thw")
    if grids is None or grids.dim() != 2 or grids.shape[1] != 3:
        raise InputError("this model needs the images' grids: give the processor's image_grid_thw too, [images, 3]")
    return [(int(frames), int(rows), int(columns)) for frames, rows, columns in grids.tolist()]


def _places(counts: Sequence[int]) -> Tensor:
    """Return the places of each image's tokens among those of all, [I, most] int64; the last's again after them."""
    first, rows = 0, []
    for count in counts:
        rows.append(first + torch.arange(max(counts)).clamp_max(count - 1))
        first += count
    return torch.stack(rows)


def _num_runs(is_image: Tensor, attention_mask: Tensor | None) -> int:
    """Return how many runs of placeholders the prompts have, padding left out."""
    runs = 0
    for row, flags in enumerate(is_image):
        real = flags if attention_mask is None else flags[attention_mask[row].bool()]
        runs += sum(flag for flag, _ in groupby(real.tolist()))
    return runs
