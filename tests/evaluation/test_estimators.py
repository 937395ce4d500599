"""pass@k against enumeration of all draws, and Wilson's interval against his equation and against simulation."""

import itertools
import math

import numpy as np
import pytest

from rlvr_jax.evaluation import majority_at_k, mean_and_interval, paired_difference, pass_at_k

Z = 1.959964


@pytest.mark.parametrize("num_samples", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_without_replacement_that_hold_a_right_sample(num_samples):
    for num_right, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        samples = [True] * num_right + [False] * (num_samples - num_right)
        draws = list(itertools.combinations(samples, k))
        expected = sum(map(any, draws)) / len(draws)
        assert pass_at_k(num_samples, num_right, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_is_unbiased():
    """Its mean over the binomial law of `num_right` is 1 - (1 - p)^k."""
    n, p = 10, 0.3
    for k in range(1, n + 1):
        mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_k_is_exact_for_many_samples():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01, abs=1e-15)
    assert pass_at_k(10_000, 0, 100) == 0
    assert pass_at_k(10_000, 9_901, 100) == 1


@pytest.mark.parametrize("k", [0, -1, 9])
def test_pass_at_k_refuses_a_k_that_the_samples_do_not_give(k):
    with pytest.raises(ValueError, match=f"pass@{k} needs 1 <= k <= the number of samples, 8"):
        pass_at_k(8, 3, k)


@pytest.mark.parametrize(("num_samples", "num_right"), [(8, -1), (8, 9), (1, 2), (0, 0)])
def test_pass_at_k_refuses_counts_that_cannot_be(num_samples, num_right):
    with pytest.raises(ValueError, match=rf"{num_samples}.*{num_right}" if num_samples else "pass@1 .* 0"):
        pass_at_k(num_samples, num_right, 1)


@pytest.mark.parametrize("values", [[], (), [0.5, 1.5], [-0.25, 1.0], [0.5, math.nan]])
def test_the_interval_of_nothing_or_of_what_is_no_rate_is_refused(values):
    with pytest.raises(ValueError, match=r"no values|1\.5|-0\.25|nan"):
        mean_and_interval(values)


@pytest.mark.parametrize("count", [1, 2, 10, 64, 1000])
def test_the_ends_of_the_interval_solve_wilsons_equation(count):
    """An end q is where the observed mean lies z standard errors of q away: (mean - q)^2 = z^2 q (1 - q) / n."""
    for right in {0, 1, count // 3, count // 2, count}:
        mean, low, high = mean_and_interval([1.0] * right + [0.0] * (count - right))
        assert mean == pytest.approx(right / count)
        ends = np.roots([1 + Z**2 / count, -2 * mean - Z**2 / count, mean**2])
        assert (low, high) == pytest.approx(sorted(ends.real), abs=1e-7)


@pytest.mark.parametrize("values", [[0.0] * 20, [1.0] * 20, [0.0], [1.0], [0.25, 0.5, 1.0], [0.1] * 3])
def test_the_interval_holds_the_mean_lies_in_0_to_1_and_is_never_a_point(values):
    mean, low, high = mean_and_interval(values)
    assert 0 <= low <= mean <= high <= 1
    assert low < high


def test_the_interval_reaches_the_end_of_the_scale_when_all_values_are_the_same_end():
    _, low, high = mean_and_interval([0.0] * 30)
    assert low == 0
    assert high == pytest.approx(Z**2 / (30 + Z**2))
    _, low, high = mean_and_interval([1.0] * 30)
    assert high == 1
    assert low == pytest.approx(30 / (30 + Z**2))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_the_interval_covers_the_true_rate_about_as_often_as_it_says(p):
    """Exactly, by the binomial law: Wilson's coverage swings around 95 %."""
    count, coverage = 100, 0.0
    for right in range(count + 1):
        _, low, high = mean_and_interval([1.0] * right + [0.0] * (count - right))
        coverage += math.comb(count, right) * p**right * (1 - p) ** (count - right) * (low <= p <= high)
    assert 0.92 < coverage < 0.98


def test_the_interval_covers_the_mean_of_fractional_values_at_least_as_often_as_it_says():
    """Of pass@4 from 8 samples, over problems of very different difficulty, in 500 simulated evaluations."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0.0005, 0.9995, 1000)  # difficulties: uniform on [0, 1]
    truth = np.mean(1 - (1 - grid) ** 4)
    covered = 0
    for _ in range(500):
        right = rng.binomial(8, rng.uniform(size=64))
        _, low, high = mean_and_interval([pass_at_k(8, int(c), 4) for c in right])
        covered += low <= truth <= high
    assert covered / 500 >= 0.95


def majority_by_enumeration(answers, right, k):
    """The mean over all subsets, ties shared."""
    total = []
    for chosen in itertools.combinations(range(len(answers)), k):
        votes = {}
        for i in chosen:
            if answers[i] is not None:
                votes.setdefault(answers[i], []).append(right[i])
        most = max(map(len, votes.values()), default=0)
        winners = [sum(x) / len(x) for x in votes.values() if len(x) == most]
        total.append(sum(winners) / len(winners) if winners else 0.0)
    return sum(total) / len(total)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_the_majority_is_that_of_all_subsets(k):
    rng = np.random.default_rng(1)
    for _ in range(5):
        answers = [None if x == 3 else str(x) for x in rng.integers(4, size=7)]
        right = [x == "1" and bool(rng.integers(5)) for x in answers]
        error = 5 * 0.5 / math.sqrt(1000) if k < 7 else 1e-12  # 5 standard deviations of the subsets that are drawn
        assert majority_at_k(answers, right, k) == pytest.approx(majority_by_enumeration(answers, right, k), abs=error)
        assert majority_at_k(answers, right, k) == majority_at_k(answers, right, k)


def test_no_answer_is_no_vote_and_k_must_fit():
    assert majority_at_k([None, None], [False, False], 2) == 0
    assert majority_at_k([None, None, "1"], [False, False, True], 3) == 1
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"maj@{k}.* 3"):
            majority_at_k(["1"] * 3, [True] * 3, k)


def test_pairs_have_the_mean_difference_a_bootstrap_interval_and_mcnemars_p():
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=200) < 0.5  # problems that neither solves
    values = np.where(hard, 0.0, rng.uniform(size=200) < 0.9)
    others = np.where(hard, 0.0, rng.uniform(size=200) < 0.7)
    mean, low, high, p = paired_difference(values.tolist(), others.tolist())
    differences = values - others
    assert mean == pytest.approx(differences.mean())
    half = 1.96 * differences.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)
    more, less = int((differences > 0).sum()), int((differences < 0).sum())
    tail = sum(math.comb(more + less, i) for i in range(min(more, less) + 1)) / 2 ** (more + less)
    assert p == pytest.approx(2 * tail)
    assert p < 0.05


def test_differences_of_several_sizes_are_tested_by_the_signs_of_their_sum():
    differences = np.array([0.5, -0.25, 0.125, 1.0, 0.75, -0.0625, 0.0])
    *_, p = paired_difference(differences.tolist(), [0.0] * 7)
    signs = np.array(list(itertools.product((-1, 1), repeat=6)))
    expected = np.mean(np.abs(signs @ np.abs(differences[:6])) >= abs(differences.sum()) - 1e-12)
    assert p == pytest.approx(expected, abs=0.02)
    # Many small losses and few large wins are no difference, though the signs alone would be one.
    values = [1 / 16] * 60 + [-1.0] * 4
    assert paired_difference(values, [0.0] * 64)[3] > 0.5
    assert paired_difference(values, [1.0] * 64)[3] < 0.001


def test_few_or_equal_pairs_are_noise_and_unpaired_values_are_refused():
    assert paired_difference([1.0], [0.0])[3] == 1
    assert paired_difference([1.0, 1.0, 0.0], [1.0, 1.0, 0.0]) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="2 and 1"):
        paired_difference([1.0, 0.0], [1.0])
