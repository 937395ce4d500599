"""One call for every implementation of training attention, on one device and on a mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlvr_jax.kernels.reference import by_branch, chunked_attention, masked_attention
from rlvr_jax.kernels.schedule import make_schedule
from rlvr_jax.kernels.training import training_attention
from tests.close import assert_close
from tests.kernels.rows import attention_and_gradients, random_rows, random_vectors, readable

BATCH, TIME, HEADS, KV, DIM = 4, 40, 4, 2, 16
PARTITION = PartitionSpec(("data", "fsdp"), None, "tensor")


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return random_rows(rng, BATCH, TIME), random_vectors(rng, BATCH, TIME, HEADS, KV, DIM)


@partial(jax.jit, static_argnames=("options",))
def output_and_gradients(rows, vectors, options):
    *vectors, weights = vectors
    schedule = make_schedule(*rows, block_q=16, block_k=16)
    output, gradients = jax.vjp(lambda *x: training_attention(*x, schedule, **dict(options)), *vectors)
    return output, gradients(weights)


def run(inputs, **options):
    return output_and_gradients(*inputs, tuple(sorted(options.items())))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"implementation": "auto"}, marks=pytest.mark.gpu),
        {"implementation": "xla"},
        {"implementation": "pallas", "interpret": True},
    ],
)
def test_every_implementation_equals_the_reference(inputs, options):
    expected = run(inputs, implementation="reference", soft_cap=4.0)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), run(inputs, **options, soft_cap=4.0), expected)


def test_splash_equals_the_reference_on_packed_rows():
    rng = np.random.default_rng(1)
    rows = random_rows(rng, 1, 40, tree=False)[:2]
    inputs = rows, random_vectors(rng, 1, 40, 2, 1, 128)
    real = (rows[1] > 0)[..., None, None]
    keep = lambda tree: jax.tree.map(lambda x: np.where(real, x, 0), tree)  # noqa: E731
    inputs = rows, (*inputs[1][:3], jnp.where(real, inputs[1][3], 0))
    expected = run(inputs, implementation="reference")
    # Splash leaves padding to itself: its rows are compared nowhere.
    actual = run(inputs, implementation="splash", interpret=True)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), keep(actual), keep(expected))


@pytest.mark.parametrize(("attend", "window"), [(masked_attention, 6), (partial(chunked_attention, chunk=3), None)])
def test_responses_in_columns_of_their_own_equal_float64(attend, window):
    (prompt, response, behind), rng = (5, 7, 3), np.random.default_rng(2)
    positions, segments, parents = np.zeros((3, BATCH, prompt + 4 * response + behind), np.int32)
    for row in range(BATCH):
        length = rng.integers(1, prompt + 1)
        own = np.s_[row, prompt - length : prompt]
        positions[own], segments[own] = np.arange(length), 1
        for number, first in enumerate(range(prompt, prompt + 4 * response, response)):
            own = np.s_[row, first : first + rng.integers(0, response + 1)]
            positions[own] = length + np.arange(segments[own].size)
            segments[own], parents[own] = 2 + number, 1
    *vectors, weights = random_vectors(rng, *segments.shape, HEADS, KV, DIM)

    @jax.jit
    def gradients(rows, *vectors):
        schedule = make_schedule(*rows, window=window, branches=(prompt, response))
        output, gradients = jax.vjp(lambda *x: by_branch(attend, *x, schedule, scale=0.3, soft_cap=4.0), *vectors)
        return output, gradients(weights)

    rows = positions, segments, parents
    expected = attention_and_gradients(*vectors, readable(*rows, window), weights, scale=0.3, soft_cap=4.0)
    assert_close(gradients(rows, *vectors), expected)


@pytest.mark.parametrize("options", [{"implementation": "pallas", "interpret": True}, {"implementation": "xla"}])
def test_eight_devices_equal_one(inputs, options):
    expected = run(inputs, **options, soft_cap=4.0)  # as above
    types = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=types)
    with jax.set_mesh(mesh):
        actual = run(inputs, **options, soft_cap=4.0, partition=PARTITION)
        assert actual[0].sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, PARTITION), 4)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), actual, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"implementation": "pallas"}, "'pallas' runs on TPU and GPU, not on CPU: use 'auto'"),
        ({"implementation": "cudnn"}, "'cudnn' runs on GPU, not on CPU"),
        ({"implementation": "cudnn", "interpret": True}, "takes no segment ids, no parents and no soft cap"),
        ({"implementation": "splash", "interpret": True}, "takes no parents; use 'pallas'"),
    ],
)
def test_what_an_implementation_cannot_do_is_refused_by_name(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        run(inputs, **options)


def test_chunks_of_queries_need_far_less_memory_than_all_scores_at_once():
    time = 2048
    vectors = [jax.ShapeDtypeStruct((1, time, 1, 8), jnp.float32)] * 3
    schedule = jax.eval_shape(make_schedule, jax.ShapeDtypeStruct((1, time), jnp.int32))

    def memory(implementation):
        def loss(query, keys, values, schedule):
            return training_attention(query, keys, values, schedule, implementation=implementation).sum()

        lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*vectors, schedule)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert memory("xla") < memory("reference") / 5
