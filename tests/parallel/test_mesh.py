"""Mesh shapes, and how parameters and batches lie on the devices."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlvr_jax.parallel import (
    AXES,
    RULES,
    MeshConfig,
    batch_sharding,
    make_mesh,
    mesh_shape,
    param_shardings,
    replicated,
    use_mesh,
)
from rlvr_jax.parallel.host import keep_freed_memory, same_kernels_each_time


@pytest.mark.parametrize(
    ("config", "num_devices", "shape"),
    [
        (MeshConfig(), 1, (1, 1, 1, 1)),
        (MeshConfig(), 8, (8, 1, 1, 1)),
        (MeshConfig(2, 2, 2), 8, (2, 2, 1, 2)),
        (MeshConfig(2, -1, 2), 8, (2, 2, 1, 2)),
        (MeshConfig(context=4), 8, (2, 1, 4, 1)),
        (MeshConfig(1, 1, -1), 8, (1, 1, 1, 8)),
        (MeshConfig(-1, 4, 2), 8, (1, 4, 1, 2)),
        (MeshConfig(-1, 3, 2), 12, (2, 3, 1, 2)),
    ],
)
def test_minus_1_takes_the_devices_that_the_other_axes_leave(config, num_devices, shape):
    assert mesh_shape(config, num_devices) == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(2, 2, 1), r"mesh \(data=2, fsdp=2, context=1, tensor=1\) .* 4 .* 8"),
        (MeshConfig(4, 4, 1), r"mesh \(data=4, fsdp=4, context=1, tensor=1\) .* 16 .* 8"),
        (MeshConfig(-1, 3, 1), r"mesh \(data=-1, fsdp=3, context=1, tensor=1\) .* 3 devices.* 8 "),
        (MeshConfig(-1, 16, 1), r"mesh \(data=-1, fsdp=16, context=1, tensor=1\) .* 16 devices.* 8 "),
        (MeshConfig(-1, -1, 1), r"mesh \(data=-1, fsdp=-1, context=1, tensor=1\)"),
        (MeshConfig(8, 0, 1), r"mesh \(data=8, fsdp=0, context=1, tensor=1\)"),
        (MeshConfig(-2, 4, 1), r"mesh \(data=-2, fsdp=4, context=1, tensor=1\)"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error_that_says_how(config, message):
    with pytest.raises(ValueError, match=message):
        mesh_shape(config, 8)


def test_make_mesh_takes_all_devices_or_those_that_it_is_given():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    assert set(mesh.devices.flat) == set(jax.devices())
    assert list(make_mesh(MeshConfig(), jax.devices()[3:5]).devices.flat) == jax.devices()[3:5]


def test_use_mesh_binds_the_mesh_and_ends_with_its_block():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    before = jax.sharding.get_abstract_mesh()
    with use_mesh(mesh):
        assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
    assert jax.sharding.get_abstract_mesh() == before


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)])
def test_a_batch_is_split_over_data_and_fsdp_together_and_whole_along_tensor(shape):
    mesh, rows = make_mesh(MeshConfig(*shape)), np.arange(16 * 3).reshape(16, 3)
    array = jax.device_put(rows, batch_sharding(mesh))
    per_device = 16 // (shape[0] * shape[1])
    for shard in array.addressable_shards:
        assert shard.data.shape == (per_device, 3)
        data, fsdp, *_ = (int(x[0]) for x in np.nonzero(mesh.devices == shard.device))
        start = (data * shape[1] + fsdp) * per_device
        np.testing.assert_array_equal(shard.data, rows[start : start + per_device])


def test_replicated_puts_the_whole_array_on_every_device():
    array = jax.device_put(np.arange(6).reshape(2, 3), replicated(make_mesh(MeshConfig(2, 2, 2))))
    assert [shard.data.shape for shard in array.addressable_shards] == [(2, 3)] * 8


def shards_of(axes, shape, mesh=(2, 2, 2), context=1):
    """The shape of one device's part of a parameter."""
    tree = {"x": PartitionSpec(*axes)}
    sharding = param_shardings(
        make_mesh(MeshConfig(*mesh, context=context)), tree, {"x": jax.ShapeDtypeStruct(shape, jnp.float32)}
    )
    return sharding["x"].shard_shape(shape)


def test_parameters_are_split_by_the_names_of_their_axes():
    assert shards_of(("vocab", "embed"), (12, 8)) == (6, 4)
    assert shards_of(("layers", "embed", "heads", "head_dim"), (2, 8, 4, 2)) == (2, 4, 2, 2)
    assert shards_of(("layers", "mlp", "embed"), (2, 6, 8), mesh=(1, 4, 2)) == (2, 3, 2)
    assert shards_of(("embed",), (8,), mesh=(1, 8, 1)) == (1,)
    assert shards_of(("embed",), (8,), mesh=(8, 1, 1)) == (8,)
    assert shards_of(("embed", "heads"), (8, 4), mesh=(1, 2, 2), context=2) == (2, 2)


def test_an_axis_that_its_mesh_axis_does_not_divide_is_kept_whole_and_the_others_are_split():
    assert shards_of(("vocab", "embed"), (13, 8)) == (13, 4)
    assert shards_of(("embed", "kv", "head_dim"), (8, 1, 2)) == (4, 1, 2)
    assert shards_of(("vocab", "embed"), (13, 7)) == (13, 7)
    assert shards_of(("embed", "kv"), (8, 2), mesh=(2, 1, 4)) == (8, 2)


def test_the_table_names_only_axes_of_the_mesh_and_every_logical_axis_once():
    names = [name for name, _ in RULES]
    assert len(names) == len(set(names))
    for _, axes in RULES:
        assert set((axes,) if isinstance(axes, str) else axes or ()) <= set(AXES)


@pytest.mark.parametrize("plugin", [None, "jax_cuda13_plugin"])
def test_with_gpus_kernels_are_chosen_by_rule_unless_the_user_s_own_flag_comes_after(monkeypatch, plugin):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == plugin)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    same_kernels_each_time()
    flags = ["--xla_gpu_deterministic_ops=true"] if plugin else []
    assert os.environ["XLA_FLAGS"].split() == [*flags, "--xla_gpu_deterministic_ops=false"]


def test_keep_freed_memory_can_be_asked_for_more_than_once_and_memory_can_be_had_after():
    keep_freed_memory()
    keep_freed_memory()
    assert sum(len(bytearray(8 << 20)) for _ in range(4)) == 4 * (8 << 20)
