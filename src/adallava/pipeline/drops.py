"""Plans, on the host and before the tower runs, how a batch becomes shorter inside the LLM.

    stage 0, layers 0 and 1     t t I I I I t t      the layout of N tokens an image
    stage 1, all later layers   t t v v t t          the layout of K, as if they had been dropped before the LLM

Which of the four tokens fill the two slots is the method's choice, on the device (`pipeline/dropping.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adallava.errors import AdallavaError, InputError
from adallava.pipeline.layout import Layout, PromptPlan, with_keep_counts
from adallava.selection.layer_contract import Drop, LayerSelector

_Columns = NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """The batch as the layers between two drops read it.

    Attributes:
        layout: where its tokens come from.
    """

    layout: Layout

    def to(self, device: torch.device) -> "Stage":
        """Return the same stage with its tensors on `device`."""
        return replace(self, **_moved(self, device))


@dataclass(frozen=True)
class PlannedDrop:
    """From one stage to the next.

    Attributes:
        layer: the first that reads the next stage.
        scored_by: see `Drop`.
    """

    layer: int
    scored_by: int


@dataclass(frozen=True)
class DropPlan:
    """All that is known before the LLM runs.

    Attributes:
        num_layers: of the LLM.
        stages: one more than there are drops.
        drops: those that drop anything, layers ascending.
        text_columns: [I, T] int64, original columns of the question's tokens after each image, right-padded.
        text_mask: [I, T] bool, which of `text_columns` hold a token.
        sample_of_image: [I] int64.
        text_counts: text tokens after each image of each sample.
    """

    num_layers: int
    stages: tuple[Stage, ...]
    drops: tuple[PlannedDrop, ...]
    text_columns: Tensor
    text_mask: Tensor
    sample_of_image: Tensor
    text_counts: tuple[tuple[int, ...], ...]

    @property
    def tokens_by_layer(self) -> tuple[tuple[int, ...], ...]:
        """Vision tokens that each layer reads, for each sample."""
        starts = [0, *(drop.layer for drop in self.drops), self.num_layers]
        widths = [after - before for before, after in pairwise(starts)]
        return tuple(
            tuple(
                sum(stage.layout.prompts[sample].keep_counts)
                for stage, width in zip(self.stages, widths, strict=True)
                for _ in range(width)
            )
            for sample in range(len(self.stages[0].layout.prompts))
        )

    def to(self, device: torch.device) -> "DropPlan":
        """Return the same plan with its tensors on `device`."""
        moved = _moved(self, device)
        stages = tuple(stage.to(device) for stage in self.stages)
        return replace(self, **moved, stages=stages)


def plan_drops(selector: LayerSelector, layout: Layout, num_layers: int) -> DropPlan:
    """Plan a batch's way through the LLM. All tensors are on the host.

    A drop at which no image of the batch loses a token is left out: there the stock model runs on.

    Args:
        selector: the method.
        layout: of the batch after the last drop, K tokens for each image, on the host.
        num_layers: of the LLM.

    Raises:
        InputError: for an image with no text after it: there is no one to judge it.
        UnsupportedModeError: for an LLM with too few layers.
        AdallavaError: for a schedule against the contract.
    """
    schedules = [
        _checked_schedule(selector, num_layers, num_tokens, count)
        for num_tokens, count in zip(layout.tokens_per_image, layout.keep_counts, strict=True)
    ]
    if len({tuple((drop.layer, drop.scored_by) for drop in drops) for drops in schedules}) > 1:
        raise AdallavaError(
            f"method {selector.name!r} drops tokens of one batch at different layers: {schedules}; layers may depend "
            "only on the number of layers"
        )
    counts = [layout.tokens_per_image]
    places: list[tuple[int, int]] = []
    for drops in zip(*schedules, strict=True):
        kept = tuple(drop.keep_count for drop in drops)
        if kept != counts[-1]:
            counts.append(kept)
            places.append((drops[0].layer, drops[0].scored_by))
    layouts = [with_keep_counts(layout, image_counts) for image_counts in counts]
    texts = _texts_behind_images(layout)
    return DropPlan(
        num_layers=num_layers,
        stages=tuple(map(Stage, layouts)),
        drops=tuple(PlannedDrop(layer, scored_by) for layer, scored_by in places),
        text_columns=_padded(texts),
        text_mask=_padded([np.ones_like(text) for text in texts]).bool(),
        sample_of_image=torch.tensor(layout.sample_of_image, dtype=torch.int64),
        text_counts=tuple(_by_prompt(layout.prompts, [len(text) for text in texts])),
    )


def _checked_schedule(
    selector: LayerSelector, num_layers: int, num_vision_tokens: int, keep_count: int
) -> tuple[Drop, ...]:
    drops = selector.schedule(num_layers, num_vision_tokens, keep_count)
    layers, counts = [drop.layer for drop in drops], [num_vision_tokens, *(drop.keep_count for drop in drops)]
    if (
        not drops
        or layers != sorted(set(layers))
        or not all(1 <= layer < num_layers for layer in layers)
        or any(drop.scored_by not in (drop.layer - 1, drop.layer) for drop in drops)
        or counts != sorted(counts, reverse=True)
        or counts[-1] != keep_count
    ):
        raise AdallavaError(
            f"method {selector.name!r} planned {drops} to keep {keep_count} of {num_vision_tokens} tokens in "
            f"{num_layers} layers: layers must ascend within 1 … {num_layers - 1}, each scored by itself or the one "
            "before, and counts fall to K"
        )
    return drops


def _by_prompt(prompts: Sequence[PromptPlan], image_counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the counts of all images as those of each sample."""
    rest = iter(image_counts)
    return [tuple(next(rest) for _ in range(prompt.num_images)) for prompt in prompts]


def _texts_behind_images(layout: Layout) -> list[_Columns]:
    """Return the original columns of the question's tokens after each image.

    Raises:
        InputError: if there are none.
    """
    columns, mask = layout.question_columns.numpy(), layout.question_mask.numpy()
    texts = []
    for sample, prompt in enumerate(layout.prompts):
        text = columns[sample][mask[sample]]
        for image, places in enumerate(prompt.image_places):
            last = int(places.max())
            behind = text[text > prompt.columns[last]]
            if len(behind) == 0:
                if len(prompt.columns) > last + 1:
                    raise InputError(
                        f"sample {sample} has no text after image {image} before its first label: methods inside the "
                        "LLM let the question judge the image's tokens, so set the labels of the prompt to -100"
                    )
                raise InputError(
                    f"sample {sample} has no text after image {image}: methods inside the LLM let the question's "
                    "tokens judge the image's, so put the question after the image"
                )
            texts.append(behind)
    return texts


def _padded(rows: Sequence[_Columns]) -> Tensor:
    """Return rows of different lengths as one tensor, zeros after each."""
    padded = np.zeros((len(rows), max((len(row) for row in rows), default=0)), dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def _moved(plan: Stage | DropPlan, device: torch.device) -> dict[str, Any]:
    """Return the fields that hold tensors, with those on `device`."""
    return {
        field.name: value.to(device) if isinstance(value, Layout) else value.to(device, non_blocking=True)
        for field in fields(plan)
        if isinstance(value := getattr(plan, field.name), Tensor | Layout)
    }
