"""The TPU compiler, which needs no TPU, takes the policy's forward and backward pass on a mesh, kernels included."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh

from rlvr_jax import parallel, policy
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout.batches import sample
from rlvr_jax.rollout.layout import prepare
from rlvr_jax.rollout.sampling import Draws, SamplingConfig

# One key/value head for two devices, and layers of which each takes one of two schedules.
SHAPE = PolicyConfig(
    vocab_size=256,
    num_layers=2,
    width=128,
    num_heads=4,
    num_kv_heads=1,
    head_dim=64,
    mlp_width=256,
    window_pattern=(100, 0),
    dtype="bfloat16",
)
GEMMA = replace(
    SHAPE,
    head_dim=256,
    qk_norm="head",
    norm_placement="both",
    norm_offset=1.0,
    activation="gelu_tanh",
    scale_embeddings=True,
    rope_theta_unscaled=100.0,
    rope_pattern=("unscaled", "scaled"),
)
SAMPLING = SamplingConfig(prompt_length=128, max_response_length=130)
KERNELS = ("flash_forward", "flash_query_gradient", "flash_key_value_gradients")
pytestmark = pytest.mark.usefixtures("no_cache")


def on_chips(config):
    """A mesh of four v5e, and the shapes of parameters that lie on it."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = Mesh(np.array(topology).reshape(1, 2, 1, 2), parallel.AXES)
    shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    shardings = parallel.param_shardings(mesh, policy.logical_axes(config), shapes)
    return mesh, jax.tree.map(lambda x, y: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=y), shapes, shardings)


def test_each_kernel_is_in_the_program_once_even_if_everything_is_computed_again():
    config = replace(GEMMA, head_dim=128, num_layers=3, remat="full")  # in a loop, as two would not be
    mesh, params = on_chips(config)
    rows = jax.ShapeDtypeStruct((4, 128), jnp.int32, sharding=parallel.batch_sharding(mesh))

    def gradient(params, tokens, positions, segment_ids, parents):
        def loss(params):
            hidden, _ = policy.forward(config, params, tokens, positions, segment_ids, parents=parents)
            return jnp.sum(hidden.astype(jnp.float32))

        return jax.grad(loss)(params)

    with parallel.use_mesh(mesh):
        program = jax.jit(gradient).lower(params, *[rows] * 4).compile().as_text()
    calls = [line for line in program.splitlines() if "custom-call(" in line and "flash_" in line]
    assert [sum(name in call for call in calls) for name in KERNELS] == [1, 1, 1]


def test_devices_that_share_rows_run_the_kernels_and_share_the_memory():
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    config = replace(SHAPE, num_layers=1, window_pattern=(0,))

    def compiled(context):
        mesh = Mesh(np.array(chips[:context]).reshape(1, 1, context, 1), parallel.AXES)
        shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
        shardings = parallel.param_shardings(mesh, policy.logical_axes(config), shapes)
        params = jax.tree.map(lambda x, y: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=y), shapes, shardings)
        row = jax.ShapeDtypeStruct((1, 1024), jnp.int32, sharding=parallel.batch_sharding(mesh))

        def loss(params, *row):
            hidden, _ = policy.forward(config, params, *row)
            return jnp.sum(policy.logprobs_and_entropy(config, params, hidden, row[0])[0])

        with parallel.use_mesh(mesh):
            return jax.jit(jax.grad(loss)).lower(params, row, row, row).compile()

    two, four = compiled(2), compiled(4)  # one takes longer to compile than both
    program = four.as_text()
    assert [name for name in (*KERNELS, "all-to-all") if name not in program] == []
    memory = [x.memory_analysis().temp_size_in_bytes for x in (two, four)]
    assert memory[1] < 0.65 * memory[0], memory


def test_the_sampler_decodes_without_the_kernel_if_it_does_not_take_heads_of_that_size():
    """With it in `rollout/test_layouts_on_tpus.py`."""
    # The sampler's layers are unrolled, and each is compiled.
    config = replace(SHAPE, num_kv_heads=2, head_dim=16, num_layers=1, window_pattern=(100,))
    mesh, params = on_chips(config)
    batch = parallel.batch_sharding(mesh)
    of = lambda shape, dtype=jnp.int32: jax.ShapeDtypeStruct(shape, dtype, sharding=batch)  # noqa: E731
    draws = Draws(of((8, 2), jnp.uint32), of((8,)), of((8,)), of((8,), jnp.float32), of((8, 1)))

    @jax.jit
    def rollout(params, *inputs):
        return sample(config, SAMPLING, prepare(config, params), *inputs)

    with parallel.use_mesh(mesh):
        program = rollout.lower(params, of((4, 128)), of((4, 128), bool), draws).compile().as_text()
    assert not any("custom-call(" in line and "decode" in line for line in program.splitlines())
