"""Group-relative advantages against float64 NumPy, and groups without signal."""

import numpy as np
import pytest

from rlvr_jax.learner.advantages import advantages_of, group_advantages, shuffled, zero_signal_groups
from rlvr_jax.learner.algorithm import AlgorithmConfig

REWARDS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
ALL = np.ones_like(REWARDS, bool)


def test_group_std_divides_centred_rewards_by_the_population_deviation_of_their_own_group():
    expected = [[(x - np.mean(row)) / (np.std(row) + 1e-6) for x in row] for row in REWARDS.astype(np.float64)]
    np.testing.assert_allclose(group_advantages(REWARDS, ALL, "group_std"), expected, rtol=1e-6, atol=1e-7)


def test_scale_none_only_centres():
    expected = [[x - np.mean(row) for x in row] for row in REWARDS.astype(np.float64)]
    np.testing.assert_allclose(group_advantages(REWARDS, ALL, "none"), expected, rtol=1e-6, atol=1e-7)


def test_a_group_does_not_see_the_others():
    alone = [group_advantages(row[None], ALL[:1]) for row in REWARDS]
    np.testing.assert_array_equal(group_advantages(REWARDS, ALL), np.concatenate(alone))


@pytest.mark.parametrize("scale", ["group_std", "none"])
def test_advantages_are_float32(scale):
    assert group_advantages(REWARDS.astype(np.float64), ALL, scale).dtype == np.float32


@pytest.mark.parametrize("scale", ["group_std", "none"])
@pytest.mark.parametrize("group", [2, 3, 6, 7, 8, 11])
def test_equal_rewards_give_advantages_of_exactly_zero(scale, group):
    rewards = np.repeat(np.array([[0.0], [1.0], [0.1], [-0.3], [1e-7], [123.456]], np.float32), group, axis=1)
    assert not group_advantages(rewards, np.ones_like(rewards, bool), scale).any()


def test_binary_rewards_have_the_closed_form():
    rewards = np.array([[1, 1, 0, 0, 0, 0, 0, 0]], np.float32)
    p = 2 / 8
    deviation = (p * (1 - p)) ** 0.5 + 1e-6
    expected = np.where(rewards == 1, (1 - p) / deviation, -p / deviation)
    np.testing.assert_allclose(group_advantages(rewards, np.ones_like(rewards, bool)), expected, rtol=1e-6)


def test_zero_signal_groups_is_the_share_of_groups_with_equal_rewards():
    rewards = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [0.1, 0.1, 0.1], [0.5, 0.5, 0.25]], np.float32)
    assert zero_signal_groups(rewards, np.ones_like(rewards, bool)) == pytest.approx(3 / 5)


def test_zero_signal_groups_are_those_without_any_advantage():
    rewards = np.random.default_rng(1).integers(0, 2, size=(64, 3)).astype(np.float32) * np.float32(0.1)
    silent = ~group_advantages(rewards, np.ones_like(rewards, bool)).any(axis=1)
    assert 0 < silent.mean() < 1
    assert zero_signal_groups(rewards, np.ones_like(rewards, bool)) == pytest.approx(silent.mean())


@pytest.mark.parametrize("scale", ["group_std", "none"])
def test_the_advantages_of_a_group_are_those_of_its_judged_samples_whatever_stands_for_the_others(scale):
    rng = np.random.default_rng(3)
    judged = rng.random(REWARDS.shape) < 0.6
    judged[0], judged[1] = False, np.arange(REWARDS.shape[1]) == 2
    for placeholder in (0.0, -9.0, np.nan, np.inf):
        actual = group_advantages(np.where(judged, REWARDS, np.float32(placeholder)), judged, scale)
        for row, of, found in zip(REWARDS, judged, actual, strict=True):
            assert not found[~of].any()
            if of.any():
                alone = group_advantages(row[None, of], np.ones((1, of.sum()), bool), scale)[0]
                np.testing.assert_allclose(found[of], alone, rtol=1e-6)


def test_an_unjudged_sample_never_does_better_than_a_judged_one():
    rewards = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [-3, -3, -3, 0], [2, -1, 0, 0]], np.float32)
    judged = np.array([[1, 1, 1, 0]] * 4, bool)
    advantages = group_advantages(rewards, judged)
    root = 2**0.5
    np.testing.assert_allclose(advantages[0], [1 / root, 1 / root, -root, 0], rtol=1e-5)
    assert not advantages[1:3].any()
    assert zero_signal_groups(rewards, judged) == 0.5


def test_a_group_with_at_most_one_judged_sample_has_no_signal():
    rewards, judged = np.array([[5, 1, 2], [1, 2, 3]], np.float32), np.array([[0, 0, 0], [0, 1, 0]], bool)
    assert zero_signal_groups(rewards, judged) == 1.0
    assert not group_advantages(rewards, judged).any()


def test_the_control_trains_on_the_same_rewards_of_judged_samples_in_an_order_of_its_own_for_each_step():
    rng = np.random.default_rng(4)
    rewards, judged = rng.permutation(40).reshape(8, 5).astype(np.float32), rng.random((8, 5)) < 0.7
    plain, control = AlgorithmConfig(scale="none"), AlgorithmConfig(scale="none", shuffle_rewards=True)
    np.testing.assert_array_equal(
        advantages_of(plain, rewards, judged, 0, 1), group_advantages(rewards, judged, "none")
    )
    orders = [shuffled(rewards, judged, seed, step) for seed, step in ((0, 1), (0, 2), (1, 1))]
    for found in orders:
        np.testing.assert_array_equal(found[~judged], rewards[~judged])
        assert sorted(found[judged]) == sorted(rewards[judged])
        assert np.mean(found[judged] == rewards[judged]) < 0.5
    assert len({tuple(found.flat) for found in orders}) == 3
    np.testing.assert_array_equal(
        advantages_of(control, rewards, judged, 0, 2), group_advantages(orders[1], judged, "none")
    )
