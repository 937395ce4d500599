"""The TPU compiler, which needs no TPU, takes the kernels for every generation; blocks too large are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.kernels.schedule import make_schedule
from rlvr_jax.kernels.training import training_attention

CHIPS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}
SMALL = {"block_q": 128, "block_k": 256}
KERNELS = ("flash_forward", "flash_query_gradient", "flash_key_value_gradients")


def compiled(chip, heads, kv, dim, *, dtype=jnp.bfloat16, time=1024, soft_cap=None, implementation="auto", **options):
    """The program of forward and backward on one core of a chip."""
    device = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip]).devices[0]
    mesh = Mesh(np.array([device]), ("x",))

    def array(*shape, dtype=dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    def gradients(*arguments):
        schedule = make_schedule(*arguments[3:], group=heads // kv, **options)

        def loss(*vectors):
            output = training_attention(*vectors, schedule, soft_cap=soft_cap, implementation=implementation)
            return output.astype(jnp.float32).sum()

        return jax.grad(loss, (0, 1, 2))(*arguments[:3])

    vectors = [array(2, time, h, dim) for h in (heads, kv, kv)]
    ids = [array(2, time, dtype=jnp.int32)] * (2 if implementation == "splash" else 3)
    with jax.set_mesh(mesh):
        return jax.jit(gradients).lower(*vectors, *ids).compile().as_text()


@pytest.mark.parametrize("chip", CHIPS)
def test_the_kernels_compile_for_every_generation(chip):
    program = compiled(chip, 4, 2, 128, **SMALL)
    for kernel in KERNELS:
        assert kernel in program


@pytest.mark.parametrize("chip", ["v5e", "tpu7x"])
def test_the_kernels_compile_with_the_default_blocks(chip):
    program = compiled(chip, 4, 1, 128)
    for kernel in KERNELS:
        assert kernel in program


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 2, "kv": 2, "dim": 64, "window": 300, "time": 1000},
        {"heads": 2, "kv": 1, "dim": 256, "soft_cap": 30.0},
        {"heads": 2, "kv": 1, "dim": 128, "dtype": jnp.float32},
    ],
)
def test_other_heads_windows_caps_and_float32_compile(options):
    program = compiled("v6e", **options, **SMALL)
    for kernel in KERNELS:
        assert kernel in program


def test_splash_attention_compiles_behind_the_same_call():
    assert "splash" in compiled("v5e", 2, 1, 128, implementation="splash")


@pytest.mark.parametrize(("chip", "capacity"), [("v5e", 128), ("tpu7x", 64)])
def test_blocks_that_do_not_fit_the_chip_are_refused_before_compiling(chip, capacity):
    message = rf"block_q=2048 x 4 heads, block_k=2048 .* needs about \d+ MiB .* this chip has {capacity} MiB"
    with pytest.raises(ValueError, match=message):
        compiled(chip, 4, 1, 128, time=4096, block_q=2048, block_k=2048)
