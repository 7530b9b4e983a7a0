import torch

from adallava.selection.gumbel import gumbel_top_k


def test_exactly_k_gates_are_one_and_they_are_the_indices() -> None:
    logits = torch.randn(4, 20)
    indices, gates = gumbel_top_k(logits, [1, 5, 20, 0])
    for row, count in enumerate([1, 5, 20, 0]):
        assert gates[row].nonzero().flatten().tolist() == indices[row, :count].tolist()
    assert set(gates.unique().tolist()) == {0.0, 1.0}


def test_the_gradient_is_that_of_the_softmax_at_tau() -> None:
    logits = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 6, dtype=torch.float64)
    _, gates = gumbel_top_k(logits, [2, 3], tau=5.0, generator=torch.Generator().manual_seed(3))
    (gates * weights).sum().backward()

    generator = torch.Generator().manual_seed(3)
    noise = -torch.empty(2, 6, dtype=torch.float64).exponential_(generator=generator).log()
    again = logits.detach().clone().requires_grad_()
    (torch.softmax((again + noise) / 5.0, dim=-1) * weights).sum().backward()
    torch.testing.assert_close(logits.grad, again.grad)


def test_draws_follow_the_logits() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(4000, -1)
    indices, _ = gumbel_top_k(logits, [1] * 4000, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(indices.flatten(), minlength=3) / 4000
    # Four standard deviations of a share of 0.7 over 4000 draws are 0.029.
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0.0)
