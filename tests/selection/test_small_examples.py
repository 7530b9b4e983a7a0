"""Literal small examples of training-free methods, worked out by hand."""

import math

import pytest
import torch
from selector_inputs import SHAPE, selection_input

from adallava.errors import AdallavaError, InputError
from adallava.selection import build_selector
from adallava.selection.cdpruner import map_order
from adallava.selection.divprune import max_min_order
from adallava.selection.downsample import covered_centres, smaller_grid
from adallava.selection.greedy import first_k_in_order
from adallava.selection.mmtok import cover_order
from adallava.selection.prumerge_k import outlier_count
from adallava.selection.prumerge_plus_k import evenly_spread
from adallava.selection.tome import merge_rounds, merge_to
from adallava.selection.visionzip import contextual_count


def on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor([math.radians(degree) for degree in degrees])
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[None]


def between(*degrees: float) -> torch.Tensor:
    """Return 1 less the cosine between directions in a plane."""
    directions = on_circle(*degrees)
    return 1 - directions @ directions.transpose(1, 2)


def test_the_farthest_from_its_neighbour_comes_first_then_the_farthest_from_all_kept() -> None:
    assert max_min_order(between(0, 10, 90, 180), 4).tolist() == [[3, 0, 2, 1]]


def test_a_token_is_not_kept_twice_even_if_all_are_equal() -> None:
    assert len(set(max_min_order(torch.zeros(1, 5, 5), 5)[0].tolist())) == 5


def test_a_determinantal_pick_has_the_largest_volume_left() -> None:
    # Lengths 3, 2.9, 2: the second is parallel to the first, so the third comes second.
    vectors = torch.tensor([[3.0, 0.0], [2.9, 0.0], [0.0, 2.0]])
    assert map_order((vectors @ vectors.T)[None], 3).tolist() == [[0, 2, 1]]


def test_past_the_rank_of_the_kernel_the_most_relevant_are_taken() -> None:
    quality = torch.tensor([0.5, 1.0, 0.9, 0.2, 0.8])
    direction = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]])
    similarity = direction @ direction.T
    order = map_order((quality[:, None] * similarity * quality[None, :])[None], 5)
    assert order.tolist() == [[1, 4, 2, 0, 3]]


def test_a_pick_covers_what_is_not_covered_yet() -> None:
    # Columns are tokens: the first covers two things well, the second the same less well, the third the rest.
    coverage = torch.tensor([[[0.9, 0.8, 0.0], [0.9, 0.8, 0.0], [0.0, 0.1, 0.5]]])
    assert cover_order(coverage.transpose(1, 2), 3).tolist() == [[0, 2, 1]]


def test_greedy_orders_are_cut_at_each_rows_k() -> None:
    order = torch.tensor([[4, 1, 3], [2, 0, 5], [1, 2, 3]])
    kept = first_k_in_order(order, (3, 1, 6), 6)
    assert kept.tolist() == [[1, 3, 4, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("asked", "grid", "smaller"),
    [
        (64, (24, 24), (8, 8)),
        (192, (24, 24), (13, 13)),
        (50, (16, 16), (7, 7)),
        (3, (16, 16), (1, 1)),
        (7, (4, 6), (2, 3)),
    ],
)
def test_a_smaller_picture_has_the_largest_grid_that_fits(
    asked: int, grid: tuple[int, int], smaller: tuple[int, int]
) -> None:
    assert smaller_grid(asked, grid) == smaller


def test_a_token_of_a_smaller_picture_stands_in_the_middle_of_what_it_covers() -> None:
    assert covered_centres((4, 4), (2, 2)).tolist() == [0, 2, 8, 10]
    assert covered_centres((6, 6), (2, 2)).tolist() == [7, 10, 25, 28]


def test_published_budgets_of_visionzip_have_their_contextual_tokens() -> None:
    assert [contextual_count(count) for count in (64, 128, 192)] == [10, 20, 30]


def test_rounds_of_merging_halve_until_k() -> None:
    assert merge_rounds(16, 3) == [8, 4, 1]
    assert merge_rounds(576, 64) == [288, 144, 72, 8]
    assert merge_rounds(5, 5) == []


def test_two_pairs_of_equal_tokens_become_their_means() -> None:
    # Even places 0, 2 join the odd place that looks the same: 0 joins 3, 2 joins 1.
    places, weights = merge_to(on_circle(0, 90, 90, 0), 2)
    assert places.tolist() == [[1, 3]]
    torch.testing.assert_close(weights, torch.tensor([[[0.0, 0.5, 0.5, 0.0], [0.5, 0.0, 0.0, 0.5]]]))


def test_outliers_lie_above_the_quartiles_range() -> None:
    # Quartiles of 1 … 9 are 3 and 7, so that the bound is 13.
    assert outlier_count(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 9]])).tolist() == [0]
    assert outlier_count(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 13.5]])).tolist() == [1]


def test_tokens_are_spread_as_the_published_144_are() -> None:
    assert evenly_spread(72, 576).nonzero().flatten().tolist() == list(range(4, 575, 8))


def test_visionzip_adds_the_mean_of_what_joins() -> None:
    inputs = selection_input([16])
    selection = build_selector("visionzip", SHAPE).select(inputs)
    weights = selection.merge_weights
    assert weights is not None
    dominant, contextual = 16 - contextual_count(16), contextual_count(16)
    assert (contextual, (weights.sum(dim=2) < 1.5).sum().item() >= dominant) == (3, True)
    # Every token is in the result exactly once: as itself, or in one mean.
    assert ((weights > 0).sum(dim=1) == 1).all()


def test_prumerge_puts_what_is_dropped_into_one_token() -> None:
    inputs = selection_input([6])
    assert inputs.last_layer is not None
    attention = inputs.last_layer.cls_attention(num_heads=1)[0, 0]
    selection = build_selector("prumerge-k", SHAPE).select(inputs)
    centres = sorted(attention.topk(5).indices.tolist())
    dropped = sorted(set(range(24)) - set(centres))
    (place,) = set(selection.indices[0].tolist()) - set(centres)
    assert place == max(dropped, key=lambda token: float(attention[token]))
    expected = (attention[dropped, None] * inputs.features[0, dropped]).sum(dim=0)
    row = selection.indices[0].tolist().index(place)
    torch.testing.assert_close(selection.apply(inputs.features)[0, row], expected, atol=1e-5, rtol=1e-5)


def test_options_that_mean_nothing_are_named() -> None:
    with pytest.raises(AdallavaError, match=r"relevance='clip' is refused: .*'text-tower', 'llm-embeddings' or 'none'"):
        build_selector("cdpruner", SHAPE, relevance="clip")
    with pytest.raises(InputError, match="must be above 0"):
        build_selector("mmtok", SHAPE, word_temperature=0.0)
    with pytest.raises(AdallavaError, match=r"options \(size=3\): it takes none"):
        build_selector("tome", SHAPE, size=3)
    with pytest.raises(AdallavaError, match=r"options \(size=3\): it takes relevance, "):
        build_selector("cdpruner", SHAPE, size=3)
