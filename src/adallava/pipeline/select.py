"""A method's choice over a batch, made for one image after the other: it never depends on what else is in the batch.

What is equal in exact arithmetic need not be equal in bits: how a product or a sum is rounded depends on its shape and
on the strides of what it reads, and a choice between two tokens that are as good as equal depends on the rounding. So a
method is asked about one image at a time, [1, N, C], in memory of its own, without the padding that other images or
questions of the batch would bring. Greedy methods, whose steps are many and small, are asked for each image's table,
and take their steps over all tables of one shape together: those steps compare and add element by element.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from adallava.pipeline.checked import check_merging, check_selection, declared_inputs
from adallava.pipeline.stage_runner import PLAIN, Stages
from adallava.selection.greedy import greedy_selection
from adallava.selection.selector_contract import GreedyMethod, Selection, SelectionInput, Selector

_Grid = tuple[int, int]


def choose(
    selector: Selector | None, inputs: SelectionInput, grids: Sequence[_Grid], *, stages: Stages = PLAIN
) -> Selection:
    """Return the method's choice; every token if there is no method.

    Args:
        selector: the method, or None.
        inputs: of all images.
        grids: (rows, columns) of each image.
        stages: runs the method.

    Raises:
        AdallavaError: if the method did not keep what it was asked to keep.
    """
    num_images, num_tokens = inputs.features.shape[:2]
    if selector is None:
        everything = torch.arange(num_tokens, device=inputs.features.device).expand(num_images, -1)
        return Selection(everything, inputs.keep_counts)
    # A method computes in the types of what it is given, also where the model runs under autocast.
    with torch.autocast(inputs.features.device.type, enabled=False):
        if isinstance(selector, GreedyMethod):
            return _put_together(list(_choose_greedily(selector, inputs, grids, stages)), inputs)
        return _put_together(list(_choose_each(selector, inputs, grids, stages)), inputs)


def image_inputs(inputs: SelectionInput, grids: Sequence[_Grid]) -> Iterator[SelectionInput]:
    """Give what a method may read of each image, in memory of its own and without padding."""
    for image, grid in enumerate(grids):
        yield _of_image(inputs, image, grid)


def _choose_each(
    selector: Selector, inputs: SelectionInput, grids: Sequence[_Grid], stages: Stages
) -> Iterator[tuple[tuple[int, ...], Selection]]:
    for image, one in enumerate(image_inputs(inputs, grids)):
        if one.keep_counts[0] > 0:
            yield (image,), stages.run(selector, "select", partial(_select, selector), one)


def _choose_greedily(
    selector: GreedyMethod, inputs: SelectionInput, grids: Sequence[_Grid], stages: Stages
) -> Iterator[tuple[tuple[int, ...], Selection]]:
    """Make the tables one by one, and take the steps of those of one shape together."""
    tables: dict[torch.Size, list[tuple[int, Tensor, Tensor | None]]] = {}
    for image, one in enumerate(image_inputs(inputs, grids)):
        if one.keep_counts[0] == one.features.shape[1]:
            yield (image,), stages.run(selector, "select", partial(_select, selector), one)
        elif one.keep_counts[0] > 0:
            table, scores = stages.run(selector, "table", partial(_table, selector), one)
            tables.setdefault(table.shape, []).append((image, table, scores))
    for alike in tables.values():
        images = tuple(image for image, _, _ in alike)
        counts = tuple(inputs.keep_counts[image] for image in images)
        table = torch.cat([one for _, one, _ in alike])
        scored = [scores for _, _, scores in alike if scores is not None]
        steps = partial(greedy_selection, selector)
        selection = stages.run(selector, "steps", steps, table, counts, torch.cat(scored) if scored else None)
        sizes = [grids[image][0] * grids[image][1] for image in images]
        selection = check_selection(selector.name, selection, counts, sizes)
        check_merging(selector, selection, sizes)
        yield images, selection


def _table(selector: GreedyMethod, inputs: SelectionInput) -> tuple[Tensor, Tensor | None]:
    """Ask for one image's table."""
    return selector.table(declared_inputs(selector.name, selector.needs, inputs))


def _select(selector: Selector, inputs: SelectionInput) -> Selection:
    """Ask about one image."""
    selection = selector.select(declared_inputs(selector.name, selector.needs, inputs))
    sizes = [inputs.features.shape[1]]
    selection = check_selection(selector.name, selection, inputs.keep_counts, sizes)
    check_merging(selector, selection, sizes)
    return selection


