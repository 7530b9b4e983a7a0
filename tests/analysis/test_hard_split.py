"""The hard split: what `none` knows is left out, its luck is not, and two equally good methods stay so on it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from run_records import failed, reader, sample_record

from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.records import Results, SampleRecord
from adallava.records.cells import plan_cells

_SPEC = importlib.util.spec_from_file_location(
    "hard_split_trial", Path(__file__).parents[2] / "benchmarks" / "hard_split_trial.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
hard_split_trial = importlib.util.module_from_spec(_SPEC)
sys.modules["hard_split_trial"] = hard_split_trial
_SPEC.loader.exec_module(hard_split_trial)

HALF, EIGHT = TokenBudget(ratio=0.5), TokenBudget(count=8)
IDS = [f"s{number}" for number in range(40)]


def row(cell: str, right: set[int], answers: list[str], **changes: object) -> list[SampleRecord]:
    """One record a sample; where it is wrong the answer is another sample's."""
    method, _, budget = cell.partition("@")
    return [
        sample_record(
            cell, id_, method=method, budget_asked=budget, kind="even" if place % 2 == 0 else "odd",
            answers=[answers[place]], response=answers[place] if place in right else "what nobody said",
            score=float(place in right), **changes,
        )
        for place, id_ in enumerate(IDS)
    ]  # fmt: skip


def results_of(answers: list[str], *, downsampled: bool = True) -> Results:
    """`none` is right on s0 to s9, and so is everything else; the smallest picture on s10 to s19 as well."""
    methods = ["none", "downsample", "a"] if downsampled else ["none", "a"]
    plans = plan_cells(methods, [HALF, EIGHT], {"none"})
    records = row("full@1.0", set(range(40)), answers) + row("none@none", set(range(10)), answers, tokens_kept=0)
    if downsampled:
        records += row("downsample@0.5", set(range(40)), answers, tokens_kept=8)
        records += row("downsample@8", set(range(20)), answers, tokens_kept=4)
    records += row("a@0.5", set(range(30)), answers) + row("a@8", set(range(10)), answers)
    return summarise(plans, IDS, reader(records), seed=0)


EACH_ITS_OWN = [f"word {number}" for number in range(40)]
"""No answer of another question is right here: what `none` has right it knows."""


def test_what_none_knows_and_what_a_small_picture_shows_is_left_out() -> None:
    results = results_of(EACH_ITS_OWN)
    split, cells = results.hard_split, {cell.cell: cell for cell in results.cells}
    assert split.downsample_cell == "downsample@8", "of its cells the one with the fewest tokens"
    assert (split.right_without_image, split.answered_without_image, split.answered_downsampled) == (10, 10, 10)
    assert (split.num_samples, split.num_hard) == (40, 20)
    assert split.sample_ids == IDS[20:]
    # Of s20 to s39 the method has s20 to s29.
    assert (cells["a@0.5"].accuracy_hard.n, cells["a@0.5"].accuracy_hard.mean) == (20, 0.5)
    assert {kind: (i.mean, i.n) for kind, i in cells["a@0.5"].accuracy_hard_by_kind.items()} == {
        "even": (0.5, 10), "odd": (0.5, 10),
    }  # fmt: skip
    assert cells["downsample@8"].accuracy_hard is None, "wrong there by construction"
    assert cells["none@none"].accuracy_hard.mean == 0.0, "said, since luck may leave it more"


def test_what_none_has_right_by_saying_one_word_always_is_luck_and_stays() -> None:
    """A quarter of the answers are 'yes', and `none` says nothing else."""
    answers = ["yes" if number < 10 else f"word {number}" for number in range(40)]
    plans = plan_cells(["none", "a"], [HALF, EIGHT], {"none"})
    records = row("full@1.0", set(range(40)), answers) + row("a@0.5", set(range(30)), answers)
    records += row("a@8", set(range(10)), answers)
    records += [r.model_copy(update={"response": "yes"}) for r in row("none@none", set(range(10)), answers)]
    results = summarise(plans, IDS, reader(records), seed=0)
    split = results.hard_split
    assert (split.right_without_image, split.answered_without_image, split.num_hard) == (10, 0, 40)
    assert split.downsample_cell is None
    none = next(cell for cell in results.cells if cell.cell == "none@none")
    assert none.accuracy_hard.mean == 0.25, "what guessing still earns on the split is said"


def test_without_a_smaller_picture_the_split_rests_on_none_alone() -> None:
    split = results_of(EACH_ITS_OWN, downsampled=False).hard_split
    assert (split.downsample_cell, split.answered_downsampled, split.num_hard) == (None, 0, 30)


def test_a_sample_that_could_not_be_judged_is_in_no_part_of_the_split() -> None:
    plans = plan_cells(["none", "a"], [HALF], {"none"})
    records = row("full@1.0", set(range(40)), EACH_ITS_OWN) + row("a@0.5", set(range(30)), EACH_ITS_OWN)
    records += [*row("none@none", set(range(10)), EACH_ITS_OWN)[:-1], failed("none@none", "s39")]
    split = summarise(plans, IDS, reader(records), seed=0).hard_split
    assert (split.num_samples, split.num_hard) == (39, 29)
    assert "s39" not in split.sample_ids


@pytest.mark.parametrize("downsampled", [None, 0.3])
def test_two_equally_good_methods_do_not_differ_because_one_guesses_as_none_does(downsampled: float | None) -> None:
    trial = hard_split_trial.Trial(downsampled=downsampled)
    outcome = hard_split_trial.simulate(trial, runs=24, seed=1)
    noise = outcome.on_split.std(ddof=1) / np.sqrt(len(outcome.on_split))
    assert abs(outcome.on_split.mean()) < 3 * noise
    assert noise < 0.015
    assert outcome.on_failed.mean() < -0.10, "by `none`'s failures alone the same two are far apart"


def test_where_the_questions_give_answers_away_most_of_the_bias_is_gone_and_some_is_left() -> None:
    outcome = hard_split_trial.simulate(hard_split_trial.Trial(knows=0.3), runs=24, seed=1)
    assert outcome.on_failed.mean() < -0.10
    assert outcome.on_split.mean() > 0.5 * outcome.on_failed.mean()
    assert outcome.num_hard.mean() < 300, "of 350: what is known has left the split"
