"""The TPU compiler, which needs no TPU, takes the kernels for every generation; blocks too large are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.kernels.schedule import make_schedule
from rlvr_jax.kernels.training import training_attention

CHIPS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}
SMALL = {"block_q": 128, "block_k": 128}
KERNELS = ("flash_forward", "flash_query_gradient", "flash_key_value_gradients")
pytestmark = pytest.mark.usefixtures("no_cache")


def compiled(chip, heads, kv, dim, *, devices=1, dtype=jnp.bfloat16, time=1024, soft_cap=None, saved=None, **options):
    """The program of forward and backward. Four devices hold two halves of the batch by two of the heads; the backward
    pass finds only what is called `saved`, None: everything."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip]).devices
    mesh = Mesh(np.array(topology[:devices]).reshape(-1, 1, 2 if devices == 4 else 1), ("data", "fsdp", "tensor"))
    partition = PartitionSpec(("data", "fsdp"), None, "tensor")
    implementation = options.pop("implementation", "auto")

    def array(*shape, dtype=dtype):
        sharding = NamedSharding(mesh, PartitionSpec(*partition[: len(shape)]) if len(shape) == 4 else PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def gradients(*arguments):
        schedule = make_schedule(*arguments[3:], group=heads // kv, **options)
        attend = partial(training_attention, soft_cap=soft_cap, implementation=implementation, partition=partition)
        loss = lambda *x: attend(*x, schedule).astype(jnp.float32).sum()  # noqa: E731
        if saved is not None:
            loss = jax.checkpoint(loss, policy=jax.checkpoint_policies.save_only_these_names(saved))
        return jax.value_and_grad(loss, (0, 1, 2))(*arguments[:3])

    vectors = [array(2, time, h, dim) for h in (heads, kv, kv)]
    ids = [array(2, time, dtype=jnp.int32)] * (2 if implementation == "splash" else 3)
    with jax.set_mesh(mesh):
        return jax.jit(gradients).lower(*vectors, *ids).compile().as_text()


# Compiling takes seconds: each generation has another case.
@pytest.mark.parametrize(
    ("chip", "options"),
    [
        ("v5e", {"heads": 4, "kv": 1, "dim": 128}),  # the default blocks
        ("v5p", {"heads": 2, "kv": 2, "dim": 64, "window": 300, "time": 1000, "saved": "nothing", **SMALL}),
        ("v6e", {"heads": 4, "kv": 2, "dim": 128, "devices": 4, "dtype": jnp.float32, **SMALL}),
        ("tpu7x", {"heads": 2, "kv": 1, "dim": 256, "soft_cap": 30.0, "saved": "attention", **SMALL}),
    ],
)
def test_the_kernels_compile_for_every_generation_head_size_window_cap_dtype_and_four_devices(chip, options):
    """The forward kernel runs again for the backward pass only if its results were not kept."""
    calls = [line for line in compiled(chip, **options).splitlines() if "custom-call(" in line]
    again = options.get("saved") == "nothing"
    assert [sum(kernel in call for call in calls) for kernel in KERNELS] == [1 + again, 1, 1]


def test_splash_attention_compiles_behind_the_same_call():
    assert "splash" in compiled("v5e", 2, 1, 128, implementation="splash")


@pytest.mark.parametrize(("chip", "capacity"), [("v5e", 128), ("tpu7x", 64)])
def test_blocks_that_do_not_fit_the_chip_are_refused_before_compiling(chip, capacity):
    message = rf"block_q=2048 x 4 heads, block_k=2048 .* needs about \d+ MiB .* this chip has {capacity} MiB"
    with pytest.raises(ValueError, match=message):
        compiled(chip, 4, 1, 128, time=4096, block_q=2048, block_k=2048)
