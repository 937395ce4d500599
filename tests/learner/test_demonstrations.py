"""The loss of demonstrations among the samples of a group."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.losses import policy_loss
from tests.close import assert_close
from tests.learner.loss_by_hand import BUDGET, batch_of, loss_of, random_inputs

OWN = AlgorithmConfig(clip="none", entropy="bonus", entropy_coef=0.01)
MIXED = dataclasses.replace(OWN, demonstrations=1, demonstration_shaping=0.2)


def sums(config, inputs, shown, logprobs=None):
    batch = batch_of(inputs).with_columns(demonstrated=jnp.asarray(shown, jnp.float32))
    logprobs = jnp.asarray(inputs["logprobs"]) if logprobs is None else logprobs
    return policy_loss(config, BUDGET, logprobs, jnp.asarray(inputs["entropy"]), batch)


@pytest.mark.parametrize("proximal", ["behaviour", "recompute"])
def test_tokens_of_demonstrations_have_a_shaped_loss_and_the_others_their_own(proximal):
    inputs = random_inputs(3)
    shown = np.zeros_like(inputs["mask"])
    shown[[0, 4]] = 1
    inputs["behaviour"][shown > 0] = 0  # unknown
    if proximal == "recompute":
        inputs["proximal"] = np.where(shown > 0, inputs["logprobs"], inputs["proximal"])
    config = dataclasses.replace(MIXED, proximal=proximal)
    found = sums(config, inputs, shown)
    mask = (inputs["mask"] > 0).astype(np.float64)
    p = np.exp(inputs["logprobs"].astype(np.float64))
    demonstrated = np.sum(mask * shown * -inputs["advantages"] * p / (p + 0.2))
    plain = {**inputs, "mask": inputs["mask"] * (1 - shown)}
    own = loss_of(dataclasses.replace(OWN, proximal=proximal), plain)
    bonus = -0.01 * np.sum(mask * shown * inputs["entropy"])
    assert_close(
        found.loss, float(own.loss) + demonstrated + bonus, terms=float(np.sum(mask * np.abs(inputs["advantages"])))
    )
    assert float(found.weight) == mask.sum()
    assert float(found.largest["train/logprob_gap"]) == float(own.largest["train/logprob_gap"])


def test_the_gradient_is_largest_where_the_probability_is_the_shaping_constant():
    inputs = random_inputs(4)
    shown = np.ones_like(inputs["mask"])
    config = dataclasses.replace(MIXED, entropy="none")
    gradient = jax.grad(lambda x: sums(config, inputs, shown, x).loss)(jnp.asarray(inputs["logprobs"]))
    p = np.exp(inputs["logprobs"].astype(np.float64))
    expected = -inputs["mask"] * inputs["advantages"] * 0.2 * p / (p + 0.2) ** 2
    assert_close(gradient, expected, terms=1.0)
    weights = lambda p: 0.2 * p / (p + 0.2) ** 2  # noqa: E731
    assert weights(0.2) > max(weights(0.15), weights(0.25))
