"""Decode attention against float64 NumPy, and against the training kernel to the bit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from rlvr_jax.kernels.decode import blockwise, decode_attention, flash_decode, reference
from rlvr_jax.kernels.flash import flash_attention
from rlvr_jax.kernels.quantized import dequantized, quantized
from rlvr_jax.kernels.schedule import make_schedule
from tests.close import assert_close
from tests.kernels.gpu import DIM, INTERPRET, marked
from tests.kernels.rows import random_vectors

BATCH, HEADS, KV = 6, 4, 2
IMPLEMENTATIONS = {
    "tpu": partial(flash_decode, interpret=True),
    "gpu": partial(flash_decode, platform="gpu", interpret=INTERPRET),
    "xla": blockwise,
}
EACH = [marked(name) for name in IMPLEMENTATIONS]


@partial(jax.jit, static_argnames=("name", "options"))
def _run(query, parts, name, options):
    return IMPLEMENTATIONS[name](query, parts, **dict(options))


def run(query, parts, name, **options):
    return _run(query, parts, name, tuple(options.items()))


def random_mask(rng, batch, length, kind):
    """Columns of one sequence: behind left padding, from the first one on, or in a ring."""
    counts = rng.integers(1, length + 1, size=batch)
    starts = {"padded": length - counts, "filled": 0 * counts, "ring": rng.integers(length, size=batch)}[kind]
    return (np.arange(length) - starts[:, None]) % length < counts[:, None]


def random_input(seed, stretches, heads=HEADS, kv=KV, dim=DIM, dtype=jnp.float32):
    """A query and parts (batch, length, kind of mask), where samples of a group see the same of a shared part."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jax.device_put(rng.normal(size=shape).astype(dtype))  # noqa: E731
    parts = []
    for batch, length, kind in stretches:
        mask = np.repeat(random_mask(rng, batch, length, kind), BATCH // batch, axis=0)
        parts.append((normal(batch, kv, dim, length), normal(batch, kv, length, dim), jax.device_put(mask)))
    return normal(BATCH, heads, dim), tuple(parts)


def in_float64(query, parts, scale=1.0, soft_cap=None):
    query, parts = np.asarray(query, np.float64), jax.device_get(parts)
    batch, heads, _ = query.shape
    output = np.zeros(query.shape)
    for row in range(batch):
        for head in range(heads):
            scores, values = [], []
            for part_keys, part_values, mask in parts:
                place = row // (batch // part_keys.shape[0]), head // (heads // part_keys.shape[1])
                scores.append(query[row, head] @ np.float64(part_keys[place][:, mask[row]]))
                values.append(np.float64(part_values[place][mask[row]]))
            scores, values = scale * np.concatenate(scores), np.concatenate(values)
            scores = scores if soft_cap is None else soft_cap * np.tanh(scores / soft_cap)
            weights = np.exp(scores - scores.max(initial=-np.inf))
            output[row, head] = weights @ values / max(weights.sum(), 1e-300)
    return output


CASES = [
    ([(2, 40, "padded"), (BATCH, 33, "filled")], {}, {"block": 16, "scale": 0.3}),
    ([(1, 16, "padded"), (3, 32, "ring"), (BATCH, 7, "ring")], {"heads": 3, "kv": 1}, {"block": 16, "soft_cap": 3.0}),
    ([(BATCH, 300, "ring")], {"heads": 2, "kv": 2}, {"block": 128}),
]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("stretches", "sizes", "options"), CASES)
def test_outputs_equal_float64(name, stretches, sizes, options):
    numbers = {k: options[k] for k in ("scale", "soft_cap") if k in options}
    for seed in range(3):
        query, parts = random_input(seed, stretches, **sizes)
        assert_close(run(query, parts, name, **options), in_float64(query, parts, **numbers), 1e-5)


@pytest.mark.parametrize("name", EACH)
def test_bfloat16_is_within_its_rounding_of_float64(name):
    stretches, _, options = CASES[0]
    for seed in range(3):
        query, parts = random_input(seed, stretches, dtype=jnp.bfloat16)
        output = run(query, parts, name, **options)
        assert output.dtype == jnp.bfloat16
        assert_close(output, in_float64(query, parts, scale=options["scale"]), 1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [4 * DIM] if INTERPRET else [2 * DIM, 4 * DIM])
def test_large_heads_in_the_default_blocks_are_within_rounding_of_float64(dim):
    query, parts = random_input(4, [(2, 200, "padded"), (BATCH, 70, "filled")], heads=32, dim=dim, dtype=jnp.bfloat16)
    assert_close(run(query, parts, "gpu", scale=dim**-0.5), in_float64(query, parts, dim**-0.5), 1e-2)


@jax.jit
def in_8_bits(parts):
    """The parts quantised, and the same numbers as floats."""
    stored = []
    for keys, values, mask in parts:
        (keys, key_scales), (values, value_scales) = quantized(keys.swapaxes(2, 3)), quantized(values)
        stored.append((keys.swapaxes(2, 3), values, mask, key_scales, value_scales))
    return tuple(stored), tuple(dequantized(part, jnp.float32) for part in stored)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("stretches", "sizes", "options"), CASES[1:2])
