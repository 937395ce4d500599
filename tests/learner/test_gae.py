"""Advantages of actions against a loop over one sample's actions at a time, in rows of every kind."""

import numpy as np
import pytest

from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.gae import adaptive_lambdas, explained_variance, gae, last_actions
from rlvr_jax.learner.packing import pack
from tests.close import assert_close


def by_hand(rewards, values, gamma, lam):
    """The advantages of one sample's actions, by the definition: a sum over later differences."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    delta = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]


def ragged(rng, rows, length):
    """Masks with observations between actions, one row without any action and one full."""
    mask = (rng.random((rows, length)) < 0.6) & (np.arange(length) < rng.integers(1, length + 1, rows)[:, None])
    mask[1], mask[2] = False, True
    return mask.astype(np.float32)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    mask = ragged(rng, 6, 9)
    rewards, values = rng.normal(size=(2, *mask.shape)).astype(np.float32)
    samples = np.broadcast_to(np.arange(6)[:, None], mask.shape)
    return mask, rewards, values, samples


def expected_of(mask, rewards, values, samples, gamma, lam_of):
    expected = np.zeros(mask.shape)
    for sample in np.unique(samples[mask > 0]):
        own = (samples == sample) & (mask > 0)  # in the order of the flattened array
        expected[own] = by_hand(rewards[own], values[own], gamma, lam_of(sample))
    return expected


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0), (0.0, 1.0)])
def test_an_advantage_is_the_discounted_sum_of_the_later_differences(case, gamma, lam):
    mask, rewards, values, samples = case
    dirty = [np.where(mask > 0, x, np.float32(np.nan)) for x in (rewards, values)]  # read at actions only
    found = gae(*dirty, mask, samples, gamma, lam)
    assert found.dtype == np.float32
    assert_close(found, expected_of(mask, rewards, values, samples, gamma, lambda _: lam), 1e-6)


def test_samples_that_share_a_row_or_go_on_in_another_one_have_the_advantages_of_their_own_actions(case):
    mask, rewards, values, _ = case
    samples = np.zeros(mask.shape, int)
    samples[0, 4:] = samples[4] = 1  # a row of two samples; the second goes on in row 4
    samples[2], samples[3, :3], samples[3, 3:], samples[5] = 2, 3, 2, 3  # 2 goes on behind 3, and 3 behind that
    found = gae(rewards, values, mask, samples, 0.9, 0.8)
    assert_close(found, expected_of(mask, rewards, values, samples, 0.9, lambda _: 0.8), 1e-6)


def test_packed_rows_have_the_advantages_of_separate_ones():
    rng = np.random.default_rng(1)
    lengths = [4, 1, 3, 2]
    batch = layout([[1, 2]] * 4, [rng.integers(1, 9, n).tolist() for n in lengths], 3, 5)
    observed = np.ones_like(batch.action_mask)
    observed[2, 1] = 0
    batch = batch.replace(action_mask=batch.action_mask * observed)
    columns = {name: rng.normal(size=batch.action_mask.shape).astype(np.float32) for name in ("rewards", "values")}
    batch = batch.with_columns(**columns)
    samples = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None], batch.action_mask.shape)
    separate = gae(columns["rewards"], columns["values"], batch.action_mask, samples.astype(int), 0.9, 0.7)
    packed = pack(batch.with_columns(samples=samples, separate=separate), 2)
    found = gae(
        packed.columns["rewards"], packed.columns["values"], packed.action_mask,
        packed.columns["samples"].astype(int), 0.9, 0.7,
    )  # fmt: skip
    assert packed.tokens.shape[0] == 2
    np.testing.assert_array_equal(found, packed.columns["separate"] * packed.action_mask)


def test_an_observation_anywhere_changes_no_advantage(case):
    mask, rewards, values, samples = case
    found = gae(rewards, values, mask, samples, 0.9, 0.8)
    insert = lambda x, value: np.insert(x, 4, value, axis=1)  # noqa: E731
    with_one = gae(insert(rewards, 5), insert(values, 7), insert(mask, 0), insert(samples, 0), 0.9, 0.8)
    np.testing.assert_array_equal(np.delete(with_one, 4, axis=1), found)


def test_with_lambda_1_the_advantage_is_the_return_less_the_value_and_with_0_the_difference_of_one_action(case):
    mask, rewards, values, samples = case
    returns = gae(rewards, np.zeros_like(values), mask, samples, 0.9, 1.0)
    assert_close(gae(rewards, values, mask, samples, 0.9, 1.0), (returns - values) * mask, 1e-6)
    row = np.flatnonzero(mask[2])
    one = rewards[2] + 0.9 * np.append(values[2, 1:], 0) - values[2]
    assert_close(gae(rewards, values, mask, samples, 0.9, 0.0)[2, row], one[row], 1e-6)


def test_lambdas_may_differ_between_samples_and_grow_with_their_length(case):
    mask, rewards, values, samples = case
    lam = adaptive_lambdas(0.5, mask, samples, 6)
    lengths = mask.sum(axis=1).tolist()
    assert lam.tolist() == pytest.approx([max(1 - 1 / (0.5 * n), 0) if n > 2 else 0 for n in lengths])
    assert lam[2] == 1 - 1 / (0.5 * 9)
    found = gae(rewards, values, mask, samples, 1.0, lam)
    assert_close(found, expected_of(mask, rewards, values, samples, 1.0, lambda i: lam[i]), 1e-6)


def test_the_last_action_of_a_sample_is_found_in_the_row_where_it_ends():
    mask = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]], np.float32)
    samples = np.array([0, 1, 0, 2])[:, None] + np.zeros((1, 3), int)
    assert [x.tolist() for x in last_actions(mask, samples)] == [[0, 2], [6, 11]]
    nothing = np.zeros((2, 3), np.float32)
    assert [len(x) for x in last_actions(nothing, samples[:2])] == [0, 0]
    assert not gae(nothing, nothing, nothing, samples[:2]).any()


def test_explained_variance_is_1_for_the_returns_0_for_a_constant_and_negative_for_worse(case):
    mask, rewards, values, _ = case
    assert explained_variance(rewards, rewards, mask) == 1
    assert explained_variance(np.full_like(rewards, 7), rewards, mask) == pytest.approx(0, abs=1e-4)
    assert explained_variance(-rewards, rewards, mask) == pytest.approx(-3, abs=1e-3)
    a, b = (x[mask > 0].astype(np.float64) for x in (values, rewards))
    assert explained_variance(values, rewards, mask) == pytest.approx(1 - np.var(b - a) / (np.var(b) + 1e-5))
    assert explained_variance(values, rewards, np.zeros_like(mask)) == 0