def _of_image(inputs: SelectionInput, image: int, grid: _Grid) -> SelectionInput:
    """Return what a selector may read of one image: its tokens, and its question without padding."""
    num_tokens = grid[0] * grid[1]

    def own(table: Tensor | None, length: int | None = None) -> Tensor | None:
        """Return the image's part of a table, if there is that table."""
        return None if table is None else needed(table, length)

    def needed(table: Tensor, length: int | None = None) -> Tensor:
        """Return the image's part of a table, [1, length, ...]."""
        row = table[image : image + 1, :length]
        # A copy, so that where it begins in memory does not depend on the batch either.
        is_alone = row.shape == table.shape and row.is_contiguous() and row.storage_offset() == 0
        return table if is_alone else row.clone()

    def length_of(lengths: tuple[int, ...] | None) -> int | None:
        """Return the image's length, at least 1; None if lengths are not known."""
        return None if lengths is None else max(1, lengths[image])

    words, asked = length_of(inputs.word_lengths), length_of(inputs.question_lengths)
    return replace(
        inputs,
        features=needed(inputs.features, num_tokens),
        grid=grid,
        keep_counts=inputs.keep_counts[image : image + 1],
        budget_ratios=inputs.budget_ratios[image : image + 1],
        seeds=inputs.seeds[image : image + 1],
        question_embeds=needed(inputs.question_embeds, asked),
        question_mask=needed(inputs.question_mask, asked),
        question_lengths=None,
        budget_features=own(inputs.budget_features),
        attention_received=own(inputs.attention_received, num_tokens),
        feature_layer=None if inputs.feature_layer is None else inputs.feature_layer.of_image(image, num_tokens),
        last_layer=None if inputs.last_layer is None else inputs.last_layer.of_image(image, num_tokens),
        projected=own(inputs.projected, num_tokens),
        word_embeds=own(inputs.word_embeds, words),
        word_mask=own(inputs.word_mask, words),
        word_lengths=None,
        text_relevance=own(inputs.text_relevance, num_tokens),
    )


def _put_together(chosen: Sequence[tuple[tuple[int, ...], Selection]], inputs: SelectionInput) -> Selection:
    num_images, num_tokens = inputs.features.shape[:2]
    if num_images == 1 and chosen:
        return _alone(chosen[0][1])
    k_max, device = max(inputs.keep_counts), inputs.features.device
    indices = torch.zeros((num_images, k_max), dtype=torch.int64, device=device)
    scored = all(selection.scores is not None for _, selection in chosen)
    merged = any(selection.merge_weights is not None for _, selection in chosen)
    scores = torch.zeros((num_images, num_tokens), device=device) if scored else None
    weights = torch.zeros((num_images, k_max, num_tokens), device=device) if merged else None
    for images, selection in chosen:
        for number, image in enumerate(images):
            _put(image, _row(selection, number), indices, scores, weights)
    flags = [selection.within for _, selection in chosen if selection.within is not None]
    return Selection(indices, inputs.keep_counts, scores, weights, torch.stack(flags).all() if flags else None)


def _alone(selection: Selection) -> Selection:
    """Return the choice for a batch of one image."""
    scores, weights = selection.scores, selection.merge_weights
    return replace(
        selection,
        scores=None if scores is None else scores.float(),
        merge_weights=None if weights is None else weights.float(),
    )


def _row(selection: Selection, number: int) -> Selection:
    """Return the choice for one image of several."""
    rows = slice(number, number + 1)
    return Selection(
        selection.indices[rows],
        selection.keep_counts[rows],
        None if selection.scores is None else selection.scores[rows],
        None if selection.merge_weights is None else selection.merge_weights[rows],
    )


def _put(image: int, one: Selection, indices: Tensor, scores: Tensor | None, weights: Tensor | None) -> None:
    """Write one image's choice into its row of the tables of all."""
    kept = one.indices.shape[1]
    indices[image, :kept] = one.indices[0]
    if scores is not None and one.scores is not None:
        # After an image's own tokens its first score again: lowest and highest stay what they are.
        scores[image] = one.scores[0, 0]
        scores[image, : one.scores.shape[1]] = one.scores[0]
    if weights is not None:
        own = one.merge_weights
        if own is None:
            own = torch.nn.functional.one_hot(one.indices, weights.shape[2])
        weights[image, :kept, : own.shape[2]] = own[0]