def test_keys_and_values_in_8_bits_equal_float64_of_the_numbers_that_they_stand_for(name, stretches, sizes, options):
    numbers = {k: options[k] for k in ("scale", "soft_cap") if k in options}
    query, parts = random_input(13, stretches, **sizes)
    stored, floats = in_8_bits(parts)
    assert_close(run(query, stored, name, **options), in_float64(query, floats, **numbers), 1e-5)
    # A vector's largest element loses nothing, the others at most half of a 127th of it.
    floats, parts = jax.device_get((floats, parts))
    for (keys, values, _), (exact_keys, exact_values, _) in zip(floats, parts, strict=True):
        for x, exact, axis in ((keys, exact_keys, 2), (values, exact_values, 3)):
            largest = np.abs(exact).max(axis=axis, keepdims=True)
            assert (np.abs(x - exact) <= largest / 127 * 0.501).all()
            np.testing.assert_allclose(np.abs(x).max(axis=axis, keepdims=True), largest, rtol=1e-6)


@pytest.mark.parametrize("options", [{"implementation": "reference"}, {"implementation": "xla"}, {}])
def test_one_call_serves_every_implementation(options):
    query, parts = random_input(9, CASES[0][0])
    output = jax.jit(partial(decode_attention, scale=0.3, **options))(query, parts)
    assert_close(output, in_float64(query, parts, scale=0.3), 1e-5)


@pytest.mark.parametrize("name", EACH)
def test_blocks_that_nobody_reads_are_not_read(name):
    stretches, sizes, options = CASES[2]
    query, ((keys, values, mask),) = random_input(6, stretches, **sizes)
    # Row by row in the kernels, for all rows together in plain JAX.
    ends = np.full(BATCH, 140) if name == "xla" else np.array([1, 128, 129, 256, 140, 2])
    (length, block), ends = (mask.shape[1], options["block"]), ends[:, None]
    mask = np.arange(length) < ends
    beyond = np.arange(length) >= -(-ends // block) * block
    nan = np.float32(np.nan)
    poisoned = np.where(beyond[:, None, None], nan, keys), np.where(beyond[:, None, :, None], nan, values)
    clean = run(query, ((keys, values, mask),), name, **options)
    np.testing.assert_array_equal(run(query, ((*poisoned, mask),), name, **options), clean)


@pytest.mark.parametrize("name", EACH)
def test_rows_that_read_nothing_are_finite_and_leave_the_others_alone(name):
    stretches, _, options = CASES[0]
    query, parts = random_input(7, stretches)
    blind = np.isin(np.arange(BATCH), [1, 5])
    hidden = tuple((keys, values, np.asarray(mask) & ~blind[:, None]) for keys, values, mask in parts)
    output = np.asarray(run(query, hidden, name, **options))
    assert np.isfinite(output).all()
    np.testing.assert_array_equal(output[~blind], np.asarray(run(query, parts, name, **options))[~blind])


@pytest.mark.parametrize(("dtype", "prompt"), [(jnp.float32, 32), (jnp.bfloat16, 0)])
def test_decoding_gives_the_training_kernel_s_output_to_the_bit(dtype, prompt):
    """Blocks of the same 16 keys. The prompt, two blocks that begin with padding, is shared by three samples.

    Tiles have 16 rows here and 8 there: from 32 on, XLA's CPU back end sums the columns of float32 in another order.
    """
    time, padding, block = 75, 5 if prompt else 0, 16
    vectors = random_vectors(np.random.default_rng(8), BATCH, time, HEADS, KV, DIM, dtype)
    query, keys, values, _ = jax.device_get(vectors)
    share = lambda x: np.concatenate([x[::3, :prompt].repeat(3, axis=0), x[:, prompt:]], axis=1)  # noqa: E731
    keys, values = share(keys), share(values)
    segments = np.int32(np.broadcast_to(np.arange(time) >= padding, (BATCH, time)))
    positions = np.maximum(segments.cumsum(axis=1, dtype=np.int32) - 1, 0)

    @jax.jit
    def train(positions, segments, query, keys, values):
        schedule = make_schedule(positions, segments, block_q=8, block_k=block)
        return flash_attention(query, keys, values, schedule, scale=0.3, interpret=True)

    trained = jax.device_get(train(positions, segments, query, keys, values))
    columns = keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)
    own, room = (columns[0][..., prompt:], columns[1][:, :, prompt:]), time - prompt
    prefix = columns[0][::3, :, :, :prompt], columns[1][::3, :, :prompt]
    for at in (padding + 40, prompt + 16, time - 1):
        mask = np.broadcast_to(np.arange(room) <= at - prompt, (BATCH, room))
        parts = ((*own, mask),)
        if prompt:
            parts = ((*prefix, np.broadcast_to(np.arange(prompt) >= padding, (BATCH, prompt))), *parts)
        decoded = run(query[:, at], parts, "tpu", block=block, scale=0.3)
        np.testing.assert_array_equal(decoded, trained[:, at])


