"""Advantages of a step against loops over its episodes: KL penalties, baselines of samples, a critic, PPO."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.advantages import advantages as advantages_of
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.credit import next_kl_coef, with_advantages
from rlvr_jax.learner.critic import value_loss
from rlvr_jax.learner.losses import policy_loss
from rlvr_jax.learner.samples import Samples, make_samples
from tests.close import assert_close

GROUPS = np.array([0, 0, 0, 1, 1, 1], np.int32)
PPO = AlgorithmConfig(
    baseline="value", scale="token_whitening", gamma=0.9, gae_lambda=0.8, return_lambda=0.8, kl_reward_coef=0.1
)


def step_of(seed=0) -> tuple[Batch, np.ndarray, Samples]:
    """Six episodes in eight rows: the second has two windows, the last was not judged; one row is padding."""
    rng = np.random.default_rng(seed)
    episodes = np.array([0, 1, 1, 2, 3, 4, 5, 0])
    batch = layout([[1]] * 8, [[1] * n for n in (4, 3, 2, 6, 1, 5, 3, 0)], 1, 6)
    mask = batch.action_mask.copy()
    mask[3, 1:3] = mask[6] = 0  # observations; an episode without a verdict
    names = ("behaviour", "reference", "values")
    columns = {name: rng.normal(size=mask.shape).astype(np.float32) for name in names}
    columns = {name: np.where(mask > 0, x, np.float32(np.nan)) for name, x in columns.items()}
    judged = np.arange(6) < 5
    values = np.where(judged, rng.normal(size=6), 0).astype(np.float32)
    return batch.replace(action_mask=mask).with_columns(**columns), episodes, make_samples(values, GROUPS, judged)


def places_of(batch, episodes, episode):
    """(row, column) of the actions of an episode, in order."""
    return [(r, c) for r, c in zip(*np.nonzero(batch.action_mask), strict=True) if episodes[r] == episode]


def rewards_by_hand(batch, episodes, samples, coef):
    """The reward of each action of each episode."""
    found = []
    for episode in range(6):
        places = places_of(batch, episodes, episode)
        k1 = [float(batch.columns["behaviour"][p]) - float(batch.columns["reference"][p]) for p in places]
        of_actions = [-coef * x for x in k1]
        if places:
            of_actions[-1] += float(samples.rewards[episode])
        found.append((places, of_actions, sum(k1)))
    return found


def gae_by_hand(of_actions, values, gamma, lam):
    advantages, carry, after = [], 0.0, 0.0
    for reward, value in zip(of_actions[::-1], values[::-1], strict=True):
        carry = reward + gamma * after - value + gamma * lam * carry
        advantages.append(carry)
        after = value
    return advantages[::-1]


def test_without_a_critic_all_actions_of_an_episode_have_its_advantage_over_the_group():
    batch, episodes, samples = step_of()
    made, metrics = with_advantages(AlgorithmConfig(), batch, episodes, samples)
    expected = advantages_of(AlgorithmConfig(), samples)
    np.testing.assert_array_equal(made.columns["advantages"], expected[episodes][:, None] * batch.action_mask)
    assert metrics["train/advantage_std"] == pytest.approx(np.std(expected[:5]), rel=1e-6)
    assert not any("kl" in name or name.startswith("critic") for name in metrics)


def test_the_return_that_a_group_is_compared_by_contains_the_kl_penalties_of_all_windows():
    batch, episodes, samples = step_of()
    config = AlgorithmConfig(reference="initial", kl_reward_coef=0.1, scale="none")
    made, metrics = with_advantages(config, batch, episodes, samples, 0.3)
    hand = rewards_by_hand(batch, episodes, samples, 0.3)
    returns = np.array([sum(of_actions) for _, of_actions, _ in hand])
    for episode in range(5):
        own = [i for i in range(5) if GROUPS[i] == GROUPS[episode]]
        for place in hand[episode][0]:
            assert made.columns["advantages"][place] == pytest.approx(returns[episode] - returns[own].mean(), abs=1e-5)
    kl = np.mean([hand[i][2] for i in range(5)])
    assert metrics["train/kl_episode"] == pytest.approx(kl, abs=1e-6)
    assert metrics["train/kl_reward_coef"] == 0.3


@pytest.mark.parametrize(("gamma", "coef"), [(1.0, 0.3), (0.8, 0.0), (0.8, 0.3)])
def test_without_a_baseline_an_action_has_the_discounted_sum_of_the_rewards_from_it_on(gamma, coef):
    batch, episodes, samples = step_of()
    config = AlgorithmConfig(baseline="none", scale="none", reference="initial", gamma=gamma, kl_reward_coef=coef)
    made, _ = with_advantages(config, batch, episodes, samples, coef)
    for places, of_actions, _ in rewards_by_hand(batch, episodes, samples, coef):
        for t, place in enumerate(places):
            expected = sum(gamma**k * r for k, r in enumerate(of_actions[t:]))
            assert made.columns["advantages"][place] == pytest.approx(expected, abs=1e-5)
    whitened, _ = with_advantages(replace(config, scale="token_whitening"), batch, episodes, samples, coef)
    x = made.columns["advantages"][batch.action_mask > 0].astype(np.float64)
    assert_close(whitened.columns["advantages"][batch.action_mask > 0], (x - x.mean()) / x.std(), 1e-5)


def test_ppo_is_that_of_a_hand_made_trajectory():
    """Rewards of tokens, two lambdas, whitening, the clipped policy loss, the clipped value loss; and its metrics."""
    batch, episodes, samples = step_of()
    made, metrics = with_advantages(PPO, batch, episodes, samples, 0.1)
    advantages, returns, values = (np.zeros(batch.action_mask.shape) for _ in range(3))
    for places, of_actions, _ in rewards_by_hand(batch, episodes, samples, 0.1):
        before = [float(batch.columns["values"][p]) for p in places]
        for place, value, advantage in zip(places, before, gae_by_hand(of_actions, before, 0.9, 0.8), strict=True):
            advantages[place], returns[place], values[place] = advantage, advantage + value, value
    actions = batch.action_mask > 0
    raw, target, before = advantages[actions], returns[actions], values[actions]
    white = (raw - raw.mean()) / raw.std()
    assert_close(made.columns["advantages"][actions], white, 1e-5)
    assert_close(made.columns["returns"][actions], target, 1e-5)
    assert not made.columns["advantages"][~actions].any()
    assert not made.columns["returns"][~actions].any()
    assert metrics["critic/value"] == pytest.approx(before.mean(), abs=1e-6)
    assert metrics["critic/return"] == pytest.approx(target.mean(), abs=1e-6)
    explained = 1 - np.var(target - before) / (np.var(target) + 1e-5)
    assert metrics["critic/explained_variance"] == pytest.approx(explained, rel=1e-5)

    rng = np.random.default_rng(9)
    moved = lambda x: np.where(actions, x + rng.normal(size=x.shape) * 0.3, 0).astype(np.float32)  # noqa: E731
    logprobs, new = moved(batch.columns["behaviour"]), moved(batch.columns["values"])
    ratio = np.exp(logprobs.astype(np.float64) - batch.columns["behaviour"])[actions]
    surrogate = -np.minimum(ratio * white, np.clip(ratio, 0.8, 1.2) * white)
    limited = before + np.clip(new[actions].astype(np.float64) - before, -0.2, 0.2)
    error = np.maximum((new[actions] - target) ** 2, (limited - target) ** 2) / 2
    device = jax.device_put(made)
    sums = policy_loss(PPO, 6, jnp.asarray(logprobs), jnp.zeros_like(logprobs), device)
    assert float(sums.loss / sums.weight) == pytest.approx(surrogate.mean(), rel=1e-5)
    sums = value_loss(0.2, jnp.asarray(new), device)
    assert float(sums.loss / sums.weight) == pytest.approx(error.mean(), rel=1e-5)


def test_the_critic_may_learn_returns_of_another_lambda_and_lambda_may_grow_with_the_length():
    batch, episodes, samples = step_of()
    config = replace(PPO, scale="none", gae_length=0.5, gamma=1.0, return_lambda=1.0)
    made, _ = with_advantages(config, batch, episodes, samples, 0.1)
    for places, of_actions, _ in rewards_by_hand(batch, episodes, samples, 0.1):
        before = [float(batch.columns["values"][p]) for p in places]
        lam = max(0, 1 - 1 / (0.5 * max(len(places), 1)))
        expected = gae_by_hand(of_actions, before, 1.0, lam)
        assert_close(np.array([made.columns["advantages"][p] for p in places]), np.array(expected), 2e-5)
        returns = [sum(of_actions[t:]) for t in range(len(places))]
        assert_close(np.array([made.columns["returns"][p] for p in places]), np.array(returns), 2e-5)


def test_an_adaptive_coefficient_grows_above_its_target_and_shrinks_below_by_a_bounded_share():
    config = AlgorithmConfig(kl_reward_coef=0.1, kl_reward_target=6.0, kl_reward_horizon=1000)
    assert next_kl_coef(config, 0.5, 6.0, 100) == 0.5
    assert next_kl_coef(config, 0.5, 6.6, 100) == pytest.approx(0.5 * (1 + 0.1 * 100 / 1000))
    assert next_kl_coef(config, 0.5, 60.0, 100) == pytest.approx(0.5 * (1 + 0.2 * 100 / 1000))
    assert next_kl_coef(config, 0.5, -1.0, 100) == pytest.approx(0.5 * (1 - 0.2 * 100 / 1000))
