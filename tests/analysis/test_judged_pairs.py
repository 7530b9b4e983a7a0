"""What may be said of paired differences, and what a number of samples can show."""

import numpy as np
import pytest
from scipy import stats

from adallava.analysis.clusters import Clusters
from adallava.analysis.corrections import FLIPS, correct, holm, max_t
from adallava.analysis.equivalence import equivalence_p_value
from adallava.analysis.judge import PairedTest, judge
from adallava.analysis.power import critical_value, least_detectable, planning_line, samples_needed
from adallava.analysis.significance import paired_p_value, sign_flip_p_value


def test_grouped_by_picture_whatever_the_order_and_alone_where_none_is_known():
    clusters = Clusters.by_picture(["a", "b", "c", "d", "e"], {"a": "x", "b": "y", "d": "x"})
    assert clusters.of_samples.tolist() == [0, 1, 2, 0, 3]
    assert clusters.sums(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])).tolist() == [[5.0, 2.0, 3.0, 5.0]]
    assert clusters.among(np.array([False, True, False, True, True])).of_samples.tolist() == [0, 1, 2]
    assert (clusters.num, clusters.sizes.tolist(), clusters.shared) == (4, [2.0, 1.0, 1.0, 1.0], True)
    assert clusters.effective == pytest.approx(25 / 7)


def test_samples_with_several_pictures_are_one_group_with_all_that_share_any():
    pictures = {"a": "x+y", "b": "z", "c": "y+w", "d": "v", "e": "z+v"}
    assert Clusters.by_picture([*"abcde"], pictures).of_samples.tolist() == [0, 1, 0, 1, 1]


# ---- one test ----


def test_few_pictures_are_students_and_never_below_the_flips():
    spread = np.array([0.5, 1.0, -0.5, 2.0, 1.5, 0.5, 1.0, 0.0, 2.5, -1.0])
    pairs = Clusters(np.repeat(np.arange(10), 2))
    p_value, name = paired_p_value(np.repeat(spread, 2) / 2, pairs)
    assert name == "cluster-t"
    assert p_value == pytest.approx(max(stats.ttest_1samp(spread, 0.0).pvalue, sign_flip_p_value(spread)))
    # Eight equal sums have no spread: Student's t alone would be certain.
    eight = Clusters(np.repeat(np.arange(8), 3))
    assert paired_p_value(np.ones(24), eight)[0] == pytest.approx(2 * 2**-8)


@pytest.mark.parametrize("pictures", [12, 60])
def test_ten_questions_a_picture_are_not_ten_pictures(pictures):
    # Intra-picture correlation 0.5. Taken as independent, .37 of equal cells would be called apart.
    generator, clusters, apart = np.random.default_rng(pictures), Clusters(np.repeat(np.arange(pictures), 10)), []
    for _ in range(400):
        of_pictures = generator.choice([-1.0, 0.0, 0.0, 1.0], pictures)[clusters.of_samples]
        own = generator.choice([-1.0, 0.0, 0.0, 1.0], pictures * 10)
        differences = np.where(generator.random(pictures * 10) < 0.5**0.5, of_pictures, own)
        apart.append(paired_p_value(differences, clusters)[0] < 0.05)
    assert np.mean(apart) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


# ---- many tests ----


def test_max_t_of_one_test_is_its_flips():
    sums = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=(1, 80), p=[0.1, 0.7, 0.2])
    adjusted, critical = max_t(sums, seed=0)
    exact = sign_flip_p_value(sums[0])
    assert adjusted[0] == pytest.approx(exact, abs=4 * (exact / FLIPS) ** 0.5)
    assert critical == pytest.approx(1.96, abs=0.2)


def test_max_t_counts_copies_of_a_test_once_and_holm_as_many():
    sums = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=(1, 80), p=[0.1, 0.7, 0.2])
    copies = np.repeat(sums, 20, axis=0)
    assert max_t(copies, seed=0)[0] == pytest.approx(np.repeat(max_t(sums, seed=0)[0], 20))
    p_value = sign_flip_p_value(sums[0])
    assert holm([p_value] * 20)[0] == pytest.approx(min(1.0, 20 * p_value))


