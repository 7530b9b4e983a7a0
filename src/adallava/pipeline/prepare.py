"""From a prompt with images to the shortened batch that the LLM reads: encode, select, project, compact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.families.contract import Family, VisionFeatures
from adallava.pipeline.call import Request
from adallava.pipeline.checked import declared_inputs
from adallava.pipeline.clock import StageClock
from adallava.pipeline.layout import Layout
from adallava.pipeline.pack import CompactBatch, Positions, compact_ids, compact_labels, compact_positions, merge_embeds
from adallava.pipeline.select import choose, image_inputs
from adallava.pipeline.skips import SampleLayers
from adallava.pipeline.wording import Language, embed_words
from adallava.selection.contract import (
    BudgetTokenMethod,
    Need,
    OwnCountMethod,
    ResizingMethod,
    Selection,
    SelectionInput,
    Selector,
    WordsMethod,
)
from adallava.selection.layer_contract import AnySelector


@dataclass(frozen=True)
class InsideCounts:
    """Of one sample, for a method inside the LLM.

    Attributes:
        tokens_by_layer: vision tokens that each LLM layer reads.
        text_behind_images: text tokens behind each image: those that may judge it.
    """

    tokens_by_layer: tuple[int, ...]
    text_behind_images: tuple[int, ...]


@dataclass(frozen=True)
class Prepared:
    """What the LLM is about to read, and the choice that led to it.

    Attributes:
        batch: the shortened batch.
        layout: where its tokens come from.
        selection: None if no vision token was looked at: no images, or a method that keeps none.
        selector: that chose; None keeps every token.
        grids: (rows, columns) of each image's tokens.
        tower_runs: pictures that the tower would run on for each image.
        inside: what a method inside the LLM does with each sample; None for other methods.
        layers: what ran of the LLM for each sample, once it ran; None if all layers did for all samples.
    """

    batch: CompactBatch
    layout: Layout
    selection: Selection | None
    selector: AnySelector | None
    grids: tuple[tuple[int, int], ...]
    tower_runs: tuple[int, ...]
    inside: tuple[InsideCounts, ...] | None = None
    layers: tuple[SampleLayers, ...] | None = None


def prepare(
    family: Family,
    selector: Selector | None,
    layout: Layout,
    request: Request,
    *,
    language: Language | None = None,
    vision: VisionFeatures | None = None,
    clock: StageClock | None = None,
) -> Prepared:
    """Run every stage before the LLM.

    Args:
        family: the model.
        selector: the method; None keeps every token.
        layout: planned for this batch, on the family's device.
        request: on the family's device.
        language: for methods that read the question's words.
        vision: the tower's output, where `own_counts` has run it already.
        clock: marks "vision", "selector" and "projector" when each ends. A projector that runs over all tokens
            before the choice is part of the selector's time: the method asked for it.
    """
    mark = (lambda part: None) if clock is None else clock.mark
    input_ids, pixel_values = request.input_ids, request.pixel_values
    grids = () if pixel_values is None else family.grids(pixel_values)
    runs = () if pixel_values is None else family.tower_runs(pixel_values)
    if pixel_values is None or sum(layout.keep_counts) == 0:
        for part in ("vision", "selector", "projector"):
            mark(part)
        batch = assemble(family, layout, input_ids, None, None, request.positions, request.labels, request.pad_token_id)
        return Prepared(batch, layout, None, selector, grids, runs)
    ratios = budget_ratios(layout, family.device)
    if vision is None:
        vision = encode(family, selector, pixel_values, layout.keep_counts, ratios)
        mark("vision")
    inputs = selection_input(family, layout, input_ids, vision, ratios, request.seeds, selector, language)
    selection = choose(selector, inputs, grids)
    if layout.keep_counts == layout.tokens_per_image:
        mark("selector")
        vision_embeds = family.project_all(vision)
    elif inputs.projected is not None and selection.merge_weights is None:
        vision_embeds = selection.apply(inputs.projected)
        mark("selector")
    else:
        kept = selection.apply(vision.features)
        mark("selector")
        vision_embeds = _project(family, kept, layout.keep_counts)
    mark("projector")
    indices = selection.indices
    batch = assemble(
        family, layout, input_ids, vision_embeds, indices, request.positions, request.labels, request.pad_token_id
    )
    return Prepared(batch, layout, selection, selector, grids, runs)


def _project(family: Family, features: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the first `counts[i]` tokens of each image projected, [I, n, D]; the projector sees no other.

    Args:
        family: the model.
        features: [I, n, C].
        counts: of each image, the largest of them n.
    """
    num_images, longest = features.shape[:2]
    if all(count == longest for count in counts):
        return family.project(features)
    places = torch.cat([image * longest + torch.arange(count) for image, count in enumerate(counts)])
    places = places.to(features.device, non_blocking=True)
    projected = family.project(features.flatten(0, 1).index_select(0, places)[None])[0]
    padded = projected.new_zeros((num_images * longest, projected.shape[-1])).index_copy(0, places, projected)
    return padded.view(num_images, longest, -1)


