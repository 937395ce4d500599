"""Group-relative advantages against float64 NumPy, and groups without signal."""

import numpy as np
import pytest

from rlvr_jax.algorithms import group_advantages, zero_signal_groups

REWARDS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def test_group_std_divides_centred_rewards_by_the_population_deviation_of_their_own_group():
    expected = [[(x - np.mean(row)) / (np.std(row) + 1e-6) for x in row] for row in REWARDS.astype(np.float64)]
    np.testing.assert_allclose(group_advantages(REWARDS, "group_std"), expected, rtol=1e-6, atol=1e-7)


def test_scale_none_only_centres():
    expected = [[x - np.mean(row) for x in row] for row in REWARDS.astype(np.float64)]
    np.testing.assert_allclose(group_advantages(REWARDS, "none"), expected, rtol=1e-6, atol=1e-7)


def test_a_group_does_not_see_the_others():
    alone = [group_advantages(row[None]) for row in REWARDS]
    np.testing.assert_array_equal(group_advantages(REWARDS), np.concatenate(alone))


@pytest.mark.parametrize("scale", ["group_std", "none"])
def test_advantages_are_float32(scale):
    assert group_advantages(REWARDS.astype(np.float64), scale).dtype == np.float32


@pytest.mark.parametrize("scale", ["group_std", "none"])
@pytest.mark.parametrize("group", [2, 3, 6, 7, 8, 11])
def test_equal_rewards_give_advantages_of_exactly_zero(scale, group):
    rewards = np.repeat(np.array([[0.0], [1.0], [0.1], [-0.3], [1e-7], [123.456]], np.float32), group, axis=1)
    assert not group_advantages(rewards, scale).any()


def test_binary_rewards_have_the_closed_form():
    rewards = np.array([[1, 1, 0, 0, 0, 0, 0, 0]], np.float32)
    p = 2 / 8
    deviation = (p * (1 - p)) ** 0.5 + 1e-6
    expected = np.where(rewards == 1, (1 - p) / deviation, -p / deviation)
    np.testing.assert_allclose(group_advantages(rewards), expected, rtol=1e-6)


def test_zero_signal_groups_is_the_share_of_groups_with_equal_rewards():
    rewards = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [0.1, 0.1, 0.1], [0.5, 0.5, 0.25]], np.float32)
    assert zero_signal_groups(rewards) == pytest.approx(3 / 5)


def test_zero_signal_groups_are_those_without_any_advantage():
    rewards = np.random.default_rng(1).integers(0, 2, size=(64, 3)).astype(np.float32) * np.float32(0.1)
    silent = ~group_advantages(rewards).any(axis=1)
    assert 0 < silent.mean() < 1
    assert zero_signal_groups(rewards) == pytest.approx(silent.mean())
