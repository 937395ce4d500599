"""Group-relative advantages against float64 NumPy on ragged groups, and groups without signal."""

import numpy as np
import pytest

from rlvr_jax.learner.advantages import advantages_of, group_advantages, shuffled, zero_signal_groups
from rlvr_jax.learner.algorithm import AlgorithmConfig

RNG = np.random.default_rng(0)
GROUPS = RNG.permutation(np.repeat([11, 3, -4, 7, 0, 5], [7, 1, 4, 2, 9, 3]))  # in any order
REWARDS = RNG.normal(size=GROUPS.shape).astype(np.float32)
ALL = np.ones_like(GROUPS, bool)


def flat(rows):
    """Rewards and groups of rows of rewards."""
    lengths = [len(row) for row in rows]
    return np.concatenate(rows).astype(np.float32), np.repeat(np.arange(len(rows)), lengths)


def by_hand(rewards, groups, judged, scale):
    """Sample by sample, in float64."""
    found = []
    for reward, number, is_judged in zip(rewards.astype(np.float64), groups, judged, strict=True):
        own = rewards[(groups == number) & judged].astype(np.float64)
        divisor = np.std(own) + 1e-6 if scale == "group_std" and is_judged else 1.0
        found.append((reward - np.mean(own)) / divisor if is_judged else 0.0)
    return found


@pytest.mark.parametrize("scale", ["group_std", "none"])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_advantages_are_centred_and_divided_by_the_population_deviation_of_the_judged_samples_of_a_group(scale, share):
    judged = np.random.default_rng(1).random(GROUPS.shape) < share
    expected = by_hand(REWARDS, GROUPS, judged, scale)
    assert 0 in expected
    np.testing.assert_allclose(group_advantages(REWARDS, GROUPS, judged, scale), expected, rtol=1e-6, atol=1e-7)


def test_a_group_does_not_see_the_others():
    whole = group_advantages(REWARDS, GROUPS, ALL)
    for number in set(GROUPS.tolist()):
        of = number == GROUPS
        np.testing.assert_array_equal(whole[of], group_advantages(REWARDS[of], GROUPS[of], ALL[of]))


@pytest.mark.parametrize("scale", ["group_std", "none"])
def test_advantages_are_float32_also_of_no_samples(scale):
    assert group_advantages(REWARDS.astype(np.float64), GROUPS, ALL, scale).dtype == np.float32
    nothing = group_advantages(REWARDS[:0], GROUPS[:0], ALL[:0], scale)
    assert (nothing.dtype, nothing.shape) == (np.float32, (0,))


@pytest.mark.parametrize("scale", ["group_std", "none"])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 11])
def test_equal_rewards_give_advantages_of_exactly_zero(scale, size):
    rewards = np.array([0.0, 1.0, 0.1, -0.3, 1e-7, 123.456], np.float32).repeat(size)
    assert not group_advantages(rewards, np.arange(6).repeat(size), np.ones_like(rewards, bool), scale).any()


def test_binary_rewards_have_the_closed_form():
    rewards = np.array([1, 1, 0, 0, 0, 0, 0, 0], np.float32)
    p = 2 / 8
    deviation = (p * (1 - p)) ** 0.5 + 1e-6
    expected = np.where(rewards == 1, (1 - p) / deviation, -p / deviation)
    advantages = group_advantages(rewards, np.zeros(8, int), np.ones(8, bool))
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)


def test_zero_signal_groups_is_the_share_of_groups_with_equal_rewards():
    rewards, groups = flat([[0, 0, 0], [1, 1], [0, 1, 0], [0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.25], [7]])
    assert zero_signal_groups(rewards, groups, np.ones_like(groups, bool)) == pytest.approx(4 / 6)
    assert zero_signal_groups(rewards[:0], groups[:0], np.zeros(0, bool)) == 0


def test_zero_signal_groups_are_those_without_any_advantage():
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(0, 64, 200))
    rewards = rng.integers(0, 2, size=200).astype(np.float32) * np.float32(0.1)
    judged = rng.random(200) < 0.8
    heard = np.unique(groups[group_advantages(rewards, groups, judged) != 0])
    silent = 1 - len(heard) / len(np.unique(groups))
    assert 0 < silent < 1
    assert zero_signal_groups(rewards, groups, judged) == pytest.approx(silent)


@pytest.mark.parametrize("scale", ["group_std", "none"])
def test_the_advantages_of_a_group_are_those_of_its_judged_samples_whatever_stands_for_the_others(scale):
    judged = (np.random.default_rng(3).random(GROUPS.shape) < 0.6) & (GROUPS != 5)
    alone = group_advantages(REWARDS[judged], GROUPS[judged], ALL[judged], scale)
    for placeholder in (0.0, -9.0, np.nan, np.inf):
        rewards = np.where(judged, REWARDS, np.float32(placeholder))
        actual = group_advantages(rewards, GROUPS, judged, scale)
        assert not actual[~judged].any()
        np.testing.assert_array_equal(actual[judged], alone)
        assert zero_signal_groups(rewards, GROUPS, judged) == zero_signal_groups(REWARDS, GROUPS, judged)


def test_an_unjudged_sample_never_does_better_than_a_judged_one():
    rewards, groups = flat([[1, 1, 0, 0], [1, 1, 1, 0], [-3, -3, -3, 0], [2, -1, 0, 0]])
    judged = np.tile([True, True, True, False], 4)
    advantages = group_advantages(rewards, groups, judged)
    root = 2**0.5
    np.testing.assert_allclose(advantages[:4], [1 / root, 1 / root, -root, 0], rtol=1e-5)
    assert not advantages[4:12].any()
    assert zero_signal_groups(rewards, groups, judged) == 0.5


def test_a_group_with_at_most_one_judged_sample_has_no_signal():
    rewards, groups = flat([[5, 1, 2], [1, 2, 3], [4]])
    judged = np.array([0, 0, 0, 0, 1, 0, 1], bool)
    assert zero_signal_groups(rewards, groups, judged) == 1.0
    assert not group_advantages(rewards, groups, judged).any()


def test_the_control_trains_on_the_same_rewards_of_judged_samples_in_an_order_of_its_own_for_each_step():
    rng = np.random.default_rng(4)
    rewards, judged, groups = rng.permutation(40).astype(np.float32), rng.random(40) < 0.7, np.arange(40) // 5
    plain, control = AlgorithmConfig(scale="none"), AlgorithmConfig(scale="none", shuffle_rewards=True)
    np.testing.assert_array_equal(
        advantages_of(plain, rewards, groups, judged, 0, 1), group_advantages(rewards, groups, judged, "none")
    )
    orders = [shuffled(rewards, judged, seed, step) for seed, step in ((0, 1), (0, 2), (1, 1))]
    for found in orders:
        np.testing.assert_array_equal(found[~judged], rewards[~judged])
        assert sorted(found[judged]) == sorted(rewards[judged])
        assert np.mean(found[judged] == rewards[judged]) < 0.5
    assert len({tuple(found) for found in orders}) == 3
    np.testing.assert_array_equal(
        advantages_of(control, rewards, groups, judged, 0, 2), group_advantages(orders[1], groups, judged, "none")
    )
