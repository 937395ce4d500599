"""The TPU compiler, which needs no TPU, takes the decode kernel for every generation; too large blocks are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.kernels.decode import decode_attention
from tests.kernels.test_flash_on_tpus import CHIPS

pytestmark = pytest.mark.usefixtures("no_cache")

GROUPS = ((4, 512), (16, 1024))  # prompts, and their samples


def compiled(chip, heads, kv, dim, stretches, *, devices=1, dtype=jnp.bfloat16, stored=None, **options):
    """The program. Four devices hold two halves of the batch by two of the heads."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip]).devices
    mesh = Mesh(np.array(topology[:devices]).reshape(-1, 1, 2 if devices == 4 else 1), ("data", "fsdp", "tensor"))
    rows, partition = PartitionSpec(("data", "fsdp")), PartitionSpec(("data", "fsdp"), "tensor")
    batch = stretches[-1][0]

    def array(*shape, spec=partition, dtype=dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    parts = tuple(
        (
            array(part, kv, dim, columns, dtype=stored or dtype),
            array(part, kv, columns, dim, dtype=stored or dtype),
            array(batch, columns, spec=rows, dtype=jnp.bool_),
            *[array(part, kv, columns, dtype=jnp.float32)] * (2 * bool(stored)),
        )
        for part, columns in stretches
    )
    attend = partial(decode_attention, partition=partition, **options)
    with jax.set_mesh(mesh):
        return jax.jit(attend).lower(array(batch, heads, dim), parts).compile().as_text()


def calls(program):
    return sum("custom-call(" in line and "flash_decode" in line for line in program.splitlines())


@pytest.mark.parametrize(
    ("chip", "options"),
    [
        ("v5e", {"heads": 4, "kv": 4, "dim": 64, "stretches": ((8, 127),)}),
        ("v5p", {"heads": 4, "kv": 1, "dim": 256, "stretches": ((1, 1000), (8, 200)), "soft_cap": 30.0}),
        ("v6e", {"heads": 4, "kv": 2, "dim": 128, "stretches": GROUPS, "dtype": jnp.float32, "block": 256}),
        ("tpu7x", {"heads": 8, "kv": 4, "dim": 128, "stretches": GROUPS, "devices": 4}),
        ("v5e", {"heads": 8, "kv": 2, "dim": 128, "stretches": ((4, 512), (16, 1000)), "stored": jnp.int8}),
    ],
)
def test_the_kernel_compiles_for_every_generation_head_size_length_cap_dtype_and_four_devices(chip, options):
    assert calls(compiled(chip, **options)) == len(options["stretches"])


def test_blocks_that_do_not_fit_the_chip_are_refused_before_compiling():
    message = r"blocks of 4096 columns x 32 key/value heads of size 128.* needs about \d+ MiB .* this chip has 64 MiB"
    with pytest.raises(ValueError, match=message):
        compiled("tpu7x", 32, 32, 128, ((2, 8192),), block=4096)