def test_max_t_of_independent_tests_is_sidaks():
    generator = np.random.default_rng(3)
    sums = generator.normal(size=(30, 200)) + np.r_[0.2, np.zeros(29)][:, None]
    p_value = sign_flip_p_value(sums[0])
    adjusted, _ = max_t(sums, seed=0)
    expected = 1 - (1 - p_value) ** 30
    assert adjusted[0] == pytest.approx(expected, rel=0.1, abs=4 * (expected / FLIPS) ** 0.5)


def test_what_flips_cannot_resolve_holms_method_does():
    sums = np.stack([np.ones(200), np.tile([1.0, -1.0], 100)])
    p_values = [sign_flip_p_value(row) for row in sums]
    corrected = correct(p_values, sums, Clusters.distinct(200), seed=0)
    assert corrected.method == "max-t"
    assert corrected.p_values == [pytest.approx(2 * p_values[0]), 1.0]
    assert correct(p_values, sums, Clusters(np.repeat(np.arange(20), 10)), seed=0).method == "holm"


def test_equal_cells_are_rarely_told_apart_in_a_family_and_a_better_one_is_found_more_often_than_by_holms_method():
    generator, wrong, found, by_holm = np.random.default_rng(5), [], [], []
    for _ in range(60):
        common, own = generator.normal(size=150), generator.normal(size=(21, 150))
        scores = (common + 0.5 * own < 0.3).astype(float)
        scores[20] = common + 0.5 * own[20] < 0.65
        tests = [PairedTest(row, scores[0], planned=True, resampled=np.zeros(1)) for row in scores[1:]]
        verdicts = judge(tests, Clusters.distinct(150), seed=0, margin=0.02)
        wrong.append(any(one["significant"] for one in verdicts[:-1]))
        found.append(verdicts[-1]["significant"])
        by_holm.append(holm([one["p_value"] for one in verdicts])[-1] < 0.05)
    assert np.mean(wrong) < 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5
    assert sum(found) > sum(by_holm)


def test_other_pairs_take_nothing_from_the_planned_ones():
    generator = np.random.default_rng(6)
    scores = (generator.random((12, 100)) < np.r_[np.full(11, 0.5), 0.75][:, None]).astype(float)
    planned = [PairedTest(row, scores[0], planned=True) for row in scores[1:]]
    others = [PairedTest(scores[a], scores[b], planned=False) for a in range(1, 12) for b in range(a)]
    alone, among = (
        judge(planned, Clusters.distinct(100), 0, 0.02),
        judge(planned + others, Clusters.distinct(100), 0, 0.02),
    )
    assert among[: len(planned)] == alone
    assert {one["num_tests"] for one in among[len(planned) :]} == {len(planned) + len(others)}
    assert [one["family"] for one in among] == ["planned"] * len(planned) + ["exploratory"] * len(others)
    # Pairs with the baseline stand in both lists here: the same test, corrected for more.
    pairs = [(a, b) for a in range(1, 12) for b in range(a)]
    for a in range(1, 12):
        wider = among[len(planned) + pairs.index((a, 0))]
        assert wider["p_value"] == alone[a - 1]["p_value"]
        assert wider["p_adjusted"] >= alone[a - 1]["p_adjusted"]


# ---- the same, and what could have been found ----


def test_not_told_apart_is_not_the_same_and_says_what_would_have_been_found():
    # 15 up and 10 down of 350: p = 0.42, and a difference of 3 points could well be true.
    up, down = np.zeros(350), np.zeros(350)
    up[:15], down[15:25] = 1.0, 1.0
    (one,) = judge([PairedTest(up, down, planned=True)], Clusters.distinct(350), 0, 0.02)
    assert (one["significant"], one["equivalent"]) == (False, False)
    assert one["least_detectable"] == pytest.approx(least_detectable(350, 25 / 350, critical_value(1)))


