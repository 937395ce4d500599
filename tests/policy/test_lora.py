"""Adapters: a fresh one changes nothing, a trained one is the same as the merged weights, and only it is trained."""

import dataclasses

import jax
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.policy import ADAPTERS, LoraConfig
from tests.close import assert_close
from tests.policy.reference import TINY, logits, random_params, random_sequences

TARGETS = ("q", "k", "v", "out", "gate", "up", "down")
CONFIG = dataclasses.replace(TINY, lora=LoraConfig(rank=3, alpha=5.0))
SEQUENCES = np.stack(random_sequences([7, 7]))

logits_of, unstack = jax.jit(policy.logits, static_argnums=0), jax.jit(policy.unstack)
merge = jax.jit(policy.merged, static_argnums=0)
init_with_adapters = jax.jit(policy.init_with_adapters, static_argnums=0)


def random_adapters(config, seed=0):
    """Adapters in which no B is 0."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: policy.init_adapters(config, jax.random.key(0)))
    return jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), shapes)


def adapted_in_float64(config, params):
    """Base weights in float64, each plus alpha / rank times A B, written out for each layer."""
    result = jax.tree.map(lambda x: np.asarray(x, np.float64), policy.base(params))
    for part, pairs in params[ADAPTERS].items():
        for name, pair in pairs.items():
            a, b = (np.asarray(pair[which], np.float64) for which in "ab")
            for layer in range(config.num_layers):
                change = np.tensordot(a[layer], b[layer], axes=1) * config.lora.alpha / config.lora.rank
                result["layers"][part][name][layer] += change
    return result


@pytest.mark.parametrize("targets", [TARGETS, ("q", "v"), ("out", "down")], ids="-".join)
def test_an_adapted_policy_computes_with_the_base_plus_the_scaled_product(targets):
    config = dataclasses.replace(TINY, lora=LoraConfig(rank=3, alpha=5.0, targets=targets))
    params = random_params(TINY) | {ADAPTERS: random_adapters(config)}
    assert {name for part in params[ADAPTERS].values() for name in part} == set(targets)
    found = logits_of(config, params, SEQUENCES)
    expected = [logits(TINY, adapted_in_float64(config, params), sequence) for sequence in SEQUENCES]
    assert_close(found, np.stack(expected))
    assert np.max(np.abs(found - logits_of(config, policy.base(params), SEQUENCES))) > 0.1


def test_a_fresh_adapter_changes_nothing_to_the_bit_and_is_random():
    params = init_with_adapters(CONFIG, jax.random.key(1))
    with_adapters = logits_of(CONFIG, params, SEQUENCES)
    np.testing.assert_array_equal(with_adapters, logits_of(TINY, policy.base(params), SEQUENCES))
    np.testing.assert_array_equal(policy.base(params)["embed"], policy.init(TINY, jax.random.key(1))["embed"])
    bound = TINY.width**-0.5
    a = np.asarray(params[ADAPTERS]["attention"]["q"]["a"])
    assert a.shape == (2, TINY.width, 3)
    assert np.abs(a).max() <= bound
    assert a.std() == pytest.approx(bound / 3**0.5, rel=0.2)
    assert not np.array_equal(a[0], a[1])


def test_merging_gives_a_policy_without_adapters_that_computes_the_same():
    params = random_params(TINY) | {ADAPTERS: random_adapters(CONFIG)}
    merged = merge(CONFIG, params)
    assert jax.tree.structure(merged) == jax.tree.structure(random_params(TINY))
    expected = adapted_in_float64(CONFIG, params)
    assert_close(merged, expected)


def test_stacked_and_unstacked_adapters_compute_the_same():
    params = random_params(TINY) | {ADAPTERS: random_adapters(CONFIG)}
    stacked = logits_of(CONFIG, params, SEQUENCES)
    unstacked = logits_of(CONFIG, unstack(params), SEQUENCES)
    assert_close(unstacked, stacked)


def test_every_adapter_has_named_axes_for_all_of_its_dimensions():
    params = jax.eval_shape(lambda: policy.init_with_adapters(CONFIG, jax.random.key(0)))
    axes = policy.axes_with_adapters(CONFIG)
    is_axes = lambda x: isinstance(x, jax.sharding.PartitionSpec)  # noqa: E731
    assert jax.tree.structure(params) == jax.tree.structure(axes, is_leaf=is_axes)
    jax.tree.map(lambda spec, x: np.testing.assert_equal(len(spec), x.ndim), axes, params, is_leaf=is_axes)
    assert axes[ADAPTERS]["mlp"]["down"]["a"] == jax.sharding.PartitionSpec("layers", "mlp", None)


def test_what_is_trained_are_the_adapters_or_everything():
    params = random_params(TINY)
    assert policy.trainable(params) is params
    assert policy.with_trainable(params, "new") == "new"
    adapted = params | {ADAPTERS: random_adapters(CONFIG)}
    assert policy.trainable(adapted) is adapted[ADAPTERS]
    assert policy.with_trainable(adapted, "new") == params | {ADAPTERS: "new"}
    assert policy.base(adapted) == params
