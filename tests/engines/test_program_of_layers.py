"""Which layers a pass runs, and in how many pieces, written down."""

from adallava.engines.layer_pass import LayerStep, Segment
from adallava.engines.program_of_layers import OFTEN, Pieces, cut, layer_steps


def test_layers_that_no_row_runs_are_left_out() -> None:
    runs, not_run = [True], [False]
    same = [[runs, runs], [not_run, not_run], [runs, runs]]
    assert layer_steps(same) == (LayerStep(0), LayerStep(2))
    apart = [[runs, runs], [not_run, runs], [not_run, not_run]]
    assert layer_steps(apart) == (LayerStep(0, masked=True), LayerStep(1, masked=True))


def test_a_layer_is_left_out_if_no_row_runs_any_part_of_it() -> None:
    all_of_it, second_heads, nothing = [True] * 4, [False, True, False, False], [False] * 4
    assert layer_steps([[all_of_it], [nothing]], groups=2) == (LayerStep(0),)
    parted = (LayerStep(0, groups=2), LayerStep(1, groups=2))
    assert layer_steps([[all_of_it], [second_heads], [nothing]], groups=2) == parted


def test_a_plan_that_comes_often_gets_graphs_of_its_own() -> None:
    pieces, plan = Pieces(), (LayerStep(0), LayerStep(2))
    assert [pieces.in_one(plan, num_layers=3) for _ in range(OFTEN)] == [False, False, True]
    assert pieces.in_one((LayerStep(0), LayerStep(1), LayerStep(2)), num_layers=3), "all layers at once"


def test_pieces() -> None:
    plan = (LayerStep(0), LayerStep(2))
    assert cut(plan, enter=True, in_one=True) == [Segment(plan, enter=True, leave=True)]
    assert cut(plan, enter=True, in_one=False) == [
        Segment((), enter=True),
        Segment((LayerStep(0),)),
        Segment((LayerStep(2),)),
        Segment((), leave=True),
    ]
    assert cut(plan[1:], enter=False, in_one=False) == [Segment((LayerStep(2),)), Segment((), leave=True)]
