"""LLaVA-OneVision: one image whole and in tiles, downsampled after the projector; several images each whole.

    one picture in a prompt   ──▶ the whole          27 x 27 tokens           one image
                              └─▶ tiles, unpadded    rows x (columns + ¶)     one image, ¶ ends each row
    several in a prompt       ──▶ the whole, padded  27 x 27 tokens           one image
                              └─▶ ¶                  1 x 1                    one image of a single token

Tiles of more than `anyres_max_9` wholes together are interpolated to as many, and that is done after the projector: a
token is then a mixture of what up to four patches became, which no feature before the projector is. So tower and
projector run over every patch, and what methods choose from is what the LLM would read, ¶ (`image_newline`) among it.
The stock model's own function packs the tokens, and what a method reads of a layer of the tower along with them.
"""

import copy
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.anyres import Tiling, check_pinpoints, sizes_of, tiles_of, tiling_of
from adallava.families.costed_parts import CostedParts, costed_parts_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.llava_parts import LlavaParts
from adallava.families.picture_inputs import PictureInputs
from adallava.families.transformers_internals import without_videos
from adallava.selection.selector_contract import AskedAttention, Need, TowerLayer, TowerShape

_MOST = "anyres_max_"
"""How `vision_aspect_ratio` begins; what follows is how many wholes the tiles of a picture may make together."""

_ENLARGED = 1.1
"""By so much longer than that may the sides be before they are interpolated."""