def test_the_kernel_races_for_no_buffer_and_reads_none_too_early():
    # Uninitialised memory is NaN here, and copies happen only where they are waited for.
    interpret = pltpu.InterpretParams(detect_races=True)
    query, parts = random_input(10, [(2, 20, "padded"), (BATCH, 11, "filled")], heads=2, kv=1)
    output = jax.jit(partial(flash_decode, block=16, interpret=interpret))(query, parts)
    assert not interpret_pallas_call.races.races_found
    assert_close(output, in_float64(query, parts), 1e-5)


@pytest.mark.parametrize("options", [{"implementation": "pallas", "interpret": True}, {"implementation": "xla"}])
def test_eight_devices_equal_one(options):
    rng = np.random.default_rng(11)
    query, parts = np.float32(rng.normal(size=(8, HEADS, DIM))), []
    for batch, length in ((4, 24), (8, 20)):
        keys = np.float32(rng.normal(size=(batch, KV, DIM, length)))
        parts.append((keys, keys[::-1].swapaxes(2, 3), random_mask(rng, 8, length, "ring")))
    attend = partial(decode_attention, block=8, **options)
    parts[0] = in_8_bits(parts[:1])[0][0]
    expected = jax.jit(attend)(query, tuple(parts))
    partition = PartitionSpec(("data", "fsdp"), "tensor")
    types = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=types)
    with jax.set_mesh(mesh):
        output = jax.jit(partial(attend, partition=partition))(query, tuple(parts))
        assert output.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, partition), 3)
    assert_close(output, expected, 1e-6)


@pytest.mark.parametrize(("length", "dtype"), [(1000, jnp.bfloat16), (1024, jnp.float32), (1000, jnp.int8)])
def test_the_gpu_kernel_lowers_to_triton(length, dtype):
    def part(batch, length):
        shapes = (batch, 2, 64, length), (batch, 2, length, 64)
        vectors = (jax.ShapeDtypeStruct(s, dtype) for s in shapes)
        scales = [jax.ShapeDtypeStruct((batch, 2, length), jnp.float32)] * (2 * (dtype == jnp.int8))
        return *vectors, jax.ShapeDtypeStruct((32, length), jnp.bool_), *scales

    arguments = (
        jax.ShapeDtypeStruct((32, 8, 64), jnp.bfloat16 if dtype == jnp.int8 else dtype),
        (part(2, length), part(32, 127)),
    )
    decode = partial(flash_decode, platform="gpu", soft_cap=30.0)
    lowered = jax.jit(decode).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert "flash_decode" in lowered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"implementation": "pallas"}, "'pallas' runs on TPU and GPU, not on CPU: use 'auto'"),
        ({"implementation": "reference", "soft_cap": 2.0}, "no soft cap in decoding: use 'xla' or 'pallas'"),
    ],
)
def test_what_an_implementation_cannot_do_is_refused_by_name(options, message):
    query, parts = random_input(0, CASES[0][0])
    with pytest.raises(ValueError, match=message):
        decode_attention(query, parts, **options)


@pytest.mark.parametrize(
    ("dim", "dtype", "options", "message"),
    [
        (64, jnp.float16, {}, "bfloat16 or float32, .*, not float16"),
        (80, jnp.float32, {}, "on TPU take head sizes that are multiples of 64, not 80"),
        (64, jnp.float32, {"block": 100}, "on TPU take blocks that are multiples of 128, not 100"),
        (
            80,
            jnp.bfloat16,
            {"platform": "gpu"},
            "bfloat16 heads of 16, .*, 256 and blocks of .*, not 80 and 64",
        ),
        (256, jnp.float32, {"platform": "gpu"}, "float32 heads of 16, 32, 64, 128 and blocks of .*, not 256 and 64"),
    ],
)
def test_what_the_kernels_do_not_support_is_refused_by_name(dim, dtype, options, message):
    query, keys, values = (jax.device_put(np.zeros(x, dtype)) for x in ((1, 1, dim), (1, 1, dim, 8), (1, 1, 8, dim)))
    with pytest.raises(ValueError, match=message):
        flash_decode(query, ((keys, values, jax.device_put(np.ones((1, 8), bool))),), **options)


@pytest.mark.parametrize(("batch", "kv"), [(4, 2), (BATCH, 3)])
def test_parts_that_do_not_fit_the_query_are_refused(batch, kv):
    query, _ = random_input(0, CASES[0][0])
    shapes = (batch, kv, DIM, 8), (batch, kv, 8, DIM)
    parts = ((*(jax.device_put(np.zeros(x, np.float32)) for x in shapes), jax.device_put(np.ones((BATCH, 8), bool))),)
    with pytest.raises(ValueError, match="part divides batch and kv divides heads: query"):
        decode_attention(query, parts)


def test_the_reference_is_attention_with_one_query_a_row():
    query, parts = random_input(12, CASES[0][0])
    assert_close(jax.jit(reference)(query, parts), in_float64(query, parts), 1e-5)
