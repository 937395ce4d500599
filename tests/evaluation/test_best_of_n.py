"""Best of n against the mean over all subsets, and fits of curves that are known."""

import itertools

import numpy as np
import pytest

from rlvr_jax.evaluation.best_of_n import best_of_n, best_of_n_kl, fit_best_of_n, fit_rl


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_mean_over_all_subsets(ties):
    rng = np.random.default_rng(0)
    rewards, proxies = rng.normal(size=(2, 3, 6))
    proxies = np.round(proxies) if ties else proxies
    for n, found in zip((1, 2, 4, 6), best_of_n(rewards, proxies, (1, 2, 4, 6)), strict=True):
        means = []
        for row, key in zip(rewards, proxies, strict=True):
            for subset in itertools.combinations(range(6), n):
                highest = max(key[i] for i in subset)
                means.append(np.mean([row[i] for i in range(6) if key[i] == highest]))
        assert found == pytest.approx(np.mean(means))
    assert best_of_n(rewards, rewards, [6])[0] == pytest.approx(rewards.max(axis=1).mean())
    with pytest.raises(ValueError, match="7"):
        best_of_n(rewards, proxies, [7])


def test_the_distance_of_a_continuous_proxy_is_that_of_its_density():
    # The highest of n uniform numbers has the density n x^(n - 1), whose divergence from 1 is an integral.
    x = (np.arange(200_000) + 0.5) / 200_000
    for n in (1, 2, 8):
        density = n * x ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(np.mean(density * np.log(density)), abs=1e-4)


def test_fits_find_the_coefficients_of_their_curves():
    d = np.linspace(0.1, 3, 20)
    assert fit_best_of_n(d, d * (1.5 - 0.4 * d)) == pytest.approx((1.5, 0.4, 0.0), abs=1e-9)
    assert fit_rl(d, d * (1.5 - 0.4 * np.log(d))) == pytest.approx((1.5, 0.4, 0.0), abs=1e-9)
    with pytest.raises(ValueError, match=r"above 0, not 0\.0"):
        fit_rl([0.0, *d], [0.0, *d])