def budget_ratios(layout: Layout, device: torch.device) -> Tensor:
    """Return K / N of each image, [I] float32."""
    ratios = [kept / count for kept, count in zip(layout.keep_counts, layout.tokens_per_image, strict=True)]
    return torch.tensor(ratios, dtype=torch.float32).to(device, non_blocking=True)


def encode(
    family: Family,
    selector: Selector | None,
    pixel_values: Tensor,
    keep_counts: Sequence[int],
    ratios: Tensor,
) -> VisionFeatures:
    """Run the tower; for a method with a budget token, with that token in the images that lose any patch.

    An image that keeps all its patches leaves nothing to choose: it passes through the stock tower, so that the
    full budget is the stock model to the bit. Its `budget_features` are zeros.

    Args:
        family: the model.
        selector: the method; None keeps every token.
        pixel_values: [I, 3, H, W].
        keep_counts: K of each image.
        ratios: [I], K / N.
    """
    if isinstance(selector, ResizingMethod):
        if all(count == family.shape.num_vision_tokens for count in keep_counts):
            return family.encode(pixel_values)
        return _encode_resized(family, selector, pixel_values, keep_counts)
    if selector is None or Need.BUDGET_TOKEN not in selector.needs:
        return family.encode(pixel_values, needs=() if selector is None else selector.needs)
    with_token: list[int] = []
    stock: list[int] = []
    for image, count in enumerate(keep_counts):
        (with_token if count < family.shape.num_vision_tokens else stock).append(image)
    # One at a time, as all that a choice depends on.
    tokens = torch.cat(
        [cast(BudgetTokenMethod, selector).budget_token(ratio) for ratio in torch.tensor_split(ratios, len(ratios))]
    )
    if not stock:
        return family.encode(pixel_values, tokens)
    zeros = tokens.new_zeros((len(pixel_values), family.shape.vision_width), dtype=family.dtype)
    if not with_token:
        return replace(family.encode(pixel_values), budget_features=zeros)
    order = torch.tensor(with_token + stock, dtype=torch.int64).to(family.device, non_blocking=True)
    rows = order[: len(with_token)]
    part = family.encode(pixel_values.index_select(0, rows), tokens.index_select(0, rows))
    whole = family.encode(pixel_values.index_select(0, order[len(with_token) :]))
    assert part.budget_features is not None
    features = torch.cat([part.features, whole.features]).index_select(0, order.argsort())
    return VisionFeatures(features, zeros.index_copy(0, rows, part.budget_features))


