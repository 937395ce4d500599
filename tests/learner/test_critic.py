"""The critic's values and loss against NumPy, its gradient against finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax import policy
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.critic import action_values, critic_loss, value_loss
from rlvr_jax.learner.packing import pack
from rlvr_jax.learner.step import new_state, train_step
from tests.close import assert_close
from tests.learner.by_hand import PROMPT, RESPONSE, ROWS, SHAPE, hidden_by_hand, random_params, sequences


@pytest.fixture(scope="module")
def params():
    """A critic whose head is not 0."""
    head = np.random.default_rng(3).normal(size=SHAPE.width)
    return policy.with_value_head(SHAPE, random_params()) | {policy.VALUE: jnp.asarray(head, jnp.float32)}


@pytest.fixture(scope="module")
def batch():
    """A ragged batch with an observation in its longest row."""
    rng = np.random.default_rng(4)
    made = layout(*sequences(), PROMPT, RESPONSE)
    mask = made.action_mask.copy()
    mask[0, 2] = 0
    columns = {name: rng.normal(size=mask.shape).astype(np.float32) for name in ("values", "returns")}
    return made.replace(action_mask=mask).with_columns(**columns)


def values_by_hand(params):
    """The value before each action of each row, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    found = np.zeros((ROWS, RESPONSE))
    for row, (prompt, response) in enumerate(zip(*sequences(), strict=True)):
        states = hidden_by_hand(params, [*prompt, *response]) @ params["value"]
        found[row, : len(response)] = states[len(prompt) - 1 : len(prompt) - 1 + len(response)]
    return found


def loss_by_hand(values, batch, clip):
    terms = []
    for row, t in zip(*np.nonzero(batch.action_mask), strict=True):
        old, target = (float(batch.columns[name][row, t]) for name in ("values", "returns"))
        plain = (values[row, t] - target) ** 2
        limited = (min(max(values[row, t], old - clip), old + clip) - target) ** 2
        terms.append((max(plain, limited) if clip else plain, limited > plain))
    return np.mean(terms, axis=0) * (0.5, 1)


def test_a_value_is_the_heads_product_with_the_state_before_the_action_also_in_packed_rows(params, batch):
    found = jax.jit(partial(action_values, SHAPE))(params, batch)
    assert found.dtype == jnp.float32
    expected = values_by_hand(params)
    assert_close(found * batch.action_mask, expected * batch.action_mask, 1e-5)
    prompts = [[1, 2]] * 4
    rows = layout(prompts, sequences()[1][:4], PROMPT, RESPONSE)
    separate = jax.jit(partial(action_values, SHAPE))(params, rows)
    packed = pack(rows.with_columns(expected=np.asarray(separate)), 2)
    together = jax.jit(partial(action_values, SHAPE))(params, packed)
    assert_close(together * packed.action_mask, packed.columns["expected"] * packed.action_mask, 1e-5)


@pytest.mark.parametrize("clip", [0.0, 0.2, 1.0])
def test_the_loss_is_half_the_larger_square_of_the_plain_and_the_limited_value(batch, clip):
    values = np.random.default_rng(5).normal(size=batch.action_mask.shape).astype(np.float32)
    dirty = batch.with_columns(returns=np.where(batch.action_mask > 0, batch.columns["returns"], np.nan))
    sums = jax.jit(partial(value_loss, clip))(values, dirty)
    loss, share = loss_by_hand(values.astype(np.float64), batch, clip)
    assert float(sums.loss / sums.weight) == pytest.approx(loss, rel=1e-6)
    assert float(sums.weight) == batch.action_mask.sum()
    assert ("critic/clip_fraction" in sums.means) == (clip > 0)
    if clip:
        assert 0 < share < 1
        assert float(sums.means["critic/clip_fraction"][0] / sums.weight) == pytest.approx(share)


def test_the_gradient_is_that_of_finite_differences_and_of_microbatches(params, batch):
    """Away from the corners of the loss: no old value is near the edge of its range."""
    clip, steps = 0.2, {}
    for n in (1, 4):
        step = jax.jit(partial(train_step, critic_loss(SHAPE, clip), {"critic": optax.sgd(1.0)}, n))
        states, metrics = step({"critic": new_state(optax.sgd(1.0), params)}, batch)
        steps[n] = jax.tree.map(lambda x, y: np.float64(x) - np.float64(y), params, states["critic"].params)
        assert {"critic/loss", "critic/clip_fraction", "critic/grad_norm"} == metrics.keys()
    expected, h = jax.tree.map(lambda x: np.zeros(x.shape), params), 1e-6
    moved = jax.tree.map(lambda x: np.array(x, np.float64), params)
    for name in ("value", "norm", "embed"):
        for place in np.ndindex(moved[name].shape):
            middle, losses = moved[name][place], []
            for shift in (h, -h):
                moved[name][place] = middle + shift
                losses.append(loss_by_hand(values_by_hand(moved), batch, clip)[0])
            moved[name][place] = middle
            expected[name][place] = (losses[0] - losses[1]) / (2 * h)
        assert_close(steps[1][name], expected[name], 2e-5)
    assert np.abs(expected["embed"]).max() > 0
    assert_close(steps[4], steps[1], 1e-6, terms=max(np.abs(x).max() for x in jax.tree.leaves(steps[1])))


def test_a_new_head_gives_values_of_0_and_the_decoder_is_the_policys():
    made = policy.with_value_head(SHAPE, random_params())
    assert made.keys() == {"embed", "layers", "norm", "value"}
    assert not made["value"].any()
    shapes, axes = jax.eval_shape(partial(policy.init_critic, SHAPE), jax.random.key(0)), policy.critic_axes(SHAPE)
    jax.tree.map(lambda x, y: np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)), shapes, made)
    assert axes.keys() == made.keys()
