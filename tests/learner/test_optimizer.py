"""The optimizers against those written down in float64 NumPy, and the learning-rate schedules."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax import policy
from rlvr_jax.learner.moments import randomly_rounded, unpack
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer, make_schedule
from rlvr_jax.policy import PolicyConfig
from tests.close import assert_close

UPDATES = 10
unpacked_moments = jax.jit(unpack)
SHAPES = {
    "embed": (5, 4),
    "layers": {"attention": {"q": (2, 4, 3), "q_bias": (2, 3), "out": (2, 3, 2, 4)}, "mlp_norm": (2, 4)},
    "norm": (4,),
}
UNDECAYED = {"q_bias", "mlp_norm", "norm"}


def random_tree(rng, scale, shapes=SHAPES):
    return jax.tree.map(
        lambda shape: (rng.normal(size=shape) * scale).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def bytes_of(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def rate_by_hand(config, update):
    if update < config.warmup_steps:
        return config.learning_rate * update / config.warmup_steps
    progress = (update - config.warmup_steps) / (UPDATES - config.warmup_steps)
    factor = {"constant": 1, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[config.decay]
    return config.learning_rate * factor


def updated_by_hand(config, params, gradients):
    """Parameters after each of the gradients; lists of float64 arrays in the order of the tree's leaves."""
    paths = [[key.key for key in path] for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    params = [x.astype(np.float64) for x in jax.tree.leaves(params)]
    states = [{} for _ in params]
    for update, gradient in enumerate(gradients):
        gradient = [x.astype(np.float64) for x in jax.tree.leaves(gradient)]
        norm = math.sqrt(sum(np.sum(x**2) for x in gradient))
        for i, (path, x) in enumerate(zip(paths, gradient, strict=True)):
            direction = adamw_by_hand
            if config.name == "adafactor":
                direction = adafactor_by_hand
            elif config.name == "muon":
                is_matrix = path[0] == "layers" and x.ndim > 2
                inner = x.ndim - 2 if path[-1] == "out" else 1
                direction = partial(muon_by_hand, inner) if is_matrix else partial(adamw_by_hand, nesterov=True)
            change = direction(config, states[i], x * min(1.0, config.clip_norm / norm), update + 1)
            decay = 0.0 if path[-1] in UNDECAYED else config.weight_decay
            params[i] = params[i] - rate_by_hand(config, update) * (change + decay * params[i])
        yield params


def stored(config, x):
    """A moment as it is kept between two updates."""
    return x.astype(jnp.bfloat16).astype(np.float64) if config.moments == "bfloat16" else x


def adamw_by_hand(config, state, x, count, nesterov=False):
    m = config.b1 * state.get("m", 0) + (1 - config.b1) * x
    v = config.b2 * state.get("v", 0) + (1 - config.b2) * x**2
    state["m"], state["v"] = stored(config, m), stored(config, v)
    if nesterov:
        ahead = config.b1 * m / (1 - config.b1 ** (count + 1))
        m = ahead + (1 - config.b1) * x / (1 - config.b1**count)
    else:
        m = m / (1 - config.b1**count)
    return m / (np.sqrt(v / (1 - config.b2**count)) + config.eps)


def adafactor_by_hand(_, state, x, count):
    decay = 1 - count**-0.8
    square = x**2 + 1e-30
    *_, small, large = np.argsort(x.shape) if x.ndim > 1 else (0, 0)
    if x.ndim > 1 and x.shape[small] >= 128:
        rows, columns = square.mean(large, keepdims=True), square.mean(small, keepdims=True)
        rows = state["rows"] = decay * state.get("rows", 0) + (1 - decay) * rows
        columns = state["columns"] = decay * state.get("columns", 0) + (1 - decay) * columns
        v = rows * columns / rows.mean(small, keepdims=True)
    else:
        v = state["v"] = decay * state.get("v", 0) + (1 - decay) * square
    change = x / np.sqrt(v)
    return change / max(1.0, math.sqrt(np.mean(change**2)))


def muon_by_hand(inner, config, state, x, count):
    """Of stacked matrices with `inner` axes on the side of the input."""
    beta = config.beta
    m = beta * state.get("m", 0) + (1 - beta) * x
    state["m"] = stored(config, m)
    m = beta * m / (1 - beta ** (count + 1)) + (1 - beta) * x / (1 - beta**count)
    matrices = m.reshape(len(x), math.prod(x.shape[1 : 1 + inner]), -1)
    found = []
    for matrix in matrices:
        y = matrix / (np.linalg.norm(matrix) + config.eps)
        for _ in range(5):
            square = y @ y.T
            y = 3.4445 * y - 4.775 * square @ y + 2.0315 * square @ square @ y
        found.append(y)
    return 0.2 * math.sqrt(max(matrices.shape[1:])) * np.reshape(found, x.shape)


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(learning_rate=0.01),
        OptimizerConfig(learning_rate=0.02, b1=0.8, b2=0.99, eps=1e-3, clip_norm=1e9),
        OptimizerConfig(learning_rate=0.01, weight_decay=0.3, warmup_steps=3, decay="linear"),
        OptimizerConfig(learning_rate=0.01, weight_decay=0.3, warmup_steps=2, decay="cosine", clip_norm=5.0),
        OptimizerConfig(name="adafactor", learning_rate=0.01, weight_decay=0.3, warmup_steps=2, decay="linear"),
        OptimizerConfig(name="muon", learning_rate=0.01, weight_decay=0.3, warmup_steps=2, beta=0.9, eps=1e-4),
    ],
    ids=["plain", "moments", "warm-up, linear, weight decay", "cosine, clipped now and then", "adafactor", "muon"],
)
def test_every_update_is_that_of_the_optimizer(config):
    rng = np.random.default_rng(0)
    shapes = SHAPES | ({"head": (130, 129), "wide": (2, 128, 131)} if config.name == "adafactor" else {})
    params = random_tree(rng, 1.0, shapes)
    gradients = [random_tree(rng, scale, shapes) for scale in rng.exponential(1.0, UPDATES)]
    norms = [math.sqrt(sum(float(np.sum(x**2)) for x in jax.tree.leaves(gradient))) for gradient in gradients]
    if config.clip_norm == 5.0:
        assert min(norms) < config.clip_norm < max(norms)
    optimizer = make_optimizer(config, UPDATES)
    actual = jax.device_put(params)
    state = jax.jit(optimizer.init)(actual)
    update = jax.jit(optimizer.update)
    for gradient, expected in zip(gradients, updated_by_hand(config, params, gradients), strict=True):
        changes, state = update(gradient, state, actual)
        actual = optax.apply_updates(actual, changes)
        assert_close(jax.tree.leaves(actual), expected, tolerance=2e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_in_bfloat16_take_half_the_memory_and_are_rounded_between_updates_alone(name):
    rng = np.random.default_rng(1)
    params, gradients = random_tree(rng, 1.0), [random_tree(rng, 1.0) for _ in range(3)]
    config = OptimizerConfig(name=name, learning_rate=0.01, moments="bfloat16")
    optimizer = make_optimizer(config, UPDATES)
    actual = jax.device_put(params)
    state = jax.jit(optimizer.init)(actual)
    whole = jax.eval_shape(make_optimizer(OptimizerConfig(name=name), UPDATES).init, actual)
    assert 1.9 < bytes_of(whole) / bytes_of(state) <= 2
    update = jax.jit(optimizer.update)
    rounded = updated_by_hand(config, params, gradients)
    exact = updated_by_hand(dataclasses.replace(config, moments="float32"), params, gradients)
    for count, (gradient, near, far) in enumerate(zip(gradients, rounded, exact, strict=True)):
        changes, state = update(gradient, state, actual)
        actual = optax.apply_updates(actual, changes)
        error = max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(actual), near, strict=True))
        # A moment that lies between two bfloat16 numbers may be rounded either way: 1/256 of an update.
        assert error < config.learning_rate * 2**-8
        if count:
            assert error < max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(actual), far, strict=True))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_in_8_bits_are_neighbours_of_the_exact_ones_and_take_a_quarter_of_the_memory(name):
    rng = np.random.default_rng(2)
    shapes = {"embed": (9, 40), "layers": {"attention": {"q": (2, 40, 6, 3)}, "mlp_norm": (2, 40)}}
    params = jax.device_put(random_tree(rng, 1.0, shapes))
    gradients = [random_tree(rng, scale, shapes) for scale in (1.0, 1e-6, 3.0)]
    for gradient in gradients:  # rows of tokens that hardly occur, and of one that never does
        gradient["embed"][1] *= 1e-7
        gradient["embed"][2] = 0
    config = OptimizerConfig(name=name, learning_rate=0.01, moments="float8")
    optimizer = make_optimizer(config, UPDATES)
    update = jax.jit(optimizer.update)
    exact = jax.jit(make_optimizer(dataclasses.replace(config, moments="float32"), UPDATES).update)
    state, whole = jax.jit(optimizer.init)(params), make_optimizer(OptimizerConfig(name=name), UPDATES).init
    assert 3.7 < bytes_of(jax.eval_shape(whole, params)) / bytes_of(state) <= 4
    for gradient in gradients:
        unpacked = (state[0], unpacked_moments(state[1], gradient))
        expected_changes, expected = exact(gradient, unpacked, params)
        changes, state = update(gradient, state, params)
        assert_close(jax.tree.leaves(changes), jax.tree.leaves(expected_changes), tolerance=1e-5)
        assert all(np.abs(x).max() < 4 * config.learning_rate for x in jax.tree.leaves(changes))
        known = jax.tree_util.tree_leaves_with_path(expected[1])
        found = jax.tree.leaves(unpacked_moments(state[1], gradient))
        moments = [
            (path, x, y) for (path, x), y in zip(known, found, strict=True) if {".mu", ".nu"} & {*map(str, path)}
        ]
        assert len(moments) == {"adamw": 6, "muon": 5}[name]
        for path, x, y in moments:
            second = "nu" in jax.tree_util.keystr(path)
            x, y = (np.sqrt(np.float64(z)) if second else np.float64(z) for z in (x, y))
            unit = np.abs(x).max() / 448
            place = unit * 2.0 ** (np.maximum(np.floor(np.log2(np.maximum(np.abs(x) / unit, 1e-30))), -6) - 3)
            assert np.all(np.abs(x - y) < 1.001 * place)
            assert not second or np.all((y > 0) == (x > 0))


