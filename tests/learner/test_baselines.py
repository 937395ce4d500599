"""Baselines, scales and rewards of length against float64 NumPy, group by group, on ragged groups in any order."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from rlvr_jax.errors import FunctionError
from rlvr_jax.learner.advantages import advantages, signal
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.baselines import BASELINES, SCALES, whitened
from rlvr_jax.learner.lengths import LENGTHS
from rlvr_jax.learner.samples import make_samples

RNG = np.random.default_rng(0)
GROUPS = RNG.permutation(np.repeat([11, 3, -4, 7, 0, 5], [7, 1, 4, 2, 9, 3]))  # in any order
SIZE = len(GROUPS)
GROUPED = [(b, s) for b in ("group_mean",) for s in ("group_std", "group_mean")]
OF_ACTIONS = ("monte_carlo", "value")  # see test_credit.py and test_vine.py
UNGROUPED = ("none", "batch_std", "domain_std", "batch_whitening", "token_whitening")
PAIRS = [
    *GROUPED,
    *((b, s) for b in BASELINES if b not in ("pass_at_k", *OF_ACTIONS) for s in UNGROUPED),
    *(("pass_at_k", s) for s in ("pass_at_k_std", "none")),
]
BINARY = ("pass_at_k", "group_mean", "tracker")  # baselines and a scale


def random_samples(seed, binary=False, share=0.8):
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 2, SIZE) if binary else rng.normal(size=SIZE)
    judged = rng.random(SIZE) < share
    rewards = np.where(judged, rewards, np.nan)
    others = rng.integers(0, 9, SIZE), rng.random(SIZE) < 0.3, rng.integers(0, 3, SIZE)
    return replace(make_samples(rewards, GROUPS, judged, *others, budget=10), expected=rng.normal(size=SIZE))


def by_hand(config, samples):
    """Sample by sample, in float64."""
    r, judged, n = samples.rewards, samples.judged, samples.lengths.astype(float)
    differences = np.zeros(SIZE)
    for i in np.flatnonzero(judged):
        own = np.flatnonzero(judged & (samples.groups == samples.groups[i]))
        others = own[own != i]
        differences[i] = {
            "group_mean": lambda i=i, own=own: r[i] - np.mean(r[own]),
            "leave_one_out": lambda i=i, others=others: r[i] - np.mean(r[others]) if len(others) else 0.0,
            "batch_mean": lambda i=i: r[i] - np.mean(r[judged]),
            "none": lambda i=i: r[i],
            "value": lambda i=i: r[i],  # values are those of actions, see test_credit.py
            "length_weighted": lambda i=i, own=own: (
                r[i] - np.sum(n[own] * r[own]) / np.sum(n[own]) if n[own].any() else 0.0
            ),
            "greedy": lambda i=i: r[i] - samples.expected[i],
            "tracker": lambda i=i: r[i] - samples.expected[i],
            "best_worst": lambda i=i, own=own: (
                float(i == max(own, key=lambda j: (r[j], -j))) - float(i == min(own, key=lambda j: (r[j], j)))
            ),
            "pass_at_k": lambda i=i, own=own: passed_by_hand(r[own], int(r[i]), config.pass_k)[0],
        }[config.baseline]()
    found = np.zeros(SIZE)
    tokens = np.repeat(differences[judged], samples.lengths[judged])
    deviation = lambda x: (np.std(x, ddof=config.ddof) if len(x) > config.ddof else 0.0) + config.scale_epsilon  # noqa: E731
    for i in np.flatnonzero(judged):
        own = r[judged & (samples.groups == samples.groups[i])]
        domain = r[judged & (samples.domains == samples.domains[i])]
        d = differences[i]
        found[i] = {
            "group_std": lambda d=d, own=own: d / deviation(own),
            "none": lambda d=d: d,
            "batch_std": lambda d=d: d / deviation(r[judged]),
            "domain_std": lambda d=d, domain=domain: d / deviation(domain),
            "group_mean": lambda d=d, own=own: d / np.mean(own) if np.mean(own) > 0 else 0.0,
            "pass_at_k_std": lambda d=d, own=own: d / (passed_by_hand(own, 1, config.pass_k)[1] + config.scale_epsilon),
            "batch_whitening": lambda d=d: (d - np.mean(differences[judged])) / deviation(differences[judged]),
            "token_whitening": lambda i=i, d=d: (
                (d - np.mean(tokens)) / np.sqrt(np.var(tokens, ddof=config.ddof) + 1e-8) if samples.lengths[i] else 0.0
            ),
        }[config.scale]()
    return found


def passed_by_hand(rewards, right, k):
    """(mean success of the k-subsets that hold a sample, minus that of all; deviation of the latter), by counting."""
    if len(rewards) < k:
        return 0.0, 0.0
    mine = int(np.flatnonzero(rewards == right)[0]) if (rewards == right).any() else 0
    subsets = list(itertools.combinations(range(len(rewards)), k))
    success = [float(rewards[list(s)].any()) for s in subsets]
    with_mine = [x for x, s in zip(success, subsets, strict=True) if mine in s]
    return np.mean(with_mine) - np.mean(success), np.std(success)


@pytest.mark.parametrize(("baseline", "scale"), PAIRS)
@pytest.mark.parametrize("ddof", [0, 1])
def test_advantages_are_those_of_the_formula(baseline, scale, ddof):
    binary = baseline in BINARY[::2] or scale == BINARY[1]
    for seed in range(3):
        for k in (1, 2, 3) if baseline == "pass_at_k" else (4,):
            config = AlgorithmConfig(baseline=baseline, scale=scale, ddof=ddof, pass_k=k, scale_epsilon=1e-4)
            samples = random_samples(seed, binary)
            found = advantages(config, samples)
            assert found.dtype == np.float32
            assert not found[~samples.judged].any()
            np.testing.assert_allclose(found, by_hand(config, samples), rtol=1e-6, atol=1e-6)


def test_every_entry_of_the_tables_is_computed_by_hand():
    assert {b for b, _ in PAIRS} == set(BASELINES) - {*OF_ACTIONS}
    assert {s for _, s in PAIRS} == set(SCALES)


def run(baseline="group_mean", scale="group_std", **others):
    config = AlgorithmConfig(baseline=baseline, scale=scale, **others)
    return lambda samples: advantages(config, samples)


@pytest.mark.parametrize(("baseline", "scale"), PAIRS)
def test_permuting_the_samples_permutes_the_advantages(baseline, scale):
    samples = random_samples(1, binary=baseline != "best_worst")  # which takes the first of equal rewards
    order = np.random.default_rng(2).permutation(SIZE)
    names = ("rewards", "groups", "judged", "lengths", "cut_off", "domains", "expected")
    permuted = replace(samples, **{name: getattr(samples, name)[order] for name in names})
    found = run(baseline, scale, pass_k=2)
    np.testing.assert_allclose(found(permuted), found(samples)[order], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("baseline", "scale"), PAIRS)
def test_no_samples_give_no_advantages(baseline, scale):
    nothing = run(baseline, scale)(replace(make_samples(np.zeros(0), np.zeros(0, int)), expected=np.zeros(0)))
    assert (nothing.dtype, nothing.shape) == (np.float32, (0,))


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean", "length_weighted"])
@pytest.mark.parametrize("scale", ["none", "batch_std", "domain_std"])
def test_a_constant_added_to_all_rewards_changes_no_advantage_and_a_factor_only_those_without_scale(baseline, scale):
    samples = random_samples(3)
    plain = run(baseline, scale)(samples)
    moved = run(baseline, scale)(samples.with_rewards(samples.rewards + 2.5))
    np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=1e-6)
    scaled = run(baseline, scale, scale_epsilon=1e-12)(samples.with_rewards(samples.rewards * 4))
    np.testing.assert_allclose(scaled, plain * (4 if scale == "none" else 1), rtol=1e-4, atol=1e-6)


def test_the_advantages_of_a_group_add_up_to_zero():
    samples = random_samples(4)
    for baseline, weights in (("group_mean", 1), ("leave_one_out", 1), ("length_weighted", samples.lengths)):
        found = run(baseline, "none")(samples) * weights
        np.testing.assert_allclose(np.bincount(samples.groups, found), 0, atol=1e-5)


def test_leave_one_out_in_groups_of_two_is_twice_the_centred_reward():
    samples = make_samples(np.random.default_rng(5).normal(size=12), np.arange(12) // 2)
    np.testing.assert_allclose(run("leave_one_out", "none")(samples), 2 * run("group_mean", "none")(samples), rtol=1e-6)


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "batch_mean", "length_weighted"])
@pytest.mark.parametrize("scale", ["none", "group_std", "batch_std", "token_whitening"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_equal_rewards_give_advantages_of_exactly_zero(baseline, scale, size):
    values = np.array([0.0, 1.0, 0.1, -0.3, 1e-7, 123.456], np.float32)
    for rewards in [values.repeat(size)] if baseline != "batch_mean" else [x.repeat(size) for x in values]:
        lengths = np.arange(len(rewards)) % 5
        samples = make_samples(rewards, np.arange(len(rewards)) // size, lengths=lengths)
        assert not run(baseline, scale)(samples).any()


def test_nearly_equal_rewards_have_the_deviation_of_two_passes():
    """The mean square minus the squared mean would lose it in rounding."""
    rewards = np.float32(1 + 1e-5 * np.arange(8)).astype(np.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    np.testing.assert_allclose(run()(make_samples(rewards, np.zeros(8, int))), expected, rtol=1e-6)


def test_leave_one_out_of_a_single_right_answer_is_bounded():
    np.testing.assert_allclose(
        run("leave_one_out", "none")(make_samples([1, 0, 0, 0], np.zeros(4, int))),
        [1, -1 / 3, -1 / 3, -1 / 3],
        rtol=1e-6,
    )


def test_a_group_of_one_has_no_advantage_over_itself():
    for baseline in ("group_mean", "leave_one_out", "length_weighted"):
        for ddof in (0, 1):
            assert not run(baseline, "none", ddof=ddof)(make_samples([3.0, 5.0], [0, 1])).any()
    assert not run("group_mean", "group_std", ddof=1)(make_samples([3.0, 5.0], [0, 1])).any()


def test_binary_rewards_have_the_closed_forms():
    rewards, p = np.array([1, 1, 0, 0, 0, 0, 0, 0]), 2 / 8
    samples = make_samples(rewards, np.zeros(8, int))
    right, wrong = math.sqrt((1 - p) / p), -math.sqrt(p / (1 - p))
    np.testing.assert_allclose(run()(samples), np.where(rewards, right, wrong), rtol=1e-5)
    np.testing.assert_allclose(run(ddof=1)(samples) * math.sqrt(8 / 7), run()(samples), rtol=1e-5)
    np.testing.assert_allclose(run("group_mean", "group_mean")(samples), np.where(rewards, (1 - p) / p, -1), rtol=1e-6)


def test_pass_at_one_is_grpo_and_more_than_n_minus_k_right_answers_have_no_signal():
    samples = random_samples(6, binary=True)
    np.testing.assert_allclose(
        run("pass_at_k", "pass_at_k_std", pass_k=1)(samples), run()(samples), rtol=1e-6, atol=1e-6
    )
    few_wrong = make_samples([1, 1, 1, 0], np.zeros(4, int))
    assert not run("pass_at_k", "pass_at_k_std", pass_k=2)(few_wrong).any()


@pytest.mark.parametrize(("baseline", "scale"), [("pass_at_k", "none"), ("group_mean", "group_mean")])
def test_rewards_other_than_0_and_1_are_refused_where_the_formula_needs_them(baseline, scale):
    with pytest.raises(FunctionError, match=r"0\.5"):
        run(baseline, scale)(make_samples([0, 1, 0.5], np.zeros(3, int)))


def test_whitened_values_have_mean_0_and_variance_1_by_weight_whatever_the_weightless_ones_hold():
    rng = np.random.default_rng(7)
    values, weights = rng.normal(size=(5, 8)) * 3 + 1, rng.integers(0, 3, (5, 8))
    dirty = np.where(weights > 0, values, np.nan)
    found = whitened(dirty, weights)
    tokens = values.repeat(1)[weights.reshape(-1).nonzero()]
    counted = np.repeat(values.reshape(-1), weights.reshape(-1))
    assert len(counted) > len(tokens)
    np.testing.assert_allclose(found[weights > 0], (tokens - counted.mean()) / np.sqrt(counted.var() + 1e-8), rtol=1e-9)
    assert not found[weights == 0].any()


LENGTH = {"length_coef": 0.25, "length_target": 4, "length_buffer": 3}


def length_by_hand(kind, samples, i):
    r, n = samples.rewards[i], float(samples.lengths[i])
    own = samples.lengths[samples.judged & (samples.groups == samples.groups[i])]
    if kind == "soft_overlong":  # the budget is 10, so from 7 tokens on
        return r + 0.25 * (0 if n <= 7 else (7 - n) / 3 if n <= 10 else -1)
    if kind == "group_range":
        spread = own.max() - own.min()
        bonus = 0.5 - (n - own.min()) / spread if spread else 0.0
        return r + 0.25 * (bonus if r > 0 else min(0.0, bonus))
    return {
        "none": r,
        "exact": r - 0.25 * abs(4 - n),
        "unfinished": -0.25 if samples.cut_off[i] else r,
        "maximum": r * min(max(0.25 * (4 - n) + 0.5, 0), 1),
    }[kind]


@pytest.mark.parametrize("kind", LENGTHS)
def test_rewards_of_length_are_those_of_the_formula(kind):
    samples = random_samples(8, binary=True)
    samples = replace(samples, lengths=samples.lengths * 2)  # up to 16, beyond the budget
    config = AlgorithmConfig(baseline="none", scale="none", length_reward=kind, **LENGTH)
    found = advantages(config, signal(config, samples, 0, 1).samples)
    expected = [length_by_hand(kind, samples, i) if judged else 0.0 for i, judged in enumerate(samples.judged)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
