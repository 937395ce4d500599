"""The optimizer against AdamW written down in float64 NumPy, and the learning-rate schedules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax import policy
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer, make_schedule
from rlvr_jax.policy import PolicyConfig
from tests.close import assert_close

UPDATES = 10
SHAPES = {
    "embed": (5, 4),
    "layers": {"attention": {"q": (2, 4, 3), "q_bias": (2, 3)}, "mlp_norm": (2, 4)},
    "norm": (4,),
}
UNDECAYED = {"q_bias", "mlp_norm", "norm"}


def random_tree(rng, scale):
    return jax.tree.map(
        lambda shape: (rng.normal(size=shape) * scale).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def rate_by_hand(config, update):
    if update < config.warmup_steps:
        return config.learning_rate * update / config.warmup_steps
    progress = (update - config.warmup_steps) / (UPDATES - config.warmup_steps)
    factor = {"constant": 1, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[config.decay]
    return config.learning_rate * factor


def adamw_by_hand(config, params, gradients):
    """Parameters after each of the gradients; lists of float64 arrays in the order of the tree's leaves."""
    names = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    params = [x.astype(np.float64) for x in jax.tree.leaves(params)]
    first, second = [np.zeros_like(x) for x in params], [np.zeros_like(x) for x in params]
    for update, gradient in enumerate(gradients):
        gradient = [x.astype(np.float64) for x in jax.tree.leaves(gradient)]
        norm = math.sqrt(sum(np.sum(x**2) for x in gradient))
        for i, (name, x) in enumerate(zip(names, gradient, strict=True)):
            x = x * min(1.0, config.clip_norm / norm)
            first[i] = config.b1 * first[i] + (1 - config.b1) * x
            second[i] = config.b2 * second[i] + (1 - config.b2) * x**2
            m, v = first[i] / (1 - config.b1 ** (update + 1)), second[i] / (1 - config.b2 ** (update + 1))
            decay = 0.0 if name in UNDECAYED else config.weight_decay
            params[i] = params[i] - rate_by_hand(config, update) * (m / (np.sqrt(v) + config.eps) + decay * params[i])
        yield params


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(learning_rate=0.01),
        OptimizerConfig(learning_rate=0.02, b1=0.8, b2=0.99, eps=1e-3, clip_norm=1e9),
        OptimizerConfig(learning_rate=0.01, weight_decay=0.3, warmup_steps=3, decay="linear"),
        OptimizerConfig(learning_rate=0.01, weight_decay=0.3, warmup_steps=2, decay="cosine", clip_norm=5.0),
    ],
    ids=["plain", "moments", "warm-up, linear, weight decay", "cosine, clipped now and then"],
)
def test_every_update_is_that_of_adamw(config):
    rng = np.random.default_rng(0)
    params = random_tree(rng, 1.0)
    gradients = [random_tree(rng, scale) for scale in rng.exponential(1.0, UPDATES)]
    norms = [math.sqrt(sum(float(np.sum(x**2)) for x in jax.tree.leaves(gradient))) for gradient in gradients]
    if config.clip_norm == 5.0:
        assert min(norms) < config.clip_norm < max(norms)
    optimizer = make_optimizer(config, UPDATES)
    actual = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(actual)
    update = jax.jit(optimizer.update)
    for gradient, expected in zip(gradients, adamw_by_hand(config, params, gradients), strict=True):
        changes, state = update(gradient, state, actual)
        actual = optax.apply_updates(actual, changes)
        assert_close(jax.tree.leaves(actual), expected, tolerance=2e-6)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_weight_decay_spares_exactly_norm_scales_and_biases_of_a_policy(tie_embeddings):
    shape = PolicyConfig(
        vocab_size=5,
        num_layers=2,
        width=4,
        num_heads=2,
        num_kv_heads=1,
        head_dim=2,
        mlp_width=4,
        qk_norm="head",
        qkv_bias=True,
        tie_embeddings=tie_embeddings,
    )
    params = jax.tree.map(jnp.ones_like, policy.init(shape, jax.random.key(0)))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, weight_decay=0.5), UPDATES)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, x in jax.tree_util.tree_leaves_with_path(updates)
        if np.all(x == -0.25)
    }
    matrices = {"attention/q", "attention/k", "attention/v", "attention/out", "mlp/gate", "mlp/up", "mlp/down"}
    assert decayed == {f"layers/{x}" for x in matrices} | {"embed"} | (set() if tie_embeddings else {"head"})
    spared = [path for path, x in jax.tree_util.tree_leaves_with_path(updates) if not np.any(x)]
    assert len(spared) + len(decayed) == len(jax.tree.leaves(params))


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
def test_the_schedule_rises_linearly_and_then_decays_as_named(decay, warmup_steps):
    config = OptimizerConfig(learning_rate=0.3, warmup_steps=warmup_steps, decay=decay)
    schedule = make_schedule(config, UPDATES)
    expected = [rate_by_hand(config, update) for update in range(UPDATES + 1)]
    np.testing.assert_allclose([float(schedule(update)) for update in range(UPDATES + 1)], expected, atol=1e-7)
    assert expected[warmup_steps] == 0.3
    assert decay == "constant" or expected[UPDATES] == pytest.approx(0)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_a_warm_up_longer_than_the_run_just_does_not_end(decay):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=100, decay=decay), UPDATES)
    np.testing.assert_allclose([float(schedule(i)) for i in range(UPDATES)], np.arange(UPDATES) / 100, atol=1e-7)
