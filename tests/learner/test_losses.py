"""The losses against float64 NumPy on ragged masks, and what masked places may hold."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.losses import clipped_policy_loss, imitation_loss, kl_divergence, policy_gradient
from rlvr_jax.policy import PolicyConfig

CONFIG = AlgorithmConfig(clip_low=0.2, clip_high=0.3, kl_coef=0.25, reference="initial")
CHOICES = {
    "all": CONFIG,
    "no reference": replace(CONFIG, kl_coef=0.0, reference="none"),
    "constant": replace(CONFIG, aggregation="constant"),
    "decoupled": replace(CONFIG, proximal="recompute", importance_cap=1.2),
}
ROWS, TIME, MAX_LENGTH = 7, 9, 12
ARGUMENTS = ("logprobs", "entropy")
COLUMNS = ("advantages", "behaviour", "proximal", "reference")


def random_inputs(seed: int) -> dict[str, np.ndarray]:
    """Ragged rows, one without any action and one of padding, with ratios on both sides of the clip range."""
    rng = np.random.default_rng(seed)
    lengths = np.array([TIME, 0, 1, 5, 7, 3, 0])
    logprobs = -rng.exponential(1.0, (ROWS, TIME)) - 0.5
    near = lambda: logprobs + rng.normal(size=(ROWS, TIME)) * 0.4  # noqa: E731
    arrays = {
        "logprobs": logprobs,
        "entropy": rng.exponential(1.0, (ROWS, TIME)),
        "mask": np.arange(TIME) < lengths[:, None],
        "samples": np.array([1, 1, 1, 1, 1, 3, 0]),
        "advantages": rng.normal(size=(ROWS, TIME)),
        "behaviour": near(),
        "reference": near(),
        "proximal": near(),
    }
    arrays["mask"][3, 2] = False  # an observation in the middle of a response
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def clipped_loss_by_hand(config, logprobs, entropy, mask, samples, advantages, behaviour, proximal, reference):
    """Loss, weight, means and gap, token by token, in float64."""
    loss = gap = 0.0
    sums = dict.fromkeys(("train/entropy", "train/clip_fraction", "train/kl", "train/importance_weight"), 0.0)
    decoupled = config.proximal == "recompute"
    for place in zip(*np.nonzero(mask), strict=True):
        new, old, advantage = (float(x[place]) for x in (logprobs, behaviour, advantages))
        anchor = float(proximal[place]) if decoupled else old
        weight = min(math.exp(anchor - old), config.importance_cap) if decoupled else 1.0
        ratio = math.exp(new - anchor)
        clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        difference = float(reference[place]) - new
        kl = math.exp(difference) - 1 - difference
        loss += config.kl_coef * kl - weight * min(ratio * advantage, clipped * advantage)
        sums["train/clip_fraction"] += (ratio > 1 + config.clip_high and advantage > 0) or (
            ratio < 1 - config.clip_low and advantage < 0
        )
        sums["train/entropy"] += float(entropy[place])
        sums["train/kl"] += kl
        sums["train/importance_weight"] += weight
        gap = max(gap, abs(new - old))
    count = float(np.sum(mask))
    divisor = count if config.aggregation == "token_mean" else float(np.sum(samples)) * MAX_LENGTH
    read = {"train/kl": config.reference != "none", "train/importance_weight": decoupled}
    means = {name: (value, count) for name, value in sums.items() if read.get(name, True)}
    return loss, divisor, means | {"train/loss": (loss, divisor)}, gap


def batch_of(inputs):
    batch = layout([[1]] * ROWS, [[1] * TIME] * ROWS, 1, TIME)
    columns = {name: jnp.asarray(inputs[name]) for name in COLUMNS}
    return batch.replace(action_mask=jnp.asarray(inputs["mask"]), samples=inputs["samples"], columns=columns)


def clipped_loss(config, inputs):
    arguments = (jnp.asarray(inputs[name]) for name in ARGUMENTS)
    return clipped_policy_loss(config, MAX_LENGTH, *arguments, batch_of(inputs))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(3))
def test_clipped_loss_weight_and_all_metrics_are_those_of_the_formula(seed, choice):
    config, inputs = CHOICES[choice], random_inputs(seed)
    loss, weight, means, gap = clipped_loss_by_hand(config, **inputs)
    sums = clipped_loss(config, inputs)
    assert sums.means.keys() == means.keys()
    assert sums.largest.keys() == {"train/logprob_gap"}
    assert means["train/clip_fraction"][0] > 0
    close(sums.loss, loss)
    assert float(sums.weight) == weight
    close(sums.largest["train/logprob_gap"], gap)
    for name, value in means.items():
        close(sums.means[name], value)


@pytest.mark.parametrize("name", ["clip_low", "clip_high", "kl_coef", "importance_cap"])
def test_every_number_of_the_algorithm_changes_the_loss(name):
    config, inputs = CHOICES["decoupled"], random_inputs(0)
    other = replace(config, **{name: 0.9 * getattr(config, name)})
    assert abs(clipped_loss(other, inputs).loss - clipped_loss(config, inputs).loss) > 1e-3


@pytest.mark.parametrize(
    ("choice", "needs"),
    [
        ("all", {"advantages", "behaviour", "reference"}),
        ("no reference", {"advantages", "behaviour"}),
        ("decoupled", {"advantages", "behaviour", "proximal", "reference"}),
    ],
)
def test_a_loss_needs_the_columns_that_its_choices_read_and_no_others(choice, needs):
    config, inputs = CHOICES[choice], random_inputs(0)
    loss = policy_gradient(PolicyConfig(), config, temperature=1.0, max_length=MAX_LENGTH)
    assert set(loss.needs) == needs
    assert loss.rows_together == 1
    batch = batch_of(inputs)
    batch = batch.replace(columns={name: batch.columns[name] for name in needs})
    found = clipped_policy_loss(config, MAX_LENGTH, *(jnp.asarray(inputs[name]) for name in ARGUMENTS), batch)
    assert found.loss == clipped_loss(config, inputs).loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "active"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_gradient_stops_exactly_where_the_clip_would_let_the_ratio_run_away(ratio, advantage, active):
    full = lambda x: jnp.full((1, 1), x, jnp.float32)  # noqa: E731
    batch = layout([[1]], [[1]], 1, 1).replace(action_mask=full(1))
    batch = batch.with_columns(advantages=full(advantage), behaviour=full(0))

    def loss(logprobs):
        return clipped_policy_loss(CHOICES["no reference"], MAX_LENGTH, logprobs, full(0), batch).loss

    gradient = jax.grad(loss)(full(math.log(ratio)))
    close(gradient, [[-advantage * ratio if active else 0.0]])


def gradient_in_logprobs(config, inputs):
    return jax.grad(lambda x: clipped_loss(config, inputs | {"logprobs": x}).loss)(jnp.asarray(inputs["logprobs"]))


@pytest.mark.parametrize("choice", ["all", "decoupled"])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_clipped_loss_is_the_closed_form(seed, choice):
    config, inputs = CHOICES[choice], random_inputs(seed)
    x = {name: value.astype(np.float64) for name, value in inputs.items()}
    anchor = x["proximal" if choice == "decoupled" else "behaviour"]
    importance = np.minimum(np.exp(anchor - x["behaviour"]), config.importance_cap)
    ratio = np.exp(x["logprobs"] - anchor)
    active = np.where(x["advantages"] >= 0, ratio <= 1 + config.clip_high, ratio >= 1 - config.clip_low)
    surrogate = np.where(active, -importance * ratio * x["advantages"], 0)
    expected = x["mask"] * (surrogate + config.kl_coef * (1 - np.exp(x["reference"] - x["logprobs"])))
    close(gradient_in_logprobs(config, inputs), expected)


def test_the_gradient_on_policy_is_that_of_reinforce():
    inputs = random_inputs(0)
    inputs |= {"behaviour": inputs["logprobs"], "proximal": inputs["logprobs"]}
    for choice in ("all", "decoupled"):
        gradient = gradient_in_logprobs(replace(CHOICES[choice], kl_coef=0.0), inputs)
        np.testing.assert_allclose(gradient, -inputs["advantages"] * inputs["mask"], rtol=1e-6)


def test_the_first_update_after_a_lag_is_reinforce_with_the_truncated_importance_weight():
    """However far the policy is from the one that sampled, nothing is clipped: the clip is relative to the proximal
    one."""
    config, inputs = replace(CHOICES["decoupled"], kl_coef=0.0), random_inputs(1)
    inputs |= {"proximal": inputs["logprobs"]}
    importance = np.minimum(np.exp(inputs["logprobs"] - inputs["behaviour"]), config.importance_cap)
    assert (importance * inputs["mask"]).max() == np.float32(config.importance_cap)
    gradient = gradient_in_logprobs(config, inputs)
    np.testing.assert_allclose(gradient, -importance * inputs["advantages"] * inputs["mask"], rtol=1e-5)
    assert clipped_loss(config, inputs).means["train/clip_fraction"][0] == 0


def test_the_gap_is_exactly_zero_on_policy():
    inputs = random_inputs(0)
    assert clipped_loss(CONFIG, inputs | {"behaviour": inputs["logprobs"]}).largest["train/logprob_gap"] == 0


@pytest.mark.parametrize("name", [*ARGUMENTS, *COLUMNS])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38, -3e38])
def test_masked_places_never_reach_loss_gradient_or_metrics_whatever_they_hold(name, value):
    config = CHOICES["decoupled"]

    def loss(inputs, logprobs):
        sums = clipped_loss(config, inputs | {"logprobs": logprobs})
        return sums.loss, sums

    clean = random_inputs(0)
    dirty = clean | {name: np.where(clean["mask"] > 0, clean[name], np.float32(value))}
    for mine, expected in zip(
        jax.tree.leaves(jax.grad(partial(loss, dirty), has_aux=True)(jnp.asarray(dirty["logprobs"]))),
        jax.tree.leaves(jax.grad(partial(loss, clean), has_aux=True)(jnp.asarray(clean["logprobs"]))),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("name", ["logprobs", *COLUMNS])
def test_a_nan_on_an_action_is_not_hidden(name):
    inputs = random_inputs(0)
    inputs[name][0, 0] = math.nan
    assert math.isnan(clipped_loss(CHOICES["decoupled"], inputs).loss)


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


def test_imitation_loss_is_the_negative_sum_of_unmasked_logprobs_over_their_count():
    inputs = random_inputs(0)
    places = list(zip(*np.nonzero(inputs["mask"]), strict=True))
    sums = imitation_loss(*(jnp.asarray(inputs[name]) for name in ("logprobs", "mask")))
    close(sums.loss, -sum(float(inputs["logprobs"][place]) for place in places))
    assert sums.weight == len(places)
    assert sums.means == {"sft/loss": (sums.loss, sums.weight)}
    assert sums.largest == {}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
def test_masked_places_never_reach_the_imitation_loss_or_its_gradient(value):
    inputs = random_inputs(0)
    mask = jnp.asarray(inputs["mask"])
    dirty = jnp.where(mask > 0, jnp.asarray(inputs["logprobs"]), value)
    loss, gradient = jax.value_and_grad(lambda x: imitation_loss(x, mask).loss)(dirty)
    assert math.isfinite(loss)
    np.testing.assert_array_equal(gradient, -inputs["mask"])
