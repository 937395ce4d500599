"""The reference attention against loops in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.kernels import attention as kernel
from tests.close import assert_close

attention = jax.jit(kernel.attention)
BATCH, TIME, DIM = 6, 3, 5
SHAPES = [  # heads, kv, (batch, length) of each part
    (4, 4, [(BATCH, 7)]),
    (4, 1, [(BATCH, 4), (BATCH, 7)]),
    (4, 2, [(2, 5), (BATCH, 4)]),
    (4, 1, [(3, 5), (1, 2), (BATCH, 4)]),
]


def by_loops(query, parts):
    """Softmax attention, one query and one head at a time; a row that reads nothing gives NaN."""
    query = np.asarray(query, np.float64)
    parts = [(np.asarray(k, np.float64), np.asarray(v, np.float64), np.asarray(m)) for k, v, m in parts]
    batch, time, heads, _ = query.shape
    output = np.full(query.shape, np.nan)
    for b in range(batch):
        for t in range(time):
            for h in range(heads):
                scores, values = [], []
                for part_keys, part_values, mask in parts:
                    row = b // (batch // part_keys.shape[0])
                    head = h // (heads // part_keys.shape[1])
                    for s in np.flatnonzero(mask[b, t]):
                        scores.append(query[b, t, h] @ part_keys[row, head, :, s])
                        values.append(part_values[row, head, s])
                if scores:
                    weights = np.exp(np.array(scores) - max(scores))
                    output[b, t, h] = weights @ np.array(values) / weights.sum()
    return output


def random_input(heads, kv, part_shapes, seed=0, dtype=jnp.float32):
    """Queries and parts with ragged masks, in which each query reads at least one key."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    parts = []
    for batch, length in part_shapes:
        mask = rng.random((BATCH, TIME, length)) < 0.6
        parts.append((normal(batch, kv, DIM, length), normal(batch, kv, length, DIM), mask))
    parts[-1][2][:, :, 0] = True
    return normal(BATCH, TIME, heads, DIM), tuple(parts)


@pytest.mark.parametrize(("heads", "kv", "part_shapes"), SHAPES)
def test_attention_equals_loops_in_float64(heads, kv, part_shapes):
    query, parts = random_input(heads, kv, part_shapes)
    output = attention(query, parts)
    assert output.dtype == jnp.float32
    assert_close(output, by_loops(query, parts))


@pytest.mark.parametrize(("heads", "kv", "part_shapes"), SHAPES)
def test_a_shared_part_equals_the_same_part_repeated(heads, kv, part_shapes):
    query, parts = random_input(heads, kv, part_shapes, seed=1)
    spread = lambda x: np.repeat(x, BATCH // x.shape[0], axis=0)  # noqa: E731
    repeated = tuple((spread(keys), spread(values), mask) for keys, values, mask in parts)
    assert_close(attention(query, parts), attention(query, repeated), tolerance=2e-6)


def test_cutting_keys_and_values_into_parts_changes_nothing():
    query, ((keys, values, mask),) = random_input(4, 2, [(BATCH, 7)], seed=2)
    cut = ((keys[..., :3], values[:, :, :3], mask[..., :3]), (keys[..., 3:], values[:, :, 3:], mask[..., 3:]))
    assert_close(attention(query, cut), attention(query, ((keys, values, mask),)), tolerance=2e-6)


def test_keys_in_blocks_of_columns_equal_whole_ones():
    query, (prefix, (keys, values, mask)) = random_input(4, 2, [(2, 5), (BATCH, 6)], seed=8)
    blocks = keys.reshape(BATCH, 2, DIM, 3, 2).transpose(0, 1, 3, 2, 4)
    actual = attention(query, (prefix, (blocks, values, mask)))
    assert_close(actual, attention(query, (prefix, (keys, values, mask))), tolerance=2e-6)


@pytest.mark.parametrize(("heads", "kv", "part_shapes"), SHAPES)
def test_masked_keys_and_values_change_no_bit(heads, kv, part_shapes):
    query, parts = random_input(heads, kv, part_shapes, seed=3)
    unread = []
    for keys, values, mask in parts:
        read = mask.reshape(keys.shape[0], -1, mask.shape[-1]).any(axis=1)
        unread.append((np.where(read[:, None, None], keys, 1e4), np.where(read[:, None, :, None], values, -1e4), mask))
    np.testing.assert_array_equal(attention(query, parts), attention(query, tuple(unread)))


def test_rows_that_read_nothing_are_finite_and_leave_the_others_alone():
    query, (prefix, own) = random_input(4, 2, [(2, 5), (BATCH, 4)], seed=4)
    blind = np.zeros((BATCH, TIME), bool)
    blind[1], blind[4, 2] = True, True
    parts = tuple((k, v, m & ~blind[..., None]) for k, v, m in (prefix, own))
    output = np.asarray(attention(query, parts))
    assert np.isfinite(output).all()
    np.testing.assert_array_equal(output[~blind], np.asarray(attention(query, (prefix, own)))[~blind])

    def loss(query, parts):
        return jnp.sum(jnp.where(blind[..., None, None], 0, attention(query, parts)) ** 2)

    floats = [(k, v) for k, v, _ in parts]
    gradients = jax.jit(
        jax.grad(lambda q, f: loss(q, tuple((*kv, m) for kv, (*_, m) in zip(f, parts, strict=True))), (0, 1))
    )(query, floats)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert not np.asarray(gradients[0])[blind].any()


@pytest.mark.parametrize(("heads", "kv", "part_shapes"), SHAPES)
def test_gradients_equal_finite_differences_of_the_loops_in_float64(heads, kv, part_shapes):
    query, parts = random_input(heads, kv, part_shapes, seed=5)
    rng = np.random.default_rng(6)
    weights = rng.normal(size=query.shape)
    masks = [mask for *_, mask in parts]
    inputs = [query, *(x for keys, values, _ in parts for x in (keys, values))]

    def with_inputs(inputs):
        return inputs[0], tuple(zip(inputs[1::2], inputs[2::2], masks, strict=True))

    gradients = jax.jit(
        jax.grad(lambda *inputs: jnp.sum(attention(*with_inputs(inputs)) * weights), range(len(inputs)))
    )(*inputs)
    for place, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        direction = rng.normal(size=x.shape)

        def moved(step, place=place, x=x, direction=direction):
            moved = [*inputs[:place], np.asarray(x, np.float64) + step * direction, *inputs[place + 1 :]]
            return np.sum(by_loops(*with_inputs(moved)) * weights)

        expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("heads", "kv", "part_shapes"), SHAPES)
def test_bfloat16_is_within_its_own_rounding_of_the_loops(heads, kv, part_shapes):
    query, parts = random_input(heads, kv, part_shapes, seed=7, dtype=jnp.bfloat16)
    output = attention(query, parts)
    assert output.dtype == jnp.bfloat16
    # The weights and the output are rounded to 8 bits (2**-9 relative), values reach about 3.
    np.testing.assert_allclose(np.asarray(output, np.float64), by_loops(query, parts), atol=0.02)
