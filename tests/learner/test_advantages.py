"""Groups without signal, unjudged samples, filters, and the control of shuffled rewards."""

import numpy as np
import pytest

from rlvr_jax.learner.advantages import (
    KEEPS,
    Signal,
    advantages,
    describe,
    describe_advantages,
    shuffled,
    signal,
    zero_signal_groups,
)
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.samples import make_samples

RNG = np.random.default_rng(0)
GROUPS = RNG.permutation(np.repeat([11, 3, -4, 7, 0, 5], [7, 1, 4, 2, 9, 3]))  # in any order
REWARDS = RNG.normal(size=GROUPS.shape).astype(np.float32)
ALL = np.ones_like(GROUPS, bool)
SCALES = ("group_std", "none")


def group_advantages(rewards, groups, judged=None, scale="group_std"):
    return advantages(AlgorithmConfig(scale=scale), make_samples(rewards, groups, judged))


def flat(rows):
    """Rewards and groups of rows of rewards."""
    lengths = [len(row) for row in rows]
    return np.concatenate(rows).astype(np.float32), np.repeat(np.arange(len(rows)), lengths)


def test_a_group_does_not_see_the_others():
    whole = group_advantages(REWARDS, GROUPS)
    for number in set(GROUPS.tolist()):
        of = number == GROUPS
        np.testing.assert_array_equal(whole[of], group_advantages(REWARDS[of], GROUPS[of]))


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


@pytest.mark.parametrize("scale", SCALES)
def test_the_advantages_of_a_group_are_those_of_its_judged_samples_whatever_stands_for_the_others(scale):
    judged = (np.random.default_rng(3).random(GROUPS.shape) < 0.6) & (GROUPS != 5)
    alone = group_advantages(REWARDS[judged], GROUPS[judged], scale=scale)
    for placeholder in (0.0, -9.0, np.nan, np.inf):
        rewards = np.where(judged, REWARDS, np.float32(placeholder))
        actual = group_advantages(rewards, GROUPS, judged, scale)
        assert not actual[~judged].any()
        np.testing.assert_array_equal(actual[judged], alone)
        assert zero_signal_groups(rewards, GROUPS, judged) == zero_signal_groups(REWARDS, GROUPS, judged)


def test_an_unjudged_sample_never_does_better_than_a_judged_one():
    rewards, groups = flat([[1, 1, 0, 0], [1, 1, 1, 0], [-3, -3, -3, 0], [2, -1, 0, 0]])
    judged = np.tile([True, True, True, False], 4)
    found = group_advantages(rewards, groups, judged)
    root = 2**0.5
    np.testing.assert_allclose(found[:4], [1 / root, 1 / root, -root, 0], rtol=1e-5)
    assert not found[4:12].any()
    assert zero_signal_groups(rewards, groups, judged) == 0.5


def test_a_group_with_at_most_one_judged_sample_has_no_signal():
    rewards, groups = flat([[5, 1, 2], [1, 2, 3], [4]])
    judged = np.array([0, 0, 0, 0, 1, 0, 1], bool)
    assert zero_signal_groups(rewards, groups, judged) == 1.0
    assert not group_advantages(rewards, groups, judged).any()


def random_samples():
    rng = np.random.default_rng(6)
    rewards, judged = rng.integers(0, 2, len(GROUPS)), rng.random(len(GROUPS)) < 0.8
    return make_samples(rewards, GROUPS, judged, cut_off=rng.random(len(GROUPS)) < 0.3)


@pytest.mark.parametrize("choice", [{"keep": name} for name in KEEPS] + [{"overlong": "mask"}])
def test_filters_come_last_and_change_no_advantage_of_the_samples_that_remain(choice):
    samples = random_samples()
    plain, found = (signal(AlgorithmConfig(**x), samples, 0, 1) for x in ({}, choice))
    np.testing.assert_array_equal(found.samples.rewards, plain.samples.rewards)
    np.testing.assert_array_equal(plain.trained, samples.judged)
    assert plain.kept.all()
    assert found.silent == plain.silent > 0
    for i in range(len(GROUPS)):
        own = samples.rewards[(samples.groups == samples.groups[i]) & samples.judged]
        kept = {"mixed_groups": len(set(own)) > 1, "right": samples.judged[i] and samples.rewards[i] > 0}
        alike = (samples.groups == samples.groups[i]) & samples.judged & (samples.rewards == samples.rewards[i])
        kept["best_worst"] = samples.judged[i] and len(set(own)) > 1 and i == np.flatnonzero(alike)[0]
        assert found.kept[i] == kept.get(choice.get("keep"), True)
        assert found.trained[i] == (samples.judged[i] and not ("overlong" in choice and samples.cut_off[i]))


def test_groups_without_signal_are_found_by_their_rewards_whatever_the_scale():
    rewards, groups = flat([[0.1] * 7, [0, 1], [1, 1]])
    samples = make_samples(rewards, groups)
    for scale in ("group_std", "none", "batch_std", "token_whitening"):
        found = signal(AlgorithmConfig(scale=scale, keep="mixed_groups"), samples, 0, 1)
        assert found.silent == pytest.approx(2 / 3)
        assert found.kept.tolist() == [False] * 7 + [True] * 2 + [False] * 2


def test_the_metrics_of_advantages_are_those_of_the_samples_that_are_trained_on():
    judged = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    samples = make_samples([1, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3], judged)
    found = describe(Signal(samples, judged, judged, silent=0.75)) | describe_advantages(np.array([1.0, -2, 0]))
    expected = {"zero_signal_groups": 0.75, "zero_signal_positive": 0.25, "kept": 6 / 7}
    expected |= {"advantage_mean": -1 / 3, "advantage_std": np.std([1, -2, 0]), "advantage_max": 2}
    assert found == pytest.approx({f"train/{name}": x for name, x in (expected | {"advantage_zero": 1 / 3}).items()})
    nothing = describe_advantages(np.zeros(0))
    assert [nothing[f"train/{name}"] for name in ("advantage_std", "advantage_max", "advantage_zero")] == [0, 0, 1]


def test_the_control_trains_on_the_same_rewards_of_judged_samples_in_an_order_of_its_own_for_each_step():
    rng = np.random.default_rng(4)
    rewards, judged, groups = rng.permutation(40).astype(np.float32), rng.random(40) < 0.7, np.arange(40) // 5
    plain, control = AlgorithmConfig(scale="none"), AlgorithmConfig(scale="none", shuffle_rewards=True)
    samples = make_samples(rewards, groups, judged)
    np.testing.assert_array_equal(signal(plain, samples, 0, 1).samples.rewards, samples.rewards)
    orders = [shuffled(rewards, judged, seed, step) for seed, step in ((0, 1), (0, 2), (1, 1))]
    for found in orders:
        np.testing.assert_array_equal(found[~judged], rewards[~judged])
        assert sorted(found[judged]) == sorted(rewards[judged])
        assert np.mean(found[judged] == rewards[judged]) < 0.5
    assert len({tuple(found) for found in orders}) == 3
    expected = group_advantages(orders[1], groups, judged, "none")
    np.testing.assert_array_equal(advantages(control, signal(control, samples, 0, 2).samples), expected)
