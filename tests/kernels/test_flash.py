"""Flash attention against float64 NumPy, in interpret mode or on a GPU: both platforms' kernels, with gradients."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels.flash import flash_attention
from rlvr_jax.kernels.reference import chunked_attention, masked_attention
from rlvr_jax.kernels.schedule import LIVE, MASKED, make_schedule
from tests.close import assert_close
from tests.kernels.gpu import DIM, INTERPRET, TIMES, marked
from tests.kernels.rows import attention_and_gradients, random_rows, random_vectors, readable

# Most tests share these sizes, and so what is compiled for them.
BATCH, TIME, HEADS, KV, SCALE = 2, 91, 4, 2, 0.3
BOTH = [marked("tpu"), marked("gpu")]
KERNELS = {
    "tpu": partial(flash_attention, interpret=True),
    "gpu": partial(flash_attention, interpret=INTERPRET),
    "reference": masked_attention,
    "chunked": partial(chunked_attention, chunk=32),
}


def run(vectors, rows, *, kernel, tree=True, window=None, blocks=(8, 16), scale=1.0, soft_cap=None):
    """Output and gradients of sum(output * weights)."""
    return compiled(vectors, rows, kernel, tree, window, blocks, scale, soft_cap)


@partial(jax.jit, static_argnums=range(2, 8))
def compiled(vectors, rows, kernel, tree, window, blocks, scale, soft_cap):
    query, keys, values, weights = vectors
    rows = rows if tree else rows[:2]
    block_q, block_k = (TIMES * block for block in blocks)
    platform = "gpu" if kernel == "gpu" else "tpu"
    schedule = make_schedule(*rows, window=window, block_q=block_q, block_k=block_k, platform=platform)

    def loss(*vectors):
        output = KERNELS[kernel](*vectors, schedule, scale=scale, soft_cap=soft_cap)
        return jnp.sum(output.astype(jnp.float32) * weights), output

    gradients, output = jax.grad(loss, (0, 1, 2), has_aux=True)(query, keys, values)
    return output, gradients


def check(seeds, heads, kv, time, tolerance, dtype=jnp.float32, tree=True, window=None, dim=DIM, **options):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = random_rows(rng, BATCH, TIMES * time, tree)
        vectors = random_vectors(rng, BATCH, TIMES * time, heads, kv, dim, dtype)
        output, gradients = run(vectors, rows, tree=tree, window=window, **options)
        assert output.dtype == dtype
        options_of_numbers = {k: options[k] for k in ("scale", "soft_cap") if k in options}
        *vectors, weights = vectors
        expected = attention_and_gradients(*vectors, readable(*rows, window), weights, **options_of_numbers)
        jax.tree.map(lambda a, b: assert_close(a, b, tolerance), (output, gradients), expected)


CASES = {
    "whole rows": (2, 2, 64, {"tree": False}),
    "groups": (HEADS, KV, TIME, {"scale": SCALE}),
    "window and cap": (8, 1, 130, {"window": 40, "soft_cap": 3.0, "blocks": (32, 16)}),
    "one block": (1, 1, 5, {"blocks": (16, 16), "soft_cap": 20.0}),
    "large heads": (2, 2, 64, {"dim": 2 * DIM, "blocks": (16, 16), "scale": SCALE}),
}
# The TPU kernel with every case, the others with those that differ for them; compiling takes seconds.
PAIRS = [
    *(("tpu", case) for case in CASES if "heads" not in case),
    *(marked("gpu", case) for case in ("groups", "window and cap", "large heads")),
    *(("reference", case) for case in ("groups", "window and cap")),
    *(("chunked", case) for case in ("groups", "window and cap")),
]


@pytest.mark.parametrize(("kernel", "case"), PAIRS)
def test_outputs_and_gradients_equal_float64(kernel, case):
    heads, kv, time, options = CASES[case]
    check(range(3), heads, kv, time, 1e-5, kernel=kernel, **options)


@pytest.mark.parametrize("kernel", BOTH)
def test_bfloat16_is_within_its_rounding_of_float64(kernel):
    check(range(3), HEADS, KV, TIME, 1e-2, dtype=jnp.bfloat16, kernel=kernel, scale=SCALE)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [4 * DIM] if INTERPRET else [2 * DIM, 4 * DIM])
def test_large_heads_in_bfloat16_are_within_its_rounding_of_float64(dim):
    check(range(1), 4, 1, 64, 1e-2, dtype=jnp.bfloat16, kernel="gpu", scale=SCALE, dim=dim, blocks=(16, 16))


@pytest.mark.parametrize("kernel", BOTH)
def test_padding_gives_zero_and_gets_no_gradient(kernel):
    rows = random_rows(np.random.default_rng(3), BATCH, TIME)
    padding = rows[1] == 0
    assert padding.any()
    vectors = random_vectors(np.random.default_rng(4), BATCH, TIME, HEADS, KV, DIM)
    output, gradients = run(vectors, rows, kernel=kernel, scale=SCALE)
    for array in (output, *gradients):
        assert not np.asarray(array)[padding].any()


@pytest.mark.parametrize("kernel", BOTH)
def test_responses_behind_one_prompt_equal_each_response_behind_its_own(kernel):
    prompt, responses = 21, [15, 9, 18, 1]
    lengths = [prompt, *responses]
    starts = np.cumsum([0, *lengths])[:-1]
    offsets = np.concatenate([np.arange(n) + (prompt if i else 0) for i, n in enumerate(lengths)])
    segments = np.repeat(np.arange(5) + 1, lengths)
    used = slice(len(segments))
    rows = np.zeros((3, BATCH, TIME), np.int32)
    rows[0, 0, used], rows[1, 0, used], rows[2, 0, used] = offsets, segments, segments > 1
    query, keys, values, weights = random_vectors(np.random.default_rng(5), BATCH, TIME, HEADS, KV, DIM)
    weights = np.where(np.arange(TIME)[:, None, None] < prompt, np.float32(0), weights)  # a loss on responses only
    vectors = query, keys, values, weights
    together = jax.device_get(run(vectors, tuple(rows), kernel=kernel, scale=SCALE))

    summed = [np.zeros(x.shape[1:]) for x in vectors[:3]]
    for start, length in zip(starts[1:], responses, strict=True):
        own = np.r_[:prompt, start : start + length]
        place = np.s_[0, : len(own)]
        alone = np.zeros((3, BATCH, TIME), np.int32)
        alone[0][place], alone[1][place] = np.arange(len(own)), 1
        moved = [np.zeros_like(x) for x in vectors]
        for x, everything in zip(moved, map(np.asarray, vectors), strict=True):
            x[place] = everything[0, own]
        output, gradients = jax.device_get(run(tuple(moved), tuple(alone), kernel=kernel, scale=SCALE))
        assert_close(output[place], together[0][0, own], 1e-5)
        for total, gradient in zip(summed, gradients, strict=True):
            total[own] += gradient[place]
    for gradient, total in zip(together[1], summed, strict=True):
        assert_close(gradient[0], total, 1e-5)


def test_skipped_blocks_and_skipped_masks_change_no_bit():
    rows = random_rows(np.random.default_rng(6), 1, 64)
    query, keys, values, weights = random_vectors(np.random.default_rng(7), 1, 64, 2, 1, DIM)
    make = jax.jit(partial(make_schedule, block_q=16, block_k=16))
    schedule, causal = jax.device_get((make(*rows), make(rows[0])))
    assert schedule.by_query.starts[0, -1] < 10
    assert causal.by_query.starts[0, -1] == 10
    everything = dataclasses.replace(
        schedule,
        **{
            name: dataclasses.replace(steps, flags=np.where(steps.flags & LIVE, steps.flags | MASKED, 0))
            for name, steps in (("by_query", causal.by_query), ("by_key", causal.by_key))
        },
    )

    @jax.jit
    def outputs(schedule):
        output, gradient = jax.vjp(lambda *x: KERNELS["tpu"](*x, schedule), query, keys, values)
        return output, gradient(weights)

    jax.tree.map(np.testing.assert_array_equal, outputs(schedule), outputs(everything))


def test_the_kernels_race_for_no_buffer_and_read_none_too_early():
    # Uninitialised memory is NaN here, and copies happen only where they are waited for.
    interpret = pltpu.InterpretParams(detect_races=True)
    rng = np.random.default_rng(8)
    rows = random_rows(rng, 1, 24)
    query, keys, values, weights = random_vectors(rng, 1, 24, 2, 1, DIM)

    @jax.jit
    def outputs(rows, query, keys, values):
        schedule = make_schedule(*rows, block_q=8, block_k=8)
        attend = lambda *x: flash_attention(*x, schedule, interpret=interpret)  # noqa: E731
        output, gradient = jax.vjp(attend, query, keys, values)
        return output, gradient(weights)

    actual = outputs(rows, query, keys, values)
    assert not interpret_pallas_call.races.races_found
    expected = attention_and_gradients(query, keys, values, readable(*rows), weights)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), actual, expected)


@pytest.mark.parametrize(("block_q", "block_k", "dtype"), [(64, 128, jnp.bfloat16), (128, 64, jnp.float32)])
def test_gpu_kernels_lower_to_triton(block_q, block_k, dtype):
    ids = [jax.ShapeDtypeStruct((2, 1000), jnp.int32)] * 3
    vectors = [jax.ShapeDtypeStruct((2, 1000, heads, 64), dtype) for heads in (8, 2, 2)]

    def gradients(*arguments):
        blocks = {"block_q": block_q, "block_k": block_k, "platform": "gpu"}
        schedule = make_schedule(*arguments[3:], window=100, **blocks)
        attend = lambda *x: flash_attention(*x, schedule, soft_cap=30.0)  # noqa: E731
        return jax.grad(lambda *x: attend(*x).astype(jnp.float32).sum(), (0, 1, 2))(*arguments[:3])

    lowered = jax.jit(gradients).trace(*vectors, *ids).lower(lowering_platforms=("cuda",)).as_text()
    for name in ("flash_forward", "flash_query_gradient", "flash_key_value_gradients"):
        assert name in lowered


@pytest.mark.parametrize(
    ("heads", "kv", "dim", "options", "dtype", "message"),
    [
        (2, 1, 64, {}, jnp.float16, "bfloat16 or float32, .*, not float16"),
        (3, 2, 64, {}, jnp.float32, "a number of heads that divides the query's"),
        (2, 1, 80, {}, jnp.float32, "on TPU take head sizes that are multiples of 64, not 80"),
        (2, 1, 80, {"platform": "gpu"}, jnp.bfloat16, "take bfloat16 heads of 16, 32, 64, 128, 256, not 80"),
        (2, 1, 256, {"platform": "gpu"}, jnp.float32, "take float32 heads of 16, 32, 64, 128, not 256"),
        (2, 1, 64, {}, jnp.float32, "on TPU take blocks that are multiples of 128, not block_q=8 and block_k=16"),
        (2, 1, 64, {"platform": "gpu"}, jnp.float32, "on GPU take blocks of 16, 32, 64, 128, 256, not block_q=8"),
    ],
)
def test_what_the_kernels_do_not_support_is_refused_by_name(heads, kv, dim, options, dtype, message):
    query, keys, values, _ = random_vectors(np.random.default_rng(0), 1, 32, heads, kv, dim, dtype)
    make = partial(make_schedule, block_q=8, block_k=16, **options)
    schedule = jax.eval_shape(make, jnp.zeros((1, 32), jnp.int32))
    with pytest.raises(ValueError, match=message):
        flash_attention(query, keys, values, schedule)


def test_a_schedule_of_other_rows_is_refused():
    query, keys, values, _ = random_vectors(np.random.default_rng(0), 1, 32, 1, 1, 64)
    schedule = jax.eval_shape(partial(make_schedule, block_q=8, block_k=16), jnp.zeros((1, 40), jnp.int32))
    with pytest.raises(ValueError, match=r"schedule is of 1 rows of 40 tokens, the query of \(1, 32\)"):
        flash_attention(query, keys, values, schedule)