def _encode_resized(
    family: Family, selector: ResizingMethod, pixel_values: Tensor, keep_counts: Sequence[int]
) -> VisionFeatures:
    """Run the tower on smaller pictures, once for each K, and put each token where it stands in the full grid."""
    grid, shape = family.shape.grid, family.shape
    features = pixel_values.new_zeros(
        (len(pixel_values), shape.num_vision_tokens, shape.vision_width), dtype=family.dtype
    )
    for keep_count in sorted(set(keep_counts) - {0}):
        same = [image for image, count in enumerate(keep_counts) if count == keep_count]
        rows = torch.tensor(same, dtype=torch.int64).to(family.device, non_blocking=True)
        smaller = family.encode(pixel_values.index_select(0, rows), grid=selector.tower_grid(keep_count, grid))
        places = selector.places(keep_count, grid).to(family.device, non_blocking=True)
        full = features.new_zeros((len(same), *features.shape[1:])).index_copy(1, places, smaller.features)
        features = features.index_copy(0, rows, full)
    return VisionFeatures(features)


def read_own_counts(
    family: Family,
    selector: OwnCountMethod,
    layout: Layout,
    request: Request,
    *,
    language: Language | None = None,
    clock: StageClock | None = None,
) -> tuple[VisionFeatures, tuple[int, ...]]:
    """Run the tower, and read the counts that a method finds for itself: the one wait for the device before the LLM.

    Args:
        family: the model.
        selector: sets its own counts.
        layout: planned as if every token stayed, on the family's device.
        request: on the family's device, with images.
        language: for methods that read the question's words.
        clock: marks "vision".

    Returns:
        The tower's output, to be given to `prepare`, and K of each image.
    """
    ids, pixel_values, seeds = request.input_ids, request.pixel_values, request.seeds
    assert pixel_values is not None
    ratios = budget_ratios(layout, family.device)
    vision = encode(family, selector, pixel_values, layout.keep_counts, ratios)
    if clock is not None:
        clock.mark("vision")
    inputs = selection_input(family, layout, ids, vision, ratios, seeds, selector, language)
    with torch.autocast(family.device.type, enabled=False):
        images = image_inputs(inputs, family.grids(pixel_values))
        read = (declared_inputs(selector.name, selector.needs, one) for one in images)
        counts = [selector.own_counts(one) for one in read]
    return vision, tuple(map(int, torch.cat(counts).tolist()))


def selection_input(
    family: Family,
    layout: Layout,
    input_ids: Tensor,
    vision: VisionFeatures,
    ratios: Tensor,
    seeds: Sequence[int],
    selector: Selector | None = None,
    language: Language | None = None,
) -> SelectionInput:
    """Gather what a selector may read, one row per image.

    Args:
        family: the model.
        layout: of the batch.
        input_ids: [B, L], the original ids.
        vision: the tower's output.
        ratios: [I], K / N.
        seeds: one per sample.
        selector: whose needs are met; None for none.
        language: for methods that read the question's words.

    Raises:
        InputError: if such a method is given no `language`.
    """
    needs = frozenset() if selector is None else selector.needs
    if language is None and needs & {Need.WORDS, Need.TEXT_TOWER}:
        raise InputError("a method that reads the question's words needs the model's tokenizer: give a processor")
    samples = torch.tensor(layout.sample_of_image, dtype=torch.int64).to(family.device, non_blocking=True)
    question = family.embed_text(input_ids.gather(1, layout.question_columns))
    return SelectionInput(
        features=vision.features,
        grid=family.shape.grid,
        keep_counts=layout.keep_counts,
        budget_ratios=ratios,
        seeds=image_seeds(layout, seeds).to(family.device, non_blocking=True),
        question_embeds=question.index_select(0, samples),
        question_mask=layout.question_mask.index_select(0, samples),
        question_lengths=tuple(len(layout.prompts[sample].question_ids) for sample in layout.sample_of_image),
        budget_features=vision.budget_features,
        feature_layer=vision.feature_layer,
        last_layer=vision.last_layer,
        projected=_projected(family, vision, layout) if Need.PROJECTED in needs else None,
        **_question_inputs(family, layout, vision, samples, selector, language),
    )


