"""Parameters from the layout of training to that of sampling: the same bits on other devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.policy import LoraConfig
from rlvr_jax.rollout.continuous import array_shardings
from rlvr_jax.rollout.layout import decoded, make_move, narrowed, param_shapes, prepare, widened
from tests.rollout.requests import CONFIG

# Two key/value heads, a vocabulary and a width that not every mesh divides.
SHAPE = replace(CONFIG, num_layers=1, vocab_size=12, num_heads=8, dtype="bfloat16", lora=LoraConfig(2, targets=("q",)))
TRAINING = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
ROLLOUT = (1, 2, 4, 8)


def placed(config, params, mesh):
    """Parameters with their shardings on a mesh that trains."""
    shapes = jax.eval_shape(lambda: params)
    return jax.device_put(params, parallel.param_shardings(mesh, policy.axes_with_adapters(config), shapes))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: policy.init_with_adapters(SHAPE, jax.random.key(0)))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


@pytest.fixture(scope="module")
def expected(params):
    return jax.device_get(prepare(SHAPE, params))


def with_heads_repeated(params, times):
    """The parameters with each key/value head on as many devices."""
    (layer,) = params["layers"]
    attention = dict(layer["attention"])
    attention |= {name: np.repeat(attention[name], times, 1) for name in ("k", "v")}
    return params | {"layers": (layer | {"attention": attention},)}


def test_every_pair_of_layouts_has_the_same_bits(params, expected):
    meshes = [parallel.make_mesh(MeshConfig(*shape)) for shape in TRAINING]
    trained = [placed(SHAPE, params, mesh) for mesh in meshes]
    moves = [
        (i, make_move(SHAPE, jax.tree.map(lambda x: x.sharding, trained[i]), target), param_shapes(SHAPE, target))
        for i, mesh in enumerate(meshes)
        for target in (parallel.rollout_mesh(mesh.devices.flat, tensor) for tensor in ROLLOUT)
    ]
    together = jax.jit(lambda trained: [move(trained[i]) for i, move, _ in moves])  # compiles faster than each
    for (_, _, shapes), moved in zip(moves, together(trained), strict=True):
        times = max(1, shapes["embed"].sharding.mesh.shape["tensor"] // SHAPE.num_kv_heads)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(moved), with_heads_repeated(expected, times))
        same = jax.tree.map(
            lambda x, y: x.dtype == y.dtype and x.sharding.is_equivalent_to(y.sharding, x.ndim), moved, shapes
        )
        assert all(jax.tree.leaves(same))


def test_a_group_of_devices_has_all_parameters_and_a_device_its_share_of_them():
    mesh = parallel.rollout_mesh(jax.devices(), 2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "context": 1, "tensor": 2}
    assert [*mesh.devices.flat] == jax.devices()
    query = param_shapes(SHAPE, mesh)["layers"][0]["attention"]["q"]
    assert query.sharding.shard_shape(query.shape) == (16, 4, 6)


def test_caches_are_saved_with_the_heads_of_the_policy_and_read_in_any_layout():
    config = replace(CONFIG, num_heads=4)
    one, four = (parallel.rollout_mesh(jax.devices()[:n], n) for n in (1, 4))
    narrow = [np.arange(2 * 2 * 6 * 5).reshape(2, 2, 6, 5), np.arange(20).reshape(2, 2, 5), np.arange(10).reshape(2, 5)]
    wide = [np.repeat(x, 2, 1) if x.ndim > 2 else x for x in narrow]
    for mesh, arrays in ((one, narrow), (four, wide)):
        shapes = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            arrays,
            array_shardings(decoded(config, mesh), mesh, arrays),
        )
        kept = narrowed(config, mesh, [jax.device_put(x, y.sharding) for x, y in zip(arrays, shapes, strict=True)])
        jax.tree.map(np.testing.assert_array_equal, kept, narrow)
        read = lambda asked: [jax.device_put(x, y.sharding) for x, y in zip(narrow, asked, strict=True)]  # noqa: E731
        back = widened(config, mesh, shapes, read)
        jax.tree.map(np.testing.assert_array_equal, back, arrays)
        assert [x.sharding for x in back] == [x.sharding for x in shapes]


def test_received_bytes_are_those_that_a_device_lacked():
    def array(shape, mesh, *spec):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)

    train = parallel.make_mesh(MeshConfig(1, 4, 2))
    whole, halves = (parallel.rollout_mesh(train.devices.flat, tensor) for tensor in (1, 2))
    before = array((8, 6), train, "fsdp", "tensor")  # 2 x 3 on each device
    assert parallel.received_bytes([before], [array((8, 6), whole)]) == 2 * (48 - 6)
    assert parallel.received_bytes([before], [array((8, 6), halves, None, "tensor")]) == 2 * (24 - 6)
    assert parallel.received_bytes([before] * 2, [before] * 2) == 0
    other = parallel.make_mesh(MeshConfig(data=4), jax.devices()[:4])
    alone = parallel.make_mesh(MeshConfig(data=4), jax.devices()[4:])
    assert parallel.received_bytes([array((8, 6), other, "data")], [array((8, 6), alone)]) == 2 * 48
    assert parallel.bytes_on_device([before, array((5,), whole)]) == 2 * (6 + 5)
