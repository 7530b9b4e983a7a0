import numpy as np
import pytest
from scipy import stats

from adallava.analysis.areas import SharedScores
from adallava.analysis.clusters import Clusters
from adallava.analysis.front_gains import _Halves, _over_halves
from adallava.analysis.statistics import mean_interval, paired_difference, resampled_means


@pytest.mark.parametrize(("right", "total"), [(70, 100), (3, 11), (480, 500), (19, 20), (20, 20)])
def test_the_interval_of_rights_and_wrongs_is_scipys_wilson(right, total):
    ours = mean_interval([1.0] * right + [0.0] * (total - right))
    theirs = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert (ours.mean, ours.n, ours.method) == (pytest.approx(right / total), total, "wilson")


def test_partial_scores_have_the_interval_of_rights_and_wrongs_of_their_mean():
    partial, whole = mean_interval([0.5, 1.0] * 50), mean_interval([1.0, 1.0, 1.0, 0.0] * 25)
    assert (partial.low, partial.high) == pytest.approx((whole.low, whole.high))
    assert partial.method == "wilson-on-mean"


@pytest.mark.parametrize("size", [2, 10])
def test_questions_that_are_always_answered_alike_tell_as_much_as_their_pictures(size):
    # 60 of 80 pictures right: with the t quantile of 79 degrees for the normal one, 1.990 for 1.960. The picture of the
    # rarer answer that stands in for those not seen leaves the design effect at the pictures' size.
    pictures = np.repeat([1.0] * 60 + [0.0] * 20, size)
    together = mean_interval(pictures, Clusters(np.repeat(np.arange(80), size)))
    spread = 1.990**2 / 80
    reach = np.sqrt(spread * 0.75 * 0.25 + spread**2 / 4) / (1 + spread)
    assert (together.high - together.low) / 2 == pytest.approx(reach, rel=0.02)
    assert (together.n, together.num_pictures) == (80 * size, 80)


def test_one_picture_says_next_to_nothing():
    one = Clusters(np.zeros(50, dtype=np.intp))
    assert paired_difference([1.0] * 25 + [0.0] * 25, [0.0] * 50, clusters=one).low == -1.0
    assert mean_interval([1.0] * 50, one).low < 0.05


def test_pictures_are_resampled_as_wholes():
    # Sums over pictures of 3, 0 and -1 in 50, 30 and 20 pictures of three questions each.
    values = np.repeat([1.0, 0.0, -1 / 3], [50 * 3, 30 * 3, 20 * 3])
    clusters = Clusters(np.repeat(np.arange(100), 3))
    found = paired_difference(np.maximum(values, 0.0), np.maximum(-values, 0.0), clusters=clusters)
    of_pictures = values[::3]
    assert found.method == "cluster-bootstrap"
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * of_pictures.std() / 10, rel=0.05)
    columns = resampled_means(values[None, :], 0, clusters)[:, 0]
    assert columns.std() == pytest.approx(of_pictures.std() / 10, rel=0.05)


def test_few_pictures_have_students_interval():
    # Ten pictures of two questions: the textbook interval of ten means, with half a picture more that differs wholly.
    means = np.array([0.1, 0.4, 0.2, 0.0, 0.3, 0.5, 0.1, 0.2, 0.2, 0.0])
    found = paired_difference(np.repeat(means, 2), np.zeros(20), clusters=Clusters(np.repeat(np.arange(10), 2)))
    reach = stats.t.ppf(0.975, 9) * np.sqrt(means.var(ddof=1) / 10 + 0.5 / 12**2)
    assert (found.low, found.high) == pytest.approx((0.2 - reach, 0.2 + reach))
    assert found.method == "cluster-t"


def test_distinct_pictures_are_as_no_pictures():
    generator = np.random.default_rng(4)
    a, b = generator.random(60), generator.random(60)
    assert paired_difference(a, b, clusters=Clusters.distinct(60)) == paired_difference(a, b)
    assert np.array_equal(
        resampled_means(np.stack([a, b])), resampled_means(np.stack([a, b]), 0, Clusters.distinct(60))
    )


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
    a, b = [1.0] * 30 + [0.0] * 20, [1.0, 0.0] * 25
    assert paired_difference(a, b, seed=3) == paired_difference(a[::-1], b[::-1], seed=3)
    assert mean_interval(a) == mean_interval(a[::-1])


@pytest.mark.parametrize("call", [lambda: mean_interval([]), lambda: paired_difference([], [])])
def test_no_scores_have_no_mean(call):
    with pytest.raises(ValueError, match="no scores"):
        call()


def test_unequal_numbers_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0])


def test_curves_are_resampled_by_picture_too():
    # 50 pictures of ten equal samples tell as much as 50 samples: a standard error of sqrt(0.25 / 50).
    right = np.repeat(np.arange(50) % 2, 10).astype(float)
    means = resampled_means(right[None], seed=1, clusters=Clusters(np.repeat(np.arange(50), 10)))
    assert means.std() == pytest.approx((0.25 / 50) ** 0.5, rel=0.05)


def test_two_hundred_halvings_never_part_a_picture():
    # Five pictures whose four samples are all right or all wrong; a half has two or three of them.
    right = np.repeat([[1.0, 0.0, 1.0, 0.0, 0.0]], 4, axis=1)
    shared = SharedScores(("a",), right, np.zeros((1, 1)), Clusters(np.repeat(np.arange(5), 4)))
    halves = _Halves.of(shared, seed=0)
    assert halves.choosing.shape == halves.measuring.shape == (400, 1)
    assert set(np.round(halves.choosing.ravel(), 6)) <= {0.0, 0.333333, 0.5, 0.666667, 1.0}


def test_halves_of_the_same_samples_are_no_independent_ones():
    # Nadeau & Bengio: the variance of 20 halves counts 1/20 + 1 times, not 1/20.
    found = _over_halves(np.tile([0.0, 0.2], 10), Clusters.distinct(1000), -1.0)
    reach = stats.t.ppf(0.975, 999) * (0.01 * (1 + 1 / 20)) ** 0.5
    assert (found["mean"], found["method"]) == (pytest.approx(0.1), "corrected-halvings")
    assert (found["low"], found["high"]) == (pytest.approx(0.1 - reach), pytest.approx(0.1 + reach))
