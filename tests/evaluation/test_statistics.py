import numpy as np
import pytest
from scipy import stats

from adallava.evaluation.statistics import mean_interval, paired_difference


@pytest.mark.parametrize(("right", "total"), [(70, 100), (3, 11), (480, 500)])
def test_the_interval_is_scipys_percentile_bootstrap(right, total):
    scores = [1.0] * right + [0.0] * (total - right)
    ours = mean_interval(scores)
    theirs = stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    # Quantiles of a share move in steps of 1 / n; both sides are estimates.
    assert ours.low == pytest.approx(theirs.low, abs=1.01 / total)
    assert ours.high == pytest.approx(theirs.high, abs=1.01 / total)
    assert (ours.mean, ours.n) == (pytest.approx(right / total), total)


def test_scores_of_many_values_are_resampled_too():
    scores = np.random.default_rng(1).uniform(size=200)
    ours = mean_interval(list(scores))
    half_width = 1.96 * scores.std() / np.sqrt(200)
    assert ours.high - ours.mean == pytest.approx(half_width, rel=0.1)
    assert ours.mean - ours.low == pytest.approx(half_width, rel=0.1)


@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_equal_scores_still_leave_uncertainty(score, count):
    interval = mean_interval([score] * count)
    # Wilson's interval at 0 or n successes, in closed form.
    width = 1.959964**2 / (count + 1.959964**2)
    assert interval.mean == score
    assert interval.high - interval.low == pytest.approx(width, rel=1e-5)
    assert interval.low <= score <= interval.high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        interval = mean_interval((generator.random(200) < 0.7).astype(float).tolist())
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


def test_pairing_makes_the_interval_narrow_where_answers_agree():
    full = [1.0] * 60 + [0.0] * 40
    scores = [1.0] * 57 + [0.0] * 43
    difference = paired_difference(scores, full)
    assert difference.mean == pytest.approx(-0.03)
    assert -0.08 < difference.low < -0.03 < difference.high <= 0.0
    unpaired = mean_interval(scores)
    assert difference.high - difference.low < (unpaired.high - unpaired.low) / 2


def test_pairing_depends_on_the_pairs():
    apart = paired_difference([0.0, 1.0] * 50, [1.0, 0.0] * 50)
    assert apart.mean == 0.0
    assert apart.high - apart.low > 0.3


def test_equal_answers_are_not_called_exactly_equal():
    difference = paired_difference([1.0, 0.0] * 50, [1.0, 0.0] * 50)
    assert difference.mean == 0.0
    assert 0.03 < difference.high < 0.04
    assert difference.low == -difference.high


def test_always_worse_stays_in_range():
    difference = paired_difference([0.0] * 10, [1.0] * 10)
    assert (difference.mean, difference.low) == (-1.0, -1.0)
    assert -1.0 < difference.high < 0.0


def test_the_seed_decides_and_the_order_does_not():
    scores = [1.0] * 30 + [0.0] * 20
    assert mean_interval(scores, seed=3) == mean_interval(scores[::-1], seed=3)


@pytest.mark.parametrize("call", [lambda: mean_interval([]), lambda: paired_difference([], [])])
def test_no_scores_have_no_mean(call):
    with pytest.raises(ValueError, match="no scores"):
        call()


def test_unequal_numbers_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0])