def test_a_family_is_corrected_by_flips_of_pictures():
    # 35 pictures for one side and 25 for the other, ten equal questions each: one test alone has p = 0.245.
    of_pictures = np.repeat([1.0, 0.0], [35, 25])
    scores, clusters = np.repeat(of_pictures, 10), Clusters(np.repeat(np.arange(60), 10))
    tests = [PairedTest(scores, 1.0 - scores, planned=True), PairedTest(1.0 - scores, scores, planned=True)]
    for one in judge(tests, clusters, 0, 0.02):
        assert one["correction"] == "max-t"
        assert one["p_adjusted"] == pytest.approx(one["p_value"], abs=0.02)
        assert one["p_value"] == pytest.approx(0.245, abs=0.001)


def test_no_difference_on_few_samples_is_no_sameness():
    # With none of n different, a true share of 2 % would still leave (1 - 0.02)^n: 5 % at n = 149.
    assert equivalence_p_value(np.zeros(50), Clusters.distinct(50), 0.02) > 0.05
    assert equivalence_p_value(np.zeros(400), Clusters.distinct(400), 0.02) < 0.05
    assert equivalence_p_value(np.zeros(400), Clusters(np.repeat(np.arange(40), 10)), 0.02) > 0.05


def test_sameness_is_two_one_sided_t_tests_of_the_variance_seen_and_what_could_still_differ():
    differences = np.random.default_rng(7).normal(0.002, 0.3, size=3000)
    room = 0.02 - abs(differences.mean())
    unseen = room * (1 - room) / 3000
    expected = stats.t.sf(room / np.sqrt(differences.var(ddof=1) / 3000 + unseen), 2999)
    assert equivalence_p_value(differences, Clusters.distinct(3000), 0.02) == pytest.approx(expected)


def test_differing_by_the_margin_is_rarely_called_the_same():
    generator, same = np.random.default_rng(8), []
    for _ in range(600):
        differences = generator.choice([-1.0, 0.0, 1.0], size=1500, p=[0.02, 0.94, 0.04])
        same.append(equivalence_p_value(differences, Clusters.distinct(1500), 0.02) < 0.05)
    assert np.mean(same) < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


def test_power_at_the_least_detectable_difference_is_four_in_five():
    generator, found = np.random.default_rng(9), []
    difference = least_detectable(400, 0.1, critical_value(10))
    chances = [0.05 - difference / 2, 0.9, 0.05 + difference / 2]
    for _ in range(500):
        differences = generator.choice([-1.0, 0.0, 1.0], size=400, p=chances)
        found.append(sign_flip_p_value(differences) < 0.05 / 10)
    # The exact test of rights and wrongs is somewhat conservative.
    assert 0.70 < np.mean(found) < 0.86


@pytest.mark.parametrize("difference", [0.01, 0.03, 0.2])
def test_samples_needed_and_least_detectable_are_inverse(difference):
    needed = samples_needed(difference, 0.1, critical_value(24))
    assert least_detectable(needed, 0.1, critical_value(24)) == pytest.approx(difference, rel=0.01)


def test_too_few_samples_can_show_nothing():
    assert least_detectable(5, 0.5, critical_value(1000)) is None
    (one,) = judge([PairedTest(np.ones(4), np.zeros(4), planned=True)], Clusters.distinct(4), 0, 0.02)
    assert (one["significant"], one["least_detectable"]) == (False, None)


def test_what_a_run_can_show_is_said_in_one_line():
    # Connor 1987 by hand: z = 3.078 for 0.05 / 48, z' = 0.842; (3.92)^2 * 0.1 / 0.01^2 is about 15,360.
    line = planning_line(350, 24)
    assert "350 samples" in line
    assert "24 planned comparisons, a difference of 6.6 points" in line
    assert "15,3" in line
    assert "if each has its own image" in line
    assert planning_line(350, 24, 350) == line


def test_a_run_whose_questions_share_pictures_is_said_to_show_less():
    line = planning_line(350, 24, 35)
    assert "350 samples on 35 images and 24 planned comparisons, a difference of 6.6 points can be found" in line
    alone = least_detectable(35, 0.1, critical_value(24))
    assert f"if they are right or wrong together, a difference of {100 * alone:.1f} points" in line
    assert "of its own" not in line
