"""Log-probabilities and entropies against float64, in chunks, and split over devices."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.parallel import MeshConfig, batch_sharding, make_mesh, param_shardings, use_mesh
from tests.close import assert_close
from tests.policy.reference import TINY, log_softmax, random_params

BATCH, TIME = 3, 7
UNTIED = replace(TINY, tie_embeddings=False)


def random_input(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    hidden = (2 * rng.normal(size=(BATCH, TIME, TINY.width))).astype(dtype)
    return jax.device_put((hidden, rng.integers(TINY.vocab_size, size=(BATCH, TIME), dtype=np.int32)))


# 4 and 20 do not divide the 21 tokens.
@pytest.mark.parametrize("chunk", [0, 1, 4, 20, 21, 1000])
@pytest.mark.parametrize(("config", "temperature"), [(TINY, 0.6), (UNTIED, 1.0)], ids=["tied", "untied"])
def test_logprobs_and_entropy_equal_those_in_float64_whatever_the_chunk(config, chunk, temperature):
    params = random_params(config)
    hidden, targets = random_input()
    config = replace(config, head_chunk=chunk)
    outputs = jax.jit(lambda *x: policy.logprobs_and_entropy(config, *x, temperature))
    logprobs, entropy = outputs(params, hidden, targets)
    table = np.asarray(params["embed" if config.tie_embeddings else "head"], np.float64)
    expected = log_softmax(np.asarray(hidden, np.float64) @ table.T / temperature)
    chosen = np.take_along_axis(expected, np.asarray(targets)[..., None], axis=-1)[..., 0]
    assert_close(logprobs, chosen)
    assert_close(entropy, -np.sum(np.exp(expected) * expected, axis=-1), terms=np.abs(expected).max())


def losses(config, temperature, mask):
    """Gradient of a loss of both outputs over the tokens that `mask` marks."""
    _, targets = random_input()

    def loss(params, hidden):
        logprobs, entropy = policy.logprobs_and_entropy(config, params, hidden, targets, temperature)
        return jnp.sum(jnp.where(mask, logprobs**2 + 0.3 * entropy, 0))

    return jax.jit(jax.grad(loss, (0, 1)))


@pytest.mark.parametrize(
    ("chunk", "temperature", "dtype", "tolerance"),
    [(0, 1.0, "float32", 1e-5), (4, 0.6, "float32", 1e-5), (4, 0.6, "bfloat16", 1e-2)],
)
def test_gradients_equal_those_in_float64(chunk, temperature, dtype, tolerance):
    params, (hidden, targets) = random_params(UNTIED), random_input(dtype)
    rng = np.random.default_rng(1)
    of_logprobs, of_entropy = (rng.normal(size=(BATCH, TIME)) for _ in range(2))

    def loss(table, hidden):
        config = replace(UNTIED, head_chunk=chunk, dtype=dtype)
        outputs = policy.logprobs_and_entropy(config, params | {"head": table}, hidden, targets, temperature)
        return jnp.sum(outputs[0] * of_logprobs + outputs[1] * of_entropy)

    gradients = jax.jit(jax.grad(loss, (0, 1)))(params["head"], hidden)
    table, hidden = (np.asarray(x, np.float64) for x in (params["head"].astype(dtype), hidden))
    logprobs = log_softmax(hidden @ table.T / temperature)
    p = np.exp(logprobs)
    entropy = -np.sum(p * logprobs, axis=-1, keepdims=True)
    d_logits = of_logprobs[..., None] * (np.eye(UNTIED.vocab_size)[np.asarray(targets)] - p)
    d_logits = (d_logits - of_entropy[..., None] * p * (logprobs + entropy)) / temperature
    expected = np.einsum("btv,btw->vw", d_logits, hidden), d_logits @ table
    assert_close(gradients, expected, tolerance)


@pytest.mark.parametrize("chunk", [4, 7])
def test_gradients_in_chunks_equal_those_at_once_on_a_ragged_batch(chunk):
    params, (hidden, _) = random_params(UNTIED), random_input()
    mask = np.arange(TIME) < np.array([7, 3, 1])[:, None]
    at_once = losses(UNTIED, 0.8, mask)(params, hidden)
    in_chunks = losses(replace(UNTIED, head_chunk=chunk), 0.8, mask)(params, hidden)
    assert_close(in_chunks, at_once)
    assert not np.asarray(in_chunks[1])[~mask].any()


def array_sizes(jaxpr) -> list[int]:
    """Sizes of the float arrays that a function computes, those inside its loops included."""
    sizes = []
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating)]
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                sizes += array_sizes(inner)
    return sizes


@pytest.mark.parametrize(("chunk", "whole"), [(0, True), (4, False)])
def test_no_array_holds_the_logits_of_more_tokens_than_a_chunk_in_either_pass(chunk, whole):
    config = replace(UNTIED, vocab_size=200, head_chunk=chunk)
    params = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    hidden, _ = random_input()
    mask = np.ones((BATCH, TIME), bool)
    largest = max(array_sizes(jax.make_jaxpr(losses(config, 1.0, mask))(params, hidden).jaxpr))
    table = config.vocab_size * config.width
    assert (largest >= BATCH * TIME * config.vocab_size) == whole
    if not whole:
        assert largest <= max(table, 4 * config.vocab_size)


@pytest.mark.parametrize("chunk", [0, 4])
def test_bfloat16_compute_gives_float32_log_probabilities_that_sum_to_one(chunk):
    config = replace(TINY, dtype="bfloat16", head_chunk=chunk)
    hidden, _ = random_input(jnp.bfloat16)
    outputs = jax.jit(lambda *x: policy.logprobs_and_entropy(config, *x))
    total = 0
    for token in range(config.vocab_size):
        logprobs, entropy = outputs(random_params(TINY), hidden, np.full((BATCH, TIME), token, np.int32))
        assert logprobs.dtype == entropy.dtype == jnp.float32
        total = total + np.exp(np.asarray(logprobs, np.float64))
    np.testing.assert_allclose(total, 1, atol=1e-5)  # with statistics in bfloat16 the sum would miss by 1e-2


def on_mesh(sizes, config, mask):
    """Outputs, gradients and the program of `losses` on eight devices, parameters and batch split by the rules."""
    mesh = make_mesh(MeshConfig(*sizes))
    params, (hidden, targets) = random_params(config), random_input()
    hidden, targets, mask = (np.tile(np.asarray(x)[:2], (4, *[1] * (x.ndim - 1))) for x in (hidden, targets, mask))

    def loss(params, hidden, targets, mask):
        outputs = policy.logprobs_and_entropy(config, params, hidden, targets, 0.8)
        return jnp.sum(jnp.where(mask, outputs[0] ** 2 + 0.3 * outputs[1], 0)), outputs

    both = jax.grad(loss, (0, 1), has_aux=True)
    alone = jax.jit(both)(params, hidden, targets, mask)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    shardings = param_shardings(mesh, policy.logical_axes(config), shapes)
    batch = batch_sharding(mesh)
    with use_mesh(mesh):
        split = jax.jit(both, in_shardings=(shardings, batch, batch, batch))
        program = split.lower(params, hidden, targets, mask).compile()
        together = program(*jax.device_put((params, hidden, targets, mask), (shardings, batch, batch, batch)))
    return alone, together, program.as_text()


@pytest.mark.parametrize(
    ("sizes", "config"),
    [
        ((2, 2, 2), replace(UNTIED, vocab_size=40, head_chunk=4)),
        ((1, 2, 4), replace(TINY, vocab_size=40)),
        ((2, 1, 4), replace(UNTIED, vocab_size=19, head_chunk=4)),  # 4 does not divide 19: each device has it all
    ],
)
def test_eight_devices_give_the_outputs_and_gradients_of_one(sizes, config):
    mask = np.arange(TIME) < np.array([7, 3, 1])[:, None]
    alone, together, _ = on_mesh(sizes, config, mask)
    assert_close(together, alone)


def test_devices_exchange_no_logits_and_a_gradient_of_the_table_only_once():
    config = replace(UNTIED, vocab_size=40, head_chunk=4)
    _, _, program = on_mesh((2, 2, 2), config, np.ones((BATCH, TIME), bool))
    pattern = r"= \(?(.*?)\)? (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
    inside, outside = [], []
    for line in program.splitlines():
        for shapes in re.findall(pattern, line):
            sizes = [math.prod(map(int, shape.split(","))) for shape in re.findall(r"\w\[([\d,]+)\]", shapes)]
            (inside if "while/body" in line else outside).extend(sizes)
    assert inside, "the maximum and the sums of each chunk are exchanged"
    assert max(inside) <= config.head_chunk
    assert outside.count(config.vocab_size // 2 * config.width) <= 2  # the table's parts to all, their gradients back
