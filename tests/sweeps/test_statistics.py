"""Statistics over seeds, against their definitions, published values and simulation."""

import math

import numpy as np
import pytest

from rlvr_jax.sweeps import statistics as s

# Quantiles 0.975 of Student's t, by degrees of freedom (from printed tables).
T = {1: 12.706, 4: 2.776, 9: 2.262, 30: 2.042}


def test_the_area_is_the_mean_height_between_uneven_steps():
    assert s.area([0, 10, 40], [0.0, 1.0, 0.0]) == pytest.approx((5 + 15) / 40)
    assert s.area([5], [0.25]) == 0.25
    for steps, values in (([], []), ([1, 1], [0.0, 0.0]), ([1], [0.0, 1.0])):
        with pytest.raises(ValueError, match="increasing steps"):
            s.area(steps, values)


def test_a_threshold_is_reached_between_two_points_or_never():
    assert s.first_reaching([0, 100, 300], [0.25, 0.5, 1.0], 0.75) == 200
    assert s.first_reaching([7, 8], [0.5, 0.1], 0.5) == 7
    assert s.first_reaching([0, 1], [0.1, 0.2], 0.5) is None
    assert s.first_reaching([0, 1, 2], [0.0, 1.0, 0.0], 1.0) == 1


def test_holm_on_a_worked_example():
    # Holm's procedure by hand: 0.01 * 4, 0.02 * 3, then the running maximum.
    assert s.holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert s.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert s.holm([]) == []


def test_the_paired_test_is_students():
    # t = mean / (sd / sqrt(n)) at its tabulated quantile has p = 0.05.
    for freedom, quantile in T.items():
        unit = np.random.default_rng(freedom).normal(size=freedom + 1)
        unit = (unit - unit.mean()) / unit.std(ddof=1)
        differences = unit + quantile / math.sqrt(freedom + 1)
        assert s.paired_p(differences) == pytest.approx(0.05, abs=2e-4)
        assert s.paired_p(-3 * differences) == pytest.approx(0.05, abs=2e-4)
    assert s.paired_p(np.array([0.3])) == 1


def test_equal_differences_are_no_certainty():
    same = np.array([0.1, 0.1]) + 1 / 256
    assert s.paired_p(same) == 0
    assert s.paired_p(np.zeros(3)) == 1
    assert s.paired_p(np.full(2, 1 / 256), resolution=1 / 256) > 0.1


def test_the_prediction_interval_is_students():
    values = np.array([[0.1, 5.0], [0.2, 5.0], [0.4, 6.0], [0.2, 5.5], [0.6, 4.0]])
    low, high = s.prediction_interval(values, new=2)
    half = T[4] * values.std(axis=0, ddof=1) * math.sqrt(1 / 5 + 1 / 2)
    np.testing.assert_allclose(high - low, 2 * half, rtol=1e-3)
    np.testing.assert_allclose((high + low) / 2, values.mean(axis=0))
    assert all(np.isnan(s.prediction_interval(values[:1])).ravel())


def test_bootstrap_quantiles_are_those_of_all_resamples_by_hand():
    # Of three values 1 of 27 resampled means is the least, 1 the largest: any tail below 1 / 27 gives these, up to
    # interpolation between neighbouring ones.
    low, high = s.bootstrap_interval(np.array([1.0, 3.0, 2.0]))
    assert 1 <= low < 1.01
    assert 2.99 < high <= 3
    low, high = s.bootstrap_interval(np.full(4, 0.5))
    assert (low, high) == (0.5, 0.5)
    for few in (1, 2):
        low, high = s.bootstrap_interval(np.ones((few, 3)))
        assert low.shape == (3,)
        assert np.isnan([low, high]).all()


def test_the_bootstrap_of_many_seeds_is_students_interval():
    values = np.random.default_rng(1).normal(size=31)
    low, high = s.bootstrap_interval(values)
    half = T[30] * values.std(ddof=1) / math.sqrt(31)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.15 * half)


@pytest.mark.parametrize(("count", "least"), [(4, 0.85), (5, 0.88), (10, 0.92), (30, 0.93)])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_bootstrap_intervals_cover_the_mean_about_as_often_as_they_say(count, least, kind):
    rng = np.random.default_rng(count)
    draws = rng.normal(size=(count, 600)) if kind == "normal" else rng.gamma(4.0, size=(count, 600)) - 4.0
    low, high = s.bootstrap_interval(draws)  # each column is an experiment
    covered = np.mean((low <= 0) & (high >= 0))
    assert least - 0.03 * (kind == "skewed") <= covered <= 0.98


@pytest.mark.parametrize("count", [3, 5, 8])
def test_differences_that_are_none_are_rarely_called_some(count):
    rng = np.random.default_rng(count)
    accuracies = np.round(256 * np.clip(rng.normal(0.5, 0.08, size=(2, 4000, count)), 0, 1)) / 256
    p = [s.paired_p(x, 1 / 256) for x in accuracies[0] - accuracies[1]]
    assert 0.04 < np.mean(np.array(p) <= 0.05) < 0.06
    groups = np.reshape(p, (-1, 4))
    assert np.mean([min(s.holm(group)) <= 0.05 for group in groups]) < 0.07


def test_so_many_seeds_tell_a_difference_as_often_as_promised():
    seen = np.array([0.9, -0.7, 1.6, 0.2, 1.0])
    count = s.seeds_needed(seen, 0.05)
    effect = seen.mean() / seen.std(ddof=1)
    rng = np.random.default_rng(0)
    power = lambda n: np.mean([s.paired_p(x) <= 0.05 for x in rng.normal(effect, 1.0, size=(3000, n))])  # noqa: E731
    assert power(count) == pytest.approx(0.8, abs=0.03)
    assert power(count - 3) < 0.8
    assert s.seeds_needed(seen, 0.0125) > count
    assert s.seeds_needed(np.array([0.1, -0.1]), 0.05) is None
    assert s.seeds_needed(np.array([0.5]), 0.05) is None
    assert s.seeds_needed(np.array([1e-4, -1e-4 + 1e-9]), 0.05) is None
    assert s.seeds_needed(np.array([0.5, 0.5]), 0.05) == 2
    of_larger = [s.seeds_needed(seen + i / 20, 0.05 / 12) for i in range(40)]  # SciPy has no answer for some
    assert of_larger == sorted(of_larger, reverse=True)
