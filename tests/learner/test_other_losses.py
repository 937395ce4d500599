"""A critic beside the policy, and pairs of responses: losses that no other code knows of, through the same step."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax.learner.batch import in_groups, layout
from rlvr_jax.learner.losses import Loss, Sums
from rlvr_jax.learner.scores import hidden_states, score
from rlvr_jax.learner.step import dealt, new_state, train_step
from rlvr_jax.parallel import MeshConfig, batch_sharding, make_mesh
from tests.close import assert_close
from tests.learner.by_hand import (
    PROMPT,
    RESPONSE,
    ROWS,
    SHAPE,
    hidden_by_hand,
    logits_by_hand,
    random_params,
    sequences,
)

BETA = 0.7
RATES = {"policy": 1.0, "critic": 2.0}


def regression() -> Loss:
    """Half the squared error of values, which a head of its own reads from the policy's hidden states."""

    def sums(params, batch):
        hidden = hidden_states(SHAPE, params["policy"], batch)
        values = hidden @ params["critic"]["weight"] + params["critic"]["bias"]
        error = jnp.where(batch.action_mask > 0, values - batch.columns["returns"], 0.0)
        loss, count = 0.5 * jnp.sum(error**2), jnp.sum(batch.action_mask)
        below = jnp.max(jnp.where(batch.action_mask > 0, -1 - jnp.abs(error), -jnp.inf))
        return Sums(loss, count, {"critic/loss": (loss, count)}, {"critic/below": below})

    return Loss(sums, needs=("returns",))


def preference() -> Loss:
    """Direct preference optimisation: of rows 2i and 2i + 1 the first is preferred (Rafailov et al. 2023,
    arXiv:2305.18290, eq. 7)."""

    def sums(params, batch):
        logprobs, _ = score(SHAPE, params["policy"], batch, 1.0)
        gain = jnp.sum(jnp.where(batch.action_mask > 0, logprobs - batch.columns["reference"], 0.0), axis=1)
        real, margin = batch.samples[::2] * batch.samples[1::2], gain[::2] - gain[1::2]
        loss, pairs = -jnp.sum(real * jax.nn.log_sigmoid(BETA * margin)), jnp.sum(real)
        return Sums(loss, pairs, {"dpo/loss": (loss, pairs), "dpo/accuracy": (jnp.sum(real * (margin > 0)), pairs)}, {})

    return Loss(sums, needs=("reference",), rows_together=2)


def regression_by_hand(params, batch):
    errors = []
    for row, (prompt, response) in enumerate(zip(*sequences(), strict=True)):
        hidden = hidden_by_hand(params["policy"], [*prompt, *response])
        for t in range(len(response)):
            value = hidden[len(prompt) + t - 1] @ params["critic"]["weight"] + params["critic"]["bias"]
            errors.append(value - float(batch.columns["returns"][row, t]))
    return {"critic/loss": np.mean(np.square(errors)) / 2, "critic/below": -np.min(np.abs(errors)) - 1}


def preference_by_hand(params, batch):
    gains = []
    for row, (prompt, response) in enumerate(zip(*sequences(), strict=True)):
        logits = logits_by_hand(params["policy"], [*prompt, *response])
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        own = [logprobs[len(prompt) + t - 1, token] for t, token in enumerate(response)]
        gains.append(np.sum(own - np.float64(batch.columns["reference"][row, : len(response)])))
    margins = np.array(gains[0:-2:2]) - np.array(gains[1:-2:2])  # the last pair is padding
    return {"dpo/loss": np.mean(np.log1p(np.exp(-BETA * margins))), "dpo/accuracy": np.mean(margins > 0)}


