"""The TPU compiler, which needs no TPU: what decoding communicates, and the memory of prefill."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh

from rlvr_jax import parallel
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout import batches, slots
from rlvr_jax.rollout.continuous import compiled_functions, ring_widths
from rlvr_jax.rollout.layout import decoded, param_shapes
from rlvr_jax.rollout.sampling import Draws, SamplingConfig
from tests.kernels.test_flash_on_tpus import CHIPS

pytestmark = pytest.mark.usefixtures("no_cache")

SHAPE = PolicyConfig(
    vocab_size=512, num_layers=1, width=256, num_heads=4, num_kv_heads=1, head_dim=128, mlp_width=512, dtype="bfloat16"
)
SAMPLING = SamplingConfig(prompt_length=128, max_response_length=64, group_size=2, batch_size=4, slots=8, chunk=4)
SMALLEST_WEIGHT = 256 * 128  # numbers of the key projection, whose head each of two devices has
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def devices(chip, count=4):
    return topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip]).devices[:count]


def decoding(engine, mesh):
    """The compiled program that decodes on a mesh, as text."""
    params, rows, shape = param_shapes(SHAPE, mesh), parallel.batch_sharding(mesh), decoded(SHAPE, mesh)
    of = lambda sizes, dtype=jnp.int32: jax.ShapeDtypeStruct(sizes, dtype, sharding=rows)  # noqa: E731
    draws = Draws(of((8, 2), jnp.uint32), of((8,)), of((8,)), of((8,), jnp.float32), of((8, 2)))
    with parallel.use_mesh(mesh):
        if engine == "batches":
            lowered = batches.sample.lower(shape, SAMPLING, params, of((4, 128)), of((4, 128), bool), draws)
        else:
            functions = compiled_functions(shape, SAMPLING, mesh)
            tail = slots.Tail(of((8,)), draws)
            width = ring_widths(SAMPLING, mesh)[-1]
            state = functions.empty_slots.lower(params, width, tail).compile()
            state = jax.tree.map(
                lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                jax.eval_shape(lambda: slots.empty_slots(shape, params, width, tail)),
                state.output_shardings,
            )
            lowered = functions.decode.lower(params, state)
        return lowered.compile().as_text()


def in_loops(program):
    """The instructions of all computations that the bodies of loops reach."""
    computations, name = {}, ""
    for line in program.splitlines():
        if begins := re.match(r"(?:ENTRY )?%?([\w.-]+) (?:\(.*\) -> .*)?{$", line):
            name = begins.group(1)
        computations.setdefault(name, []).append(line)
    calls = r"(?:body|condition|calls|to_apply|branch_computations|called_computations)={?((?:%[\w.-]+(?:, )?)+)"
    named = lambda lines: set(re.findall(r"[\w.-]+", " ".join(re.findall(calls, "\n".join(lines)))))  # noqa: E731
    waiting = {x for line in program.splitlines() for x in re.findall(r" while\(.*body=%([\w.-]+)", line)}
    assert waiting
    reached = set()
    while waiting:
        reached |= waiting
        waiting = {x for one in waiting for x in named(computations[one])} - reached
    return [line for one in reached for line in computations[one]]


def communicated(program):
    """(kind, numbers of the largest result) of each collective inside of loops."""
    found = []
    for line in in_loops(program):
        for kind in COLLECTIVES:
            if match := re.search(rf"= (.*?) {kind}(?:-start)?\(", line):
                shapes = re.findall(r"\w+\[([\d,]*)\]", match.group(1))
                found.append((kind, max(int(np.prod([int(x) for x in shape.split(",") if x])) for shape in shapes)))
    return found


@pytest.mark.parametrize(("chip", "engine", "tensor"), [("v5e", "batches", 1), ("v5p", "slots", 2)])
def test_decoding_communicates_no_parameters(chip, engine, tensor):
    training = Mesh(np.array(devices(chip)).reshape(1, 4, 1, 1), parallel.AXES)
    program = decoding(engine, parallel.rollout_mesh(training.devices.flat, tensor))
    assert any("flash_decode" in line for line in in_loops(program))
    # The slots' cache lies between calls as the kernel reads it.
    assert engine == "batches" or not re.search(r"bf16\[\d+,\d+,(?:128,\d{3}|\d{3},128)\]\S* copy\(", program)
    found = communicated(program)
    if tensor == 1:  # only whether any sequence is unfinished
        assert all(size == 1 for _, size in found), found
    else:
        assert "all-reduce" in {kind for kind, size in found if size > 1}
        assert max(size for _, size in found) < SMALLEST_WEIGHT / 8 * tensor, found  # a group has so many more rows


def test_in_the_layout_of_training_it_would():
    training = Mesh(np.array(devices("v5e")).reshape(1, 4, 1, 1), parallel.AXES)
    assert max(size for _, size in communicated(decoding("slots", training))) >= SMALLEST_WEIGHT


def test_the_memory_of_prefill_is_that_of_activations():
    mesh, count, length = parallel.rollout_mesh(devices("v5e", 1), 1), 16, 4096
    config = replace(SHAPE, mlp_width=2048)
    prefill = jax.jit(lambda params, tokens, mask: batches.prefill(config, params, tokens, mask > 0))
    params = param_shapes(config, mesh)  # not under the mesh, whose devices can't run anything
    rows = jax.ShapeDtypeStruct((count, length), jnp.int32, sharding=parallel.batch_sharding(mesh))
    with parallel.use_mesh(mesh):
        memory = prefill.lower(params, rows, rows).compile().memory_analysis().temp_size_in_bytes
    # In bfloat16. Activations are more than what fits into a core's vector memory; scores would be eight times that.
    activations, scores = 2 * count * length * config.mlp_width, 2 * count * config.num_heads * length**2
    assert 0.75 * activations < memory < scores / 4
