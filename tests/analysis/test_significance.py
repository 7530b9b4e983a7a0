import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adallava.analysis.corrections import holm
from adallava.analysis.significance import SMALLEST_P, sign_flip_p_value


@pytest.mark.parametrize(
    ("only_a", "only_b", "ties"), [(9, 1, 90), (30, 12, 0), (700, 560, 8_000), (5, 5, 3), (0, 6, 0)]
)
def test_of_right_and_wrong_it_is_mcnemars_exact_test(only_a, only_b, ties):
    differences = np.array([1.0] * only_a + [-1.0] * only_b + [0.0] * ties)
    # McNemar's exact test is the binomial test on the discordant pairs.
    assert sign_flip_p_value(differences) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-6)


@pytest.mark.parametrize(
    "differences",
    [
        [1 / 3, -2 / 3, 1.0, 1.0, 2 / 3, 1 / 3, -1 / 3, 1.0, 0.0],
        [0.3, 0.6, -0.1, 0.9, 1.0, 0.4, -0.3],
        [0.1234, 0.77, -0.31, 0.0567, 0.9, 0.43, -0.02, 0.66],
    ],
    ids=["means over three draws", "tenths", "any numbers"],
)
def test_few_differences_are_scipys_exact_permutation_test(differences):
    theirs = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))), lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples", n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert sign_flip_p_value(np.array(differences)) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_many_differences_of_any_size_are_near_a_large_permutation_sample():
    generator = np.random.default_rng(0)
    differences = generator.normal(0.08, 0.5, size=200)
    flips = generator.choice([-1.0, 1.0], size=(100_000, 200))
    sampled = np.mean(np.abs(flips @ differences) >= abs(differences.sum()))
    assert sign_flip_p_value(differences) == pytest.approx(sampled, rel=0.1)


def share_of_all_sign_patterns(differences):
    sums = np.zeros(1)
    for size in np.abs(differences):
        sums = np.concatenate([sums + size, sums - size])
    return np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)


@pytest.mark.parametrize("num_samples", [12, 15, 17, 20])
@pytest.mark.parametrize("kind", ["one size", "two sizes", "any sizes", "heavy tails"])
def test_off_every_lattice_it_is_never_below_the_share_of_all_sign_patterns_and_hardly_above(kind, num_samples):
    generator = np.random.default_rng(num_samples)
    for _ in range(6):
        sizes = {
            "one size": np.full(num_samples, generator.random()),
            "two sizes": generator.choice(generator.random(2), num_samples),
            "any sizes": generator.random(num_samples),
            "heavy tails": generator.pareto(1.5, num_samples),
        }[kind]
        differences = sizes * generator.choice([1.0, -1.0], num_samples, p=[0.75, 0.25])
        exact = share_of_all_sign_patterns(differences)
        p_value = sign_flip_p_value(differences)
        assert exact - 1e-12 <= p_value <= 1.05 * exact + 1e-6


def test_ten_against_five_of_one_size_is_the_binomial_test_whatever_the_size():
    differences = np.pi / 10 * np.array([1.0] * 10 + [-1.0] * 5)
    assert sign_flip_p_value(differences) == pytest.approx(stats.binomtest(10, 15).pvalue, rel=1e-9)
    assert sign_flip_p_value(np.tile(differences, 100)) == pytest.approx(stats.binomtest(1000, 1500).pvalue, abs=1e-12)


@pytest.mark.parametrize("draws", [7, 9, 11, 13])
def test_means_over_any_number_of_draws_are_exact(draws):
    right = np.random.default_rng(draws).integers(-draws // 2, draws + 1, size=18)
    assert sign_flip_p_value(right / draws) == pytest.approx(share_of_all_sign_patterns(right / draws), rel=1e-9)


def test_many_differences_of_any_size_are_at_most_a_little_above_the_normal_approximation():
    # At 10,000 samples the sum is normal but for parts in a thousand.
    differences = np.random.default_rng(3).normal(0.02, 0.6, size=10_000)
    normal = 2.0 * stats.norm.sf(abs(differences.sum()) / np.sqrt(np.square(differences).sum()))
    assert 0.995 * normal <= sign_flip_p_value(differences) <= 1.08 * normal


def test_no_difference_is_no_evidence():
    assert sign_flip_p_value(np.zeros(50)) == 1.0
    assert sign_flip_p_value(np.array([1.0, -1.0] * 20)) == 1.0


def test_overwhelming_evidence_has_a_floor():
    assert sign_flip_p_value(np.ones(5_000)) == SMALLEST_P


def test_chance_alone_is_called_significant_as_often_as_the_level_says():
    generator = np.random.default_rng(1)
    p_values = [sign_flip_p_value(generator.choice([-1.0, 0.0, 1.0], size=150)) for _ in range(2_000)]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) <= 0.056


@given(st.lists(st.sampled_from([-1.0, -2 / 3, -1 / 3, 0.0, 1 / 3, 2 / 3, 1.0]), min_size=1, max_size=60))
def test_sides_and_order_do_not_matter(values):
    differences = np.array(values)
    p_value = sign_flip_p_value(differences)
    assert 0.0 < p_value <= 1.0
    assert sign_flip_p_value(-differences) == pytest.approx(p_value, rel=1e-9)
    assert sign_flip_p_value(np.sort(differences)) == pytest.approx(p_value, rel=1e-9)


def test_holm_as_in_a_textbook():
    # The worked example of Wikipedia's "Holm-Bonferroni method": four hypotheses, two rejected at 0.05.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_one_and_of_none():
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
@settings(max_examples=200)
def test_holm_keeps_the_order_lowers_nothing_and_lies_between_no_correction_and_bonferroni(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0.0)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1.0, raw * len(p_values)) + 1e-15