def random_batch(column, groups, prompts, responses):
    batch = layout(prompts, responses, PROMPT, RESPONSE)
    noise = np.random.default_rng(5).normal(size=batch.action_mask.shape).astype(np.float32)
    batch = batch.with_columns(**{column: noise - 1})
    kept = jax.tree.map(lambda x: x[: 2 * groups], batch)
    return in_groups(kept, np.arange(2 * groups) // 2, ROWS // 2, 2)


CASES = {
    "critic": (regression(), regression_by_hand, random_batch("returns", ROWS // 2, *sequences())),
    "pairs": (preference(), preference_by_hand, random_batch("reference", ROWS // 2 - 1, *sequences())),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    loss, by_hand, batch = CASES[request.param]
    params = {"policy": random_params()}
    if request.param == "critic":
        rng = np.random.default_rng(6)
        weight = jnp.asarray(rng.normal(size=SHAPE.width), jnp.float32)
        params["critic"] = {"weight": weight, "bias": jnp.float32(0.5)}
    optimizers = {name: optax.sgd(RATES[name]) for name in params}
    steps = {n: jax.jit(partial(train_step, loss, optimizers, n)) for n in (1, 2)}

    def run(batch, microbatches=1):
        states, metrics = steps[microbatches](
            {name: new_state(optimizers[name], params[name]) for name in params}, batch
        )
        return states, metrics

    return params, by_hand, batch, run


def gradient_of(params, states):
    """What plain descent has subtracted, by the rate of each network."""
    return {
        name: jax.tree.map(lambda x, y, n=name: (np.float64(x) - np.float64(y)) / RATES[n], params[name], state.params)
        for name, state in states.items()
    }


def test_the_metrics_and_the_gradient_of_every_parameter_are_those_computed_by_hand(case):
    params, by_hand, batch, run = case
    states, metrics = run(batch)
    params64 = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = by_hand(params64, batch)
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name
    gradient, (leaves, tree) = gradient_of(params, states), jax.tree.flatten(params64)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(gradient))
    rng, h = np.random.default_rng(7), 1e-6
    for i, (x, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        direction = rng.normal(size=x.shape)
        direction /= np.linalg.norm(direction)
        shifted = ([*leaves[:i], x + step * direction, *leaves[i + 1 :]] for step in (h, -h))
        ahead, behind = (next(iter(by_hand(jax.tree.unflatten(tree, x), batch).values())) for x in shifted)
        assert np.sum(slope * direction) == pytest.approx((ahead - behind) / (2 * h), abs=1e-5 * largest), i


@pytest.mark.parametrize("case", ["pairs"], indirect=True)  # those of single rows: `test_step.py`, `test_critic.py`
def test_microbatches_give_the_gradient_and_the_metrics_of_the_whole_batch(case):
    params, _, batch, run = case
    (whole, metrics), (parts, parts_metrics) = run(batch), run(batch, 2)
    assert_close(gradient_of(params, parts), gradient_of(params, whole), terms=1.0)
    assert_close(parts_metrics, metrics, terms=1.0)


def test_a_column_that_is_not_finite_changes_no_network_and_each_counts_it(case):
    params, _, batch, run = case
    (name,) = batch.columns
    column = batch.columns[name].copy()
    column[0, 0] = math.nan
    states, _ = run(batch.with_columns(**{name: column}))
    for network, state in states.items():
        jax.tree.map(np.testing.assert_array_equal, state.params, params[network])
        assert [int(x) for x in (state.updates, state.skipped, state.skipped_in_a_row)] == [1, 1, 1]


@pytest.mark.parametrize("together", [1, 2, 4])
def test_microbatches_are_whole_units_dealt_over_all_devices_without_moving_a_row(together):
    rows, microbatches = 32, 2
    batch = layout([[i + 1] for i in range(rows)], [[1]] * rows, 1, 1)
    sharding = batch_sharding(make_mesh(MeshConfig(data=4), jax.devices()[:4]))
    compiled = jax.jit(partial(dealt, microbatches=microbatches, rows_together=together), in_shardings=sharding)
    compiled = compiled.lower(batch).compile()
    units = np.asarray(compiled(jax.device_put(batch, sharding)).tokens)[..., 0].reshape(microbatches, -1, together) - 1
    np.testing.assert_array_equal(units % together, np.broadcast_to(np.arange(together), units.shape))
    np.testing.assert_array_equal(
        units[..., 0] // together % microbatches, np.arange(microbatches)[:, None] + 0 * units[..., 0]
    )
    assert not {word for word in ("all-gather", "all-to-all", "collective-permute") if word in compiled.as_text()}
