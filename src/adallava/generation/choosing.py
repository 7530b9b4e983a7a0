"""A method's choice over a batch: once for each grid of tokens among the batch's images.

A method reads images of one grid at a time, [I, N, C] with rows * columns = N. Where a batch holds several, its rows
are taken apart by grid, chosen from, and put together again:

    grids (4, 4) (6, 5) (4, 4)   →   rows 0, 2 of 16 tokens │ row 1 of 30   →   indices [3, Kmax] of all three
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from adallava.generation.checked import check_selection, declared_inputs
from adallava.selection.contract import Selection, SelectionInput, Selector, TowerLayer

_Grid = tuple[int, int]


def choose(selector: Selector | None, inputs: SelectionInput, grids: Sequence[_Grid]) -> Selection:
    """Return the method's choice; every token if there is no method.

    Args:
        selector: the method, or None.
        inputs: of all images.
        grids: (rows, columns) of each image.

    Raises:
        AdallavaError: if the method did not keep what it was asked to keep.
    """
    num_images, num_tokens = inputs.features.shape[:2]
    if selector is None:
        everything = torch.arange(num_tokens, device=inputs.features.device).expand(num_images, -1)
        return Selection(everything, inputs.keep_counts)
    parts = list(split_by_grid(inputs, grids))
    if len(parts) == 1:
        return _choose_alike(selector, parts[0][1])
    chosen = [(images, _choose_alike(selector, part)) for images, part in parts if max(part.keep_counts) > 0]
    return _put_together(chosen, inputs)


def split_by_grid(inputs: SelectionInput, grids: Sequence[_Grid]) -> Iterator[tuple[tuple[int, ...], SelectionInput]]:
    """Give, for each grid, the images that have it and what a method may read of them."""
    distinct = tuple(dict.fromkeys(grids))
    if len(distinct) == 1:
        yield tuple(range(len(grids))), replace(inputs, grid=distinct[0])
        return
    for grid in distinct:
        images = tuple(image for image, other in enumerate(grids) if other == grid)
        yield images, _of_images(inputs, images, grid)


def _choose_alike(selector: Selector, inputs: SelectionInput) -> Selection:
    selection = selector.select(declared_inputs(selector.name, selector.needs, inputs))
    num_images, num_tokens = inputs.features.shape[:2]
    return check_selection(selector.name, selection, inputs.keep_counts, [num_tokens] * num_images)


def _of_images(inputs: SelectionInput, images: Sequence[int], grid: _Grid) -> SelectionInput:
    """Return what a selector may read of some images, all of one grid, without what stands behind their tokens."""
    rows = torch.tensor(images, dtype=torch.int64).to(inputs.features.device, non_blocking=True)
    num_tokens = grid[0] * grid[1]

    def of_tokens(table: Tensor | None) -> Tensor | None:
        return None if table is None else table.index_select(0, rows)[:, :num_tokens]

    def of_images(table: Tensor | None) -> Tensor | None:
        return None if table is None else table.index_select(0, rows)

    def of_layer(layer: TowerLayer | None) -> TowerLayer | None:
        return None if layer is None else layer.of_images(rows, num_tokens)

    return replace(
        inputs,
        features=inputs.features.index_select(0, rows)[:, :num_tokens],
        grid=grid,
        keep_counts=tuple(inputs.keep_counts[image] for image in images),
        budget_ratios=inputs.budget_ratios.index_select(0, rows),
        seeds=inputs.seeds.index_select(0, rows),
        question_embeds=inputs.question_embeds.index_select(0, rows),
        question_mask=inputs.question_mask.index_select(0, rows),
        budget_features=of_images(inputs.budget_features),
        feature_layer=of_layer(inputs.feature_layer),
        last_layer=of_layer(inputs.last_layer),
        projected=of_tokens(inputs.projected),
        word_embeds=of_images(inputs.word_embeds),
        word_mask=of_images(inputs.word_mask),
        text_relevance=of_tokens(inputs.text_relevance),
    )


def _put_together(chosen: Sequence[tuple[tuple[int, ...], Selection]], inputs: SelectionInput) -> Selection:
    num_images, num_tokens = inputs.features.shape[:2]
    k_max, device = max(inputs.keep_counts), inputs.features.device
    indices = torch.zeros((num_images, k_max), dtype=torch.int64, device=device)
    scored = all(selection.scores is not None for _, selection in chosen)
    merged = any(selection.merge_weights is not None for _, selection in chosen)
    scores = torch.zeros((num_images, num_tokens), device=device) if scored else None
    weights = torch.zeros((num_images, k_max, num_tokens), device=device) if merged else None
    for images, selection in chosen:
        rows = torch.tensor(images, dtype=torch.int64).to(device, non_blocking=True)
        kept = selection.indices.shape[1]
        indices[rows, :kept] = selection.indices
        if scores is not None and selection.scores is not None:
            # Behind an image's own tokens its first score again: lowest and highest stay what they are.
            scores[rows] = selection.scores[:, :1].float()
            scores[rows, : selection.scores.shape[1]] = selection.scores.float()
        if weights is not None:
            own = selection.merge_weights
            if own is None:
                own = torch.nn.functional.one_hot(selection.indices, num_tokens)
            weights[rows, :kept, : own.shape[2]] = own.float()
    flags = [selection.within for _, selection in chosen if selection.within is not None]
    return Selection(indices, inputs.keep_counts, scores, weights, torch.stack(flags).all() if flags else None)