def test_a_moment_that_changes_by_less_than_its_last_place_still_moves_in_the_mean():
    config = OptimizerConfig(learning_rate=0.0, b1=0.99, b2=0.99, moments="float8", clip_norm=1e9)
    optimizer = make_optimizer(config, 1)
    zeros = {"x": jnp.zeros(1000)}
    gradient = {"x": jnp.ones(1000).at[0].set(4.0)}  # the scale is that of the first
    state, _ = jax.lax.scan(
        lambda state, _: (optimizer.update(gradient, state, zeros)[1], None), jax.jit(optimizer.init)(zeros), length=50
    )
    adam = unpacked_moments(state[1], zeros)[0]
    expected = 1 - 0.99**50
    assert_close(np.mean(adam.mu["x"][1:]), expected, tolerance=0.02)
    assert_close(np.mean(adam.nu["x"][1:]), expected, tolerance=0.04)  # its root is exact in the mean
    assert np.std(adam.mu["x"][1:]) > 0


def test_rounding_to_8_bits_is_exact_in_the_mean_and_keeps_what_fits():
    fits = np.arange(256, dtype=np.uint8).view(jnp.float8_e4m3fn).astype(np.float32)
    fits = fits[np.isfinite(fits)]
    rounded = jax.jit(jax.vmap(randomly_rounded, (0, None)))
    keys = jax.random.split(jax.random.key(0), 2000)
    assert np.array_equal(np.asarray(rounded(keys[:3], jnp.asarray(fits)), np.float32), np.stack([fits] * 3))
    x = np.random.default_rng(0).uniform(-1, 1, 50).astype(np.float32) * np.float32(10.0) ** np.arange(-3, 2).repeat(10)
    samples = np.asarray(rounded(keys, jnp.asarray(x)), np.float64)
    place = 2.0 ** (np.maximum(np.floor(np.log2(np.abs(x))), -6) - 3)
    assert np.all(np.abs(samples - x) < place)
    assert np.all(np.abs(samples.mean(0) - x) < 5 * 0.5 * place / np.sqrt(len(keys)))  # 5 standard deviations at most


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
    shapes = jax.eval_shape(partial(policy.init, shape), jax.random.key(0))
    params, zeros = (jax.tree.map(lambda x, fill=fill: np.full(x.shape, fill, x.dtype), shapes) for fill in (1, 0))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.5, weight_decay=0.5), UPDATES)
    update = jax.jit(lambda params, zeros: optimizer.update(zeros, optimizer.init(params), params)[0])
    updates = jax.device_get(update(params, zeros))
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
