"""The losses against float64 NumPy on ragged masks, and what masked places may hold."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.losses import clipped_policy_loss, imitation_loss, kl_divergence

CONFIG = AlgorithmConfig(clip_low=0.2, clip_high=0.3, kl_coef=0.25, reference="initial")
ROWS, TIME = 6, 9
NAMES = ("logprobs", "entropy", "mask", "weights", "advantages", "old_logprobs", "reference_logprobs")


def random_inputs(seed: int) -> dict[str, np.ndarray]:
    """Ragged rows, one of them without any action, with ratios on both sides of the clip range."""
    rng = np.random.default_rng(seed)
    lengths = np.array([TIME, 0, 1, 5, 7, 3])
    logprobs = -rng.exponential(1.0, (ROWS, TIME)) - 0.5
    arrays = {
        "logprobs": logprobs,
        "entropy": rng.exponential(1.0, (ROWS, TIME)),
        "mask": np.arange(TIME) < lengths[:, None],
        "weights": rng.uniform(0.1, 2, (ROWS, TIME)),
        "advantages": rng.normal(size=(ROWS, TIME)),
        "old_logprobs": logprobs + rng.normal(size=(ROWS, TIME)) * 0.4,
        "reference_logprobs": logprobs + rng.normal(size=(ROWS, TIME)) * 0.4,
    }
    arrays["mask"][3, 2] = False  # an observation in the middle of a response
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def clipped_loss_by_hand(config, logprobs, entropy, mask, weights, advantages, old_logprobs, reference_logprobs):
    """Loss and metrics, token by token, in float64."""
    loss = entropies = clips = kls = gap = 0.0
    for place in zip(*np.nonzero(mask), strict=True):
        new, old, advantage = (float(x[place]) for x in (logprobs, old_logprobs, advantages))
        ratio = math.exp(new - old)
        clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        weight = float(weights[place])
        loss -= weight * min(ratio * advantage, clipped * advantage)
        clips += (ratio > 1 + config.clip_high and advantage > 0) or (ratio < 1 - config.clip_low and advantage < 0)
        entropies += float(entropy[place])
        gap = max(gap, abs(new - old))
        if reference_logprobs is not None:
            difference = float(reference_logprobs[place]) - new
            kl = math.exp(difference) - 1 - difference
            kls, loss = kls + kl, loss + weight * config.kl_coef * kl
    means = {"train/entropy": entropies, "train/clip_fraction": clips}
    return loss, means | ({} if reference_logprobs is None else {"train/kl": kls}), {"train/logprob_gap": gap}


def clipped_loss(config, inputs):
    return clipped_policy_loss(config, *(None if inputs[n] is None else jnp.asarray(inputs[n]) for n in NAMES))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("with_reference", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_clipped_loss_and_all_its_metrics_are_those_of_the_formula(seed, with_reference):
    inputs = random_inputs(seed) | ({} if with_reference else {"reference_logprobs": None})
    loss, means, largest = clipped_loss_by_hand(CONFIG, **inputs)
    sums = clipped_loss(CONFIG, inputs)
    assert sums.means.keys() == means.keys()
    assert sums.largest.keys() == largest.keys()
    assert means["train/clip_fraction"] > 0
    close(sums.loss, loss)
    assert sums.totals == {"train/loss": sums.loss}
    for name, value in (means | largest).items():
        close((sums.means | sums.largest)[name], value)


@pytest.mark.parametrize(
    ("ratio", "advantage", "active"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_gradient_stops_exactly_where_the_clip_would_let_the_ratio_run_away(ratio, advantage, active):
    full = lambda x: jnp.full((1, 1), x, jnp.float32)  # noqa: E731

    def loss(logprobs):
        return clipped_policy_loss(CONFIG, logprobs, full(0), full(1), full(1), full(advantage), full(0), None).loss

    gradient = jax.grad(loss)(full(math.log(ratio)))
    close(gradient, [[-advantage * ratio if active else 0.0]])


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_clipped_loss_is_the_closed_form(seed):
    inputs = random_inputs(seed)
    gradient = jax.grad(lambda x: clipped_loss(CONFIG, inputs | {"logprobs": x}).loss)(jnp.asarray(inputs["logprobs"]))
    logprobs, _, mask, weights, advantages, old, reference = (inputs[name].astype(np.float64) for name in NAMES)
    ratio = np.exp(logprobs - old)
    active = np.where(advantages >= 0, ratio <= 1 + CONFIG.clip_high, ratio >= 1 - CONFIG.clip_low)
    kl_gradient = 1 - np.exp(reference - logprobs)
    close(gradient, mask * weights * (np.where(active, -ratio * advantages, 0) + CONFIG.kl_coef * kl_gradient))


def test_the_gradient_on_policy_is_that_of_reinforce():
    inputs = random_inputs(0)
    inputs |= {"old_logprobs": inputs["logprobs"], "reference_logprobs": None}
    gradient = jax.grad(lambda x: clipped_loss(CONFIG, inputs | {"logprobs": x}).loss)(jnp.asarray(inputs["logprobs"]))
    np.testing.assert_allclose(gradient, -inputs["advantages"] * inputs["weights"] * inputs["mask"], rtol=1e-6)


def test_the_gap_is_exactly_zero_on_policy():
    inputs = random_inputs(0)
    assert clipped_loss(CONFIG, inputs | {"old_logprobs": inputs["logprobs"]}).largest["train/logprob_gap"] == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mask"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38, -3e38])
def test_masked_places_never_reach_loss_gradient_or_metrics_whatever_they_hold(name, value):
    def loss(inputs, logprobs):
        sums = clipped_loss(CONFIG, inputs | {"logprobs": logprobs})
        return sums.loss, sums

    clean = random_inputs(0)
    dirty = clean | {name: np.where(clean["mask"] > 0, clean[name], np.float32(value))}
    for mine, expected in zip(
        jax.tree.leaves(jax.grad(partial(loss, dirty), has_aux=True)(jnp.asarray(dirty["logprobs"]))),
        jax.tree.leaves(jax.grad(partial(loss, clean), has_aux=True)(jnp.asarray(clean["logprobs"]))),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("name", ["logprobs", "advantages", "old_logprobs", "reference_logprobs"])
def test_a_nan_on_an_action_is_not_hidden(name):
    inputs = random_inputs(0)
    inputs[name][0, 0] = math.nan
    assert math.isnan(clipped_loss(CONFIG, inputs).loss)


def test_kl_divergence_is_zero_for_equal_policies_and_positive_otherwise():
    x = jnp.asarray(random_inputs(0)["logprobs"])
    np.testing.assert_array_equal(kl_divergence(x, x), np.zeros_like(x))
    assert (kl_divergence(x, x + 0.5) > 0).all()
    assert (kl_divergence(x, x - 0.5) > 0).all()


def test_kl_divergence_is_an_unbiased_estimate():
    """Its mean over all tokens, weighed by the policy, is the divergence itself."""
    rng = np.random.default_rng(2)
    policy, reference = (np.log(rng.dirichlet(np.ones(12), size=4)) for _ in range(2))
    exact = np.sum(np.exp(policy) * (policy - reference), axis=1)
    estimates = kl_divergence(jnp.asarray(policy, jnp.float32), jnp.asarray(reference, jnp.float32))
    close(np.sum(np.exp(policy) * np.asarray(estimates, np.float64), axis=1), exact)


def test_imitation_loss_is_the_negative_weighted_sum_of_unmasked_logprobs():
    inputs = random_inputs(0)
    places = list(zip(*np.nonzero(inputs["mask"]), strict=True))
    expected = -sum(float(inputs["weights"][place]) * float(inputs["logprobs"][place]) for place in places)
    sums = imitation_loss(*(jnp.asarray(inputs[name]) for name in ("logprobs", "mask", "weights")))
    close(sums.loss, expected)
    assert sums.totals == {"sft/loss": sums.loss}
    assert sums.means == sums.largest == {}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
def test_masked_places_never_reach_the_imitation_loss_or_its_gradient(value):
    inputs = random_inputs(0)
    mask = jnp.asarray(inputs["mask"])
    dirty = jnp.where(mask > 0, jnp.asarray(inputs["logprobs"]), value)
    loss, gradient = jax.value_and_grad(lambda x: imitation_loss(x, mask, mask).loss)(dirty)
    assert math.isfinite(loss)
    np.testing.assert_array_equal(gradient, -inputs["mask"])
