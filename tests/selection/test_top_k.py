import torch

from adallava.selection.selector_contract import Selection, top_k_in_order


def test_a_literal_table() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.0, 0.0, 1.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    assert top_k_in_order(scores, [2, 3, 0]).tolist() == [[1, 3, 0], [0, 1, 2], [0, 0, 0]]


def test_nothing_kept_has_no_columns() -> None:
    assert top_k_in_order(torch.rand(2, 5), [0, 0]).shape == (2, 0)


def test_a_gather_takes_each_rows_own_indices() -> None:
    features = torch.arange(12.0).view(2, 3, 2)
    kept = Selection(torch.tensor([[0, 2], [1, 2]]), (2, 2)).apply(features)
    assert kept.tolist() == [[[0, 1], [4, 5]], [[8, 9], [10, 11]]]