class LlavaOnevisionFamily(LlavaParts):
    """Drives a stock `LlavaOnevisionForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "llava_onevision"
    transformers_class = "LlavaOnevisionForConditionalGeneration"
    picture_inputs = ("pixel_values", "image_sizes", "batch_num_images")

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            UnsupportedModeError: for features that are not a grid, from which no picture can be put together.
            CheckpointError: as of LLaVA-NeXT; or for a `vision_aspect_ratio` that says no number of wholes.
        """
        super().__init__(model)
        if self.no_grid is not None:
            raise UnsupportedModeError(f"{self.no_grid}, of which LLaVA-OneVision joins tiles")
        check_pinpoints(model.config)
        ratio = str(model.config.vision_aspect_ratio)
        if (
            not ratio.startswith(_MOST)
            or not ratio.removeprefix(_MOST).isdigit()
            or int(ratio.removeprefix(_MOST)) == 0
        ):
            raise CheckpointError(f"vision_aspect_ratio is {ratio!r}: it must be {_MOST} and a number from 1 on")
        self._most_wholes = int(ratio.removeprefix(_MOST))

    @staticmethod
    def processor_class() -> Any:
        """Return its processor without videos."""
        return without_videos("LlavaOnevisionProcessor")

    @property
    def shape(self) -> TowerShape:
        """Of the whole picture. C is the LLM's width: methods choose from what it would read."""
        return replace(self._shape, vision_width=self._shape.llm_width, tower_width=self._shape.layer_width)

    @property
    def provides(self) -> frozenset[Need]:
        """What its tower gives; what goes through the tower in another way would have to pass the projector first."""
        return super().provides - {Need.TEXT_TOWER, Need.BUDGET_TOKEN, Need.RESIZED_PICTURE}

    @property
    def one_grid(self) -> bool:
        """False: a picture's size decides its tiles."""
        return False

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grids of the whole picture and of its tiles, or of its end, for each picture in turn.

        Args:
            pictures: [P, tiles, 3, H, W], with their `image_sizes`, [P, 2], and `batch_num_images`, [B].

        Raises:
            InputError: if there are no sizes, or not one for each picture, or one too narrow for its tiles; if the
                numbers of pictures are of others.
        """
        grids: list[tuple[int, int]] = []
        for tiling in self._tilings(pictures):
            grids += [self._shape.grid, (1, 1) if tiling is None else self._packed_grid(tiling)]
        return tuple(grids)

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return 1 for the whole of each picture, and then the number of its tiles; 0 for an end alone."""
        counts = (_num_tiles(tiling) for tiling in self._tilings(pictures))
        return tuple(runs for count in counts for runs in (1, count - 1))

    def whole_images(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return the first image of each picture."""
        return tuple(range(0, 2 * len(sizes_of(pictures)), 2))

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture whole, and joined from its tiles at the tokens' own size, zeros at each row's end."""
        patch, side = self._model.config.vision_config.patch_size, self._shape.grid[0]
        seen: list[Tensor] = []
        for tiles, tiling in zip(pictures.pixel_values, self._tilings(pictures), strict=True):
            seen.append(tiles[0, :, : side * patch, : side * patch])
            if tiling is None:
                seen.append(torch.zeros_like(tiles[0, :, :patch, :patch]))
                continue
            rows, columns = self._packed_grid(tiling)
            size = (rows * patch, (columns - 1) * patch)
            shown = F.interpolate(tiling.joined(tiles, patch, side)[None].float(), size=size, mode="bilinear")[0]
            seen.append(F.pad(shown.to(tiles.dtype), (0, patch)))
        return tuple(seen)

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run tower and projector over all tiles at once as stock `get_image_features` does, and pack the tokens.

        Args:
            pictures: as for `grids`.
            needs: what a method reads of the tower's layers.
        """
        return self.encode_with_attention(pictures, (), needs=needs)

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what tokens receive of attention within their tile; see `ReadsAttention`."""
        inner, counts = self._model.model, [_num_tiles(tiling) for tiling in self._tilings(pictures)]
        tower = self._run_tower(tiles_of(pictures, counts), needs, asked)
        packing = _Packing(self._model, pictures.beside["image_sizes"], tuple(counts), self._shape.num_vision_tokens)
        tokens = packing.packed(inner.multi_modal_projector(tower.unprojected), inner.image_newline)
        received = tower.attention_received
        return VisionFeatures(
            tokens,
            unprojected=tokens,
            attention_received=None if received is None else packing.packed(received, received.new_zeros(len(asked))),
            feature_layer=PackedLayer.of(tower.feature_layer, packing),
            last_layer=PackedLayer.of(tower.last_layer, packing),
        )

    def project(self, features: Tensor) -> Tensor:
        """Return tokens as they are: the projector ran before the choice."""
        return features

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Return every token, [I, N, D], with the stock model's bits."""
        assert vision.unprojected is not None
        return vision.unprojected

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values: the projector is counted with the tower, for every patch.

        Raises:
            InputError: for a class token, which passes the tower and not the projector.
        """
        inner, width = model.model, model.config.get_text_config().hidden_size
        if model.config.vision_feature_select_strategy != "full":
            raise InputError("the projector of this LLaVA-OneVision leaves a token of the tower out")

        def projected(tower: Any) -> nn.Module:
            """Return the tower with the projector after it."""
            return _Projected(tower, copy.deepcopy(inner.multi_modal_projector))

        return costed_parts_of(model, inner.vision_tower, inner.language_model, nn.Identity(), width, called=projected)

    def _packed_grid(self, tiling: Tiling) -> tuple[int, int]:
        """Return the grid of the tokens of a picture's tiles, with a column for the ends of the rows."""
        rows, columns = tiling.rows, tiling.columns
        ratio = math.sqrt(rows * columns / (self._most_wholes * self._shape.grid[0] ** 2))
        if ratio > _ENLARGED:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return rows, columns + 1

    def _tilings(self, pictures: PictureInputs) -> list[Tiling | None]:
        """Return how each picture is tiled; None for one of several in a prompt, which are not tiled."""
        sizes = sizes_of(pictures)
        each = pictures.beside.get("batch_num_images")
        counts = [1] * len(sizes) if each is None else [int(count) for count in each.tolist()]
        if sum(counts) != len(sizes):
            raise InputError(
                f"batch_num_images says {sum(counts)} images, and pixel_values has {len(sizes)}: give both as one "
                "call of the processor makes them"
            )
        alone = [count == 1 for count in counts for _ in range(count)]
        side = self._shape.grid[0]
        return [
            tiling_of(size, self._model.config, side) if is_alone else None
            for size, is_alone in zip(sizes, alone, strict=True)
        ]


def _num_tiles(tiling: Tiling | None) -> int:
    return 1 if tiling is None else tiling.num_tiles


@dataclass(frozen=True)
class _Packing:
    """How the stock model packs what it has of each patch of all tiles into one row of tokens a picture.

    Attributes:
        model: the stock model.
        sizes: [P, 2] of the pictures.
        counts: tiles of each.
        whole: tokens of a whole picture.
    """

    model: Any
    sizes: Tensor
    counts: tuple[int, ...]
    whole: int

    def packed(self, patches: Tensor, end: Tensor) -> Tensor:
        """Return tokens by image, [I, N of the largest, C], zeros after an image's own.

        Args:
            patches: [T, n, C] of all tiles.
            end: [C], of a row's end.
        """
        pictures, _ = self.model.model.pack_image_features(
            torch.split(patches, list(self.counts)),
            self.sizes,
            image_newline=end,
            vision_aspect_ratio=self.model.config.vision_aspect_ratio,
        )
        images = [part for tokens in pictures for part in (tokens[: self.whole], tokens[self.whole :])]
        return pad_sequence(images, batch_first=True)

    def of_picture(self, picture: int) -> "_Packing":
        """Return the packing of one picture alone."""
        return replace(self, sizes=self.sizes[picture : picture + 1], counts=self.counts[picture : picture + 1])


@dataclass(frozen=True)
class PackedLayer(TowerLayer):
    """A tower layer over tiles, packed as the tokens are: of an interpolated token, the mixture of its patches' keys.

    Attributes:
        packing: of the pictures.
        image: which of a picture's two is read; None for all of all pictures.
        num_tokens: of that one.
    """

    packing: _Packing
    image: int | None = None
    num_tokens: int | None = None

    @classmethod
    def of(cls, layer: TowerLayer | None, packing: _Packing) -> "PackedLayer | None":
        """Return a layer over tiles as one over images."""
        return None if layer is None else cls(layer.keys, layer.cls_query, layer.num_heads, packing)

    @property
    def patch_keys(self) -> Tensor:
        """Keys of the tokens, [I, N, C]; zeros at a row's end."""
        return self._packed(super().patch_keys)

    def cls_attention(self, num_heads: int | None = None) -> Tensor:
        """Return how much its tile's class token looks at each token, [I, heads, N] float32; 0 at a row's end."""
        return self._packed(super().cls_attention(num_heads).transpose(1, 2)).transpose(1, 2)

    def of_image(self, image: int, num_tokens: int) -> "PackedLayer":
        """Return the same layer for one image of `num_tokens` tokens: its own picture's tiles alone."""
        picture = image // 2
        first = sum(self.packing.counts[:picture])
        own = slice(first, first + self.packing.counts[picture])
        query = None if self.cls_query is None else self.cls_query[own].clone()
        return replace(
            self,
            keys=self.keys[own].clone(),
            cls_query=query,
            packing=self.packing.of_picture(picture),
            image=image % 2,
            num_tokens=num_tokens,
        )

    def _packed(self, patches: Tensor) -> Tensor:
        packed = self.packing.packed(patches, patches.new_zeros(patches.shape[-1]))
        return packed if self.image is None else packed[self.image : self.image + 1, : self.num_tokens]


class _Projected(nn.Module):
    """A tower with the projector after it: what each picture passes, whatever is kept of it."""

    def __init__(self, tower: Any, projector: Any) -> None:
        super().__init__()
        self.tower, self.projector = tower, projector

    def forward(self, pixels: Tensor) -> Any:
        """Run the tower, and the projector over all that it puts out; return the tower's output."""
        made = self.tower(pixels)
        states = made.last_hidden_state
        self.projector(states.repeat(1, 1, self.projector.linear_1.in_features // states.shape[-1]))
        return made