def _projected(family: Family, vision: VisionFeatures, layout: Layout) -> Tensor:
    """Return all tokens projected, [I, N, D], for a method to choose by: each image on its own, whatever the batch.

    Where nothing is dropped nothing is chosen, and they are the stock model's.
    """
    counts = layout.tokens_per_image
    if layout.keep_counts == counts:
        return family.project_all(vision)
    images = [family.project(vision.features[image : image + 1, :count].clone()) for image, count in enumerate(counts)]
    longest = vision.features.shape[1]
    return torch.cat([F.pad(image, (0, 0, 0, longest - image.shape[1])) for image in images])


def _question_inputs(
    family: Family,
    layout: Layout,
    vision: VisionFeatures,
    samples: Tensor,
    selector: Selector | None,
    language: Language | None,
) -> dict[str, Any]:
    """Return what a method reads of the question's words, one row per image."""
    if selector is None or language is None or not selector.needs & {Need.WORDS, Need.TEXT_TOWER}:
        return {}
    questions = language.wording.questions(layout)
    read: dict[str, Any] = {}
    if Need.WORDS in selector.needs:
        embeds, mask, lengths = embed_words(family, cast(WordsMethod, selector), questions, language.wording)
        read |= {"word_embeds": embeds.index_select(0, samples), "word_mask": mask.index_select(0, samples)}
        read["word_lengths"] = tuple(lengths[sample] for sample in layout.sample_of_image)
    if Need.TEXT_TOWER in selector.needs and language.text_tower is not None:
        of_images = [questions[sample] for sample in layout.sample_of_image]
        relevance = [
            language.text_tower.relevance(vision.features[image : image + 1].clone(), [question])
            for image, question in enumerate(of_images)
        ]
        read["text_relevance"] = torch.cat(relevance)
    return read


def image_seeds(layout: Layout, seeds: Sequence[int]) -> Tensor:
    """Return a seed for each image, [I] int64 on the host: its sample's, plus its place within the sample.

    Raises:
        InputError: if the number of seeds is not the number of samples.
    """
    if len(seeds) != len(layout.prompts):
        raise InputError(f"{len(seeds)} seeds for a batch of {len(layout.prompts)} samples: give one, or one each")
    wrapped = [
        wrap_seed(seed + place)
        for seed, prompt in zip(seeds, layout.prompts, strict=True)
        for place in range(len(prompt.spans))
    ]
    return torch.tensor(wrapped, dtype=torch.int64)


def wrap_seed(seed: int) -> int:
    """Return a seed of any size as an int64."""
    return (seed + 2**63) % 2**64 - 2**63


def assemble(
    family: Family,
    layout: Layout,
    input_ids: Tensor,
    vision_embeds: Tensor | None,
    kept_indices: Tensor | None,
    positions: Positions,
    labels: Tensor | None = None,
    pad_token_id: int | None = None,
) -> CompactBatch:
    """Make the shortened batch.

    Args:
        family: the model.
        layout: of the batch, on the family's device.
        input_ids: [B, L], the original ids.
        vision_embeds: [I, Kmax, D], projected, or None.
        kept_indices: [I, Kmax], or None.
        positions: see `compact_positions`.
        labels: [B, L] or None.
        pad_token_id: that padding is written with; None = the family's.
    """
    ids = compact_ids(layout, input_ids, family.pad_token_id if pad_token_id is None else pad_token_id)
    # A placeholder's id may lie outside the embedding: what stands there is replaced anyway.
    text_embeds = family.embed_text(ids.masked_fill(layout.vision_slots >= 0, family.pad_token_id))
    return CompactBatch(
        input_ids=ids,
        inputs_embeds=merge_embeds(layout, text_embeds, vision_embeds),
        attention_mask=layout.attention_mask,
        position_ids=compact_positions(layout, kept_indices, positions),
        labels=None if labels is None else compact_labels(layout, labels),
    )
