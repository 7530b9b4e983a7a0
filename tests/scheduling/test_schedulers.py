"""What every scheduler chooses, on tensors alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adallava.errors import AdallavaError, BudgetError, InputError, UnknownNameError, UnsupportedModeError
from adallava.registry import load_scheduler_class, scheduler_names
from adallava.scheduling import build_scheduler
from adallava.scheduling.scheduler_contract import (
    DecoderShape,
    ScheduleInput,
    Scheduler,
    TokenScheduler,
    Units,
    top_units,
)

SHAPE = DecoderShape(num_layers=8, width=48, query_heads=6, kv_heads=2, mlp_width=96)
EVERY_PLAN = "6/4+7/4+6+7"


OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"plans": EVERY_PLAN}, "adallava-heads": {"rank": 3}}


def _shape(name: str) -> DecoderShape:
    return replace(SHAPE, kv_heads=6) if name == "adallava-heads" else SHAPE


def _built(name: str) -> Any:
    torch.manual_seed(0)
    return build_scheduler(name, _shape(name), **OPTIONS.get(name, {}))


def _input(scheduler: Any, counts: tuple[int, ...], seeds: list[int] | None = None) -> ScheduleInput:
    states = torch.randn(len(counts), SHAPE.width, generator=torch.Generator().manual_seed(1))
    return ScheduleInput(
        scheduler.units(_shape(scheduler.name)),
        counts,
        torch.tensor(seeds or list(range(len(counts)))),
        states if isinstance(scheduler, TokenScheduler) else None,
    )


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_keeps_the_contract(name: str) -> None:
    scheduler = _built(name)
    assert isinstance(scheduler, Scheduler)
    assert scheduler.name == name
    assert scheduler.learned == isinstance(scheduler, nn.Module) == isinstance(scheduler, TokenScheduler)
    units = scheduler.units(_shape(name))
    assert (units.num_layers, units.prefix_layers) == (8, 4)
    assert units.count == (8 if name.endswith("heads") else 4)


@pytest.mark.parametrize("name", scheduler_names())
def test_exactly_n_units_alike_in_every_batch(name: str) -> None:
    scheduler = _built(name)
    counts = tuple(range(scheduler.units(_shape(name)).count + 1))
    inputs = _input(scheduler, counts)
    active = scheduler.schedule(inputs).active
    assert active.dtype == torch.bool
    assert active.sum(dim=1).tolist() == list(counts)
    for row, count in enumerate(counts):
        states = None if inputs.states is None else inputs.states[row : row + 1]
        alone = scheduler.schedule(ScheduleInput(inputs.units, (count,), inputs.seeds[row : row + 1], states))
        assert torch.equal(alone.active[0], active[row])


def _chosen(name: str, count: int, seed: int = 0) -> list[int]:
    scheduler = _built(name)
    (row,) = scheduler.schedule(_input(scheduler, (count,), [seed])).active
    return row.nonzero().flatten().tolist()  # type: ignore[no-any-return]


def test_baselines_by_hand() -> None:
    assert [_chosen("first", n) for n in range(5)] == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    # The middle of each of n equal stretches of four.
    assert [_chosen("spaced", n) for n in range(5)] == [[], [2], [1, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert [_chosen("fixed", n) for n in range(5)] == [[], [2], [0, 3], [0, 2, 3], [0, 1, 2, 3]]


def test_random_draws_by_its_seed_alone() -> None:
    assert _chosen("random", 2, 5) == _chosen("random", 2, 5)
    assert len({tuple(_chosen("random", 2, seed)) for seed in range(40)}) == 6
    # What runs at less is part of what runs at more.
    assert set(_chosen("random", 1, 9)) < set(_chosen("random", 2, 9)) < set(_chosen("random", 3, 9))


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.integers(0, 4))
def test_the_highest_logits_run_and_ties_go_to_the_earlier(scores: list[float], count: int) -> None:
    (active,) = top_units(torch.tensor([scores]), (count,))
    expected = sorted(range(4), key=lambda unit: (-torch.tensor(scores)[unit].item(), unit))[:count]
    assert active.nonzero().flatten().tolist() == sorted(expected)


@pytest.mark.parametrize("name", ["layers", "heads"])
def test_a_fresh_token_adds_nothing_and_learns(name: str) -> None:
    scheduler = _built(name)
    token = scheduler.latency_token(torch.tensor([0.5, 0.75]))
    assert token.shape == (2, 48)
    assert torch.equal(token, torch.zeros(2, 48))
    (gradient,) = torch.autograd.grad(token.sum(), [scheduler.latency_mlp[2].weight])
    assert gradient.abs().sum() > 0
    # The scale of the states plays no role.
    states = torch.randn(2, 48)
    torch.testing.assert_close(scheduler.logits(states), scheduler.logits(1000 * states), atol=1e-4, rtol=1e-4)


def test_flops_are_what_pytorch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for name in ("layers", "heads", "adallava-layers", "adallava-heads"):
        scheduler = _built(name)
        counter = FlopCounterMode(display=False)
        with counter:
            scheduler.latency_token(torch.tensor([0.5]))
            scheduler.logits(torch.randn(1, 48))
        assert scheduler.flops() == counter.get_total_flops()


@pytest.mark.parametrize("name", ["adallava-layers", "adallava-heads"])
def test_a_published_token_reads_how_many_units_run_and_the_head_the_state_as_it_is(name: str) -> None:
    scheduler = _built(name)
    units = scheduler.units(_shape(name))
    asked: list[Any] = []
    scheduler.latency_mlp.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    scheduler.latency_token(torch.tensor([units.share(count) for count in range(units.count + 1)]))
    # The first frequency is 1: the angle itself, n of U + 1 parts of a circle.
    sines, cosines = asked[0][:, 0], asked[0][:, 128]
    turns = torch.arange(units.count + 1) / (units.count + 1) * 2 * torch.pi
    torch.testing.assert_close(sines, turns.sin(), atol=1e-5, rtol=0)
    torch.testing.assert_close(cosines, turns.cos(), atol=1e-5, rtol=0)
    states = torch.randn(2, 48)
    assert not torch.allclose(scheduler.logits(states), scheduler.logits(10 * states), atol=1e-2)


def test_heads_and_slices_by_hand() -> None:
    """Two layers of four heads, rank 2: the picture of the module, and a layer whose best is in between."""
    shape = DecoderShape(num_layers=3, width=8, query_heads=4, kv_heads=4, mlp_width=16)
    scheduler: Any = build_scheduler("adallava-heads", shape, rank=2, prefix_layers=1)
    logits = torch.tensor([[5.0, 1, 4, 0, 2, 3, 9, 1, 0, 0.5, 0.2, 0.1, 3, 6, 1, 2]])
    chosen = []
    for count in range(5):
        made = scheduler.choose(logits, ScheduleInput(scheduler.units(shape), (count,), torch.tensor([0])))
        parts = [made.parts.heads[0], made.parts.slices[0]]
        chosen.append([[layer.nonzero().flatten().tolist() for layer in part] for part in parts])
    everything = [0, 1, 2, 3]
    assert chosen == [
        [[[], []], [[], []]],
        [[[0, 2], []], [[1, 2], []]],
        [[[0, 2], [1, 2]], [[1, 2], [0, 1]]],
        # The bests left are 2 in either layer: the earlier one goes first.
        [[everything, [1, 2]], [everything, [0, 1]]],
        [[everything, everything], [everything, everything]],
    ]


def test_prefixes_and_groups_that_do_not_fit_are_refused() -> None:
    assert build_scheduler("heads", DecoderShape(32, 4096, 32, 32, 11008)).units(SHAPE_7B) == Units(32, 16, 4)
    for prefix in (0, 8):
        for name in ("first", "layers"):
            with pytest.raises(UnsupportedModeError, match=f"prefix_layers is {prefix}.*at least 1 and at most 7"):
                build_scheduler(name, SHAPE, prefix_layers=prefix)
    assert build_scheduler("adallava-heads", SHAPE_7B).units(SHAPE_7B) == Units(32, 16, 4)
    with pytest.raises(UnsupportedModeError, match="2 for 6: use 'heads'"):
        build_scheduler("adallava-heads", SHAPE)
    with pytest.raises(UnsupportedModeError, match="6 heads and 96 neurons cannot be split into units of 4 heads"):
        build_scheduler("adallava-heads", _shape("adallava-heads"), rank=4)
    with pytest.raises(UnsupportedModeError, match="2 key-value heads and 96 neurons cannot be split into 3 groups"):
        build_scheduler("heads", SHAPE, groups=3)


SHAPE_7B = DecoderShape(32, 4096, 32, 32, 11008)


@pytest.mark.parametrize(
    ("plans", "message"),
    [("4+x", "is not a list"), ("4+4", "is not a list"), ("4+5/5+6", "hold two of 2 layers"), ("3+5", "names layer 3")],
)
def test_a_fixed_plan_that_means_nothing_is_refused(plans: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_scheduler("fixed", SHAPE, plans=plans)


def test_a_fixed_plan_that_is_missing_is_told() -> None:
    scheduler = build_scheduler("fixed", SHAPE, plans=6)
    with pytest.raises(BudgetError, match=r"no plan of 2 layers .* \(it has plans of 1\)"):
        scheduler.schedule(_input(scheduler, (2,)))


def test_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no scheduler 'layer': did you mean 'layers'"):
        load_scheduler_class("layer")
    with pytest.raises(AdallavaError, match=r"'first' does not take these options \(tau=3\): it takes prefix_layers"):
        build_scheduler("first", SHAPE, tau=3)


@pytest.mark.parametrize("value", ["two", 2.5, True])
def test_an_option_of_another_type_is_refused_before_anything_runs(value: object) -> None:
    with pytest.raises(AdallavaError, match=r"scheduler 'spaced': prefix_layers=.* is refused: Input should be"):
        build_scheduler("spaced", SHAPE, prefix_layers=value)
