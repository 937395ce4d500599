"""The tokens that entropy choices select, against NumPy, update by update."""

from dataclasses import replace

import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.entropy import by_covariance, by_entropy, coefficient, next_coefficient

ROWS, TIME = 8, 80
CLIP = AlgorithmConfig(entropy="clip_cov", entropy_share=0.2, cov_low=0.05, cov_high=1.5, minibatches=2)
KL = replace(CLIP, entropy="kl_cov")


def random_batch(seed=0):
    """Ragged rows with observations in the middle; masked places hold nan."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(TIME) < rng.integers(0, TIME, ROWS)[:, None]) & (rng.random((ROWS, TIME)) < 0.9)
    column = lambda x: np.where(mask, x, np.nan).astype(np.float32)  # noqa: E731
    advantages, behaviour = rng.normal(size=(ROWS, 1)), -rng.exponential(size=(ROWS, TIME))
    batch = layout([[1]] * ROWS, [[1] * TIME] * ROWS, 1, TIME).replace(action_mask=mask.astype(np.float32))
    return batch.with_columns(advantages=column(advantages), behaviour=column(behaviour))


def updates(batch):
    """The places of the actions of both updates, and their covariances."""
    for rows in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        own = np.zeros((ROWS, TIME), bool)
        own[rows] = batch.action_mask[rows] > 0
        a, x = (batch.columns[name][own].astype(np.float64) for name in ("advantages", "behaviour"))
        yield own, (a - a.mean()) * (x - x.mean())


def test_kl_cov_selects_the_largest_covariances_of_each_update():
    batch = random_batch()
    found = by_covariance(KL, 0, 1, batch)
    for own, covariance in updates(batch):
        chosen = found[own] > 0
        assert chosen.sum() == int(0.2 * len(covariance)) > 1
        assert covariance[chosen].min() >= covariance[~chosen].max()
    assert not found[batch.action_mask == 0].any()


def test_clip_cov_draws_from_the_tokens_within_the_bounds_by_seed_and_step():
    batch = random_batch()
    found = by_covariance(CLIP, 0, 1, batch)
    for own, covariance in updates(batch):
        chosen, candidates = found[own] > 0, (covariance > 0.05) & (covariance < 1.5)
        assert 1 < chosen.sum() == int(0.2 * len(covariance)) < candidates.sum()
        assert candidates[chosen].all()
    np.testing.assert_array_equal(found, by_covariance(CLIP, 0, 1, batch))
    assert any((found != by_covariance(CLIP, *other, batch)).any() for other in ((0, 2), (1, 1)))
    few = replace(CLIP, entropy_share=1e-9)
    assert [by_covariance(few, 0, 1, batch)[own].sum() for own, _ in updates(batch)] == [1, 1]


def test_top_share_selects_the_most_uncertain_tokens_of_each_update():
    batch, config = random_batch(), AlgorithmConfig(entropy="top_share", entropy_share=0.2, minibatches=2)
    entropy = np.where(batch.action_mask > 0, np.random.default_rng(1).exponential(size=(ROWS, TIME)), np.nan)
    found = by_entropy(config, batch, entropy)
    for own, covariance in updates(batch):
        chosen = found[own] > 0
        assert chosen.mean() == pytest.approx(0.2, abs=1 / len(covariance))
        assert entropy[own][chosen].min() > entropy[own][~chosen].max()
    assert not found[batch.action_mask == 0].any()


@pytest.mark.parametrize("config", [CLIP, KL])
def test_an_update_without_actions_has_no_selected_ones(config):
    empty = random_batch().replace(action_mask=np.zeros((ROWS, TIME), np.float32))
    assert not by_covariance(config, 0, 1, empty).any()
    assert not by_entropy(config, empty, np.zeros((ROWS, TIME))).any()


def test_an_adaptive_coefficient_grows_and_applies_while_the_entropy_is_at_most_the_target():
    config = AlgorithmConfig(entropy="adaptive", entropy_target=0.2, entropy_delta=0.3)
    coefs = [0.0]
    for entropy in (0.1, 0.2, 0.1, 0.1, 0.3, 0.1, 0.5, 0.5, 0.5, 0.5):
        coefs.append(next_coefficient(config, coefs[-1], entropy))
    assert coefs == pytest.approx([0, 0.3, 0.6, 0.9, 1, 0.7, 1, 0.7, 0.4, 0.1, 0])
    assert [coefficient(config, 0.4, x) for x in (0.1, 0.2, 0.3, np.inf)] == [0.4, 0.4, 0, 0]
