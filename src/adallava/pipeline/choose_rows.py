"""Tower, method and projector of a batch: from pictures to the rows that the LLM reads of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from adallava.errors import AdallavaError
from adallava.families.capabilities.of_llms import side_rows
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.call import Request
from adallava.pipeline.checked import check_own_counts, declared_inputs
from adallava.pipeline.encode import budget_ratios, encode
from adallava.pipeline.layout import Layout
from adallava.pipeline.select import choose, image_inputs
from adallava.pipeline.selector_inputs import selection_input
from adallava.pipeline.stage_runner import StageContext, Stages
from adallava.selection.selector_contract import OwnCountMethod, Selection, Selector


@dataclass(frozen=True)
class ChosenRows:
    """What the LLM reads of I images, before it is put between the text.

    Attributes:
        embeds: [I, Kmax, D]; rows past an image's K are never read.
        selection: which tokens they are.
        added: what is added to their states after layers of the LLM, [I, Kmax, D] by layer.
    """

    embeds: Tensor
    selection: Selection
    added: Mapping[int, Tensor]


def choose_rows(
    family: Family,
    selector: Selector | None,
    layout: Layout,
    request: Request,
    pictures: PictureInputs,
    context: StageContext,
) -> ChosenRows:
    """Run tower, method and projector, where something is kept.

    Args:
        family: the model.
        selector: the method; None keeps every token.
        layout: planned for this batch, on the family's device.
        request: on the family's device.
        pictures: of the request.
        context: of the call. A projector that runs over all tokens before the choice is part of the selector's time:
            the method asked for it.
    """
    stages, vision = context.stages, context.vision
    ratios = budget_ratios(layout, family.device)
    if vision is None:
        vision = encode(family, selector, pictures, layout.keep_counts, ratios, stages=stages)
        context.mark("vision")
    inputs = selection_input(
        family, layout, request.input_ids, vision, ratios, request.seeds, selector, context.language
    )
    selection = choose(selector, inputs, family.grids(pictures), stages=stages)
    if layout.keep_counts == layout.tokens_per_image:
        context.mark("selector")
        vision_embeds = stages.run(family.model, "project all", family.project_all, vision)
    elif inputs.projected is not None and selection.merge_weights is None:
        vision_embeds = selection.apply(inputs.projected)
        context.mark("selector")
    else:
        kept = selection.apply(vision.features)
        context.mark("selector")
        counts = layout.keep_counts
        vision_embeds = stages.run(family.model, "project", partial(_project, family.project), kept, counts)
    added = _added(family, vision, selection, layout, stages)
    context.mark("projector")
    return ChosenRows(vision_embeds, selection, added)


def _added(
    family: Family, vision: VisionFeatures, selection: Selection, layout: Layout, stages: Stages
) -> Mapping[int, Tensor]:
    """Return what is added to the kept tokens' states after layers of the LLM, [I, Kmax, D] by layer."""
    if not vision.levels:
        return {}
    family_adds = side_rows(family)
    if layout.keep_counts == layout.tokens_per_image:
        return stages.run(family.model, "add all", family_adds.all_side_rows, vision)
    rows = {}
    for level, (layer, features) in enumerate(vision.levels.items()):
        project = partial(_project, partial(family_adds.side_rows, level))
        kept = selection.apply(features)
        rows[layer] = stages.run(family.model, f"add {level}", project, kept, layout.keep_counts)
    return rows


def _project(project: Callable[[Tensor], Tensor], features: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the first `counts[i]` tokens of each image projected, [I, n, D]; the projector sees no other.

    Args:
        project: of the model.
        features: [I, n, C].
        counts: of each image, the largest of them n.
    """
    num_images, longest = features.shape[:2]
    if all(count == longest for count in counts):
        return project(features)
    places = torch.cat([image * longest + torch.arange(count) for image, count in enumerate(counts)])
    places = places.to(features.device, non_blocking=True)
    projected = project(features.flatten(0, 1).index_select(0, places)[None])[0]
    padded = projected.new_zeros((num_images * longest, projected.shape[-1])).index_copy(0, places, projected)
    return padded.view(num_images, longest, -1)


def read_own_counts(
    family: Family,
    selector: OwnCountMethod,
    layout: Layout,
    request: Request,
    context: StageContext,
) -> tuple[VisionFeatures, tuple[int, ...]]:
    """Run the tower, and read the counts that a method finds for itself: the one wait for the device before the LLM.

    Args:
        family: the model.
        selector: sets its own counts.
        layout: planned as if every token stayed, on the family's device.
        request: on the family's device, with images.
        context: of the call.

    Returns:
        The tower's output, to be given to `prepare`, and K of each image.
    """
    ids, pictures, seeds = request.input_ids, request.pictures, request.seeds
    assert pictures is not None
    ratios, vision = budget_ratios(layout, family.device), context.vision
    if vision is None:
        vision = encode(family, selector, pictures, layout.keep_counts, ratios)
        context.mark("vision")
    inputs = selection_input(family, layout, ids, vision, ratios, seeds, selector, context.language)
    with torch.autocast(family.device.type, enabled=False):
        images = image_inputs(inputs, family.grids(pictures))
        read = (declared_inputs(selector.name, selector.needs, one) for one in images)
        counts = [check_own_counts(selector.name, selector.own_counts(one), 1) for one in read]
    found = tuple(map(int, torch.cat(counts).tolist()))
    for count, (rows, columns) in zip(found, family.grids(pictures), strict=True):
        if not 1 <= count <= rows * columns:
            raise AdallavaError(
                f"method {selector.name!r} found that an image of {rows * columns} tokens keeps {count}: its "
                "`own_counts` must be from 1 to all"
            )
    return vision, found
