"""The memory of sampling by arithmetic, and the layout and batch that it leads to."""

from dataclasses import replace
from functools import partial

import jax
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.rollout.layout import decoded, param_shapes
from rlvr_jax.rollout.memory import cache_bytes, fitting, prompt_bytes, slot_bytes, smallest_tensor, tensor_sizes
from rlvr_jax.rollout.memory import weight_bytes as estimate
from rlvr_jax.training import networks, setup
from rlvr_jax.training.functions import make_sampler
from tests.policy.reference import TINY
from tests.rollout.requests import CONFIG, GROUP, LENGTH, PROMPT, groups, make
from tests.training import test_loop

MODEL = replace(TINY, vocab_size=64, width=64, num_heads=8, num_kv_heads=4, head_dim=16, mlp_width=96)
GIB = 2**30


@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "bfloat16", "tie_embeddings": False, "qkv_bias": True}, {"cache_dtype": "int8"}]
)
@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_weights_and_cache_are_those_of_a_device(changes, tensor):
    config = replace(MODEL, **changes)
    mesh = parallel.rollout_mesh(jax.devices(), tensor)
    assert estimate(config, tensor) == pytest.approx(parallel.bytes_on_device(param_shapes(config, mesh)), rel=0.01)
    shapes = param_shapes(config, mesh)
    cache = jax.eval_shape(lambda: policy.empty_key_values(decoded(config, mesh), shapes, 3, 10)).layers
    assert cache_bytes(config, 3, 10, tensor) * tensor == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))


def test_tpus_pad_the_last_axes_of_the_cache_and_8_bits_have_scales():
    padded = 2 * 3 * 4 * (16 * 128 + 10 * 128)  # layers, rows, heads, keys and values
    assert cache_bytes(MODEL, 3, 10, platform="tpu") == 4 * padded
    assert cache_bytes(replace(MODEL, cache_dtype="int8"), 3, 10, platform="tpu") == padded + 2 * 3 * 4 * 2 * 4 * 128


def test_a_prompt_takes_the_cache_of_its_samples_and_a_slot_more_than_its_window():
    token = cache_bytes(MODEL, 1, 1)
    assert prompt_bytes(MODEL, 100, 200, 8) > (100 + 8 * 200) * token
    assert prompt_bytes(MODEL, 100, 200, 8) - prompt_bytes(MODEL, 100, 100, 8) >= 8 * 100 * token
    assert prompt_bytes(MODEL, 1000, 1, 1) > 1000 * (token + 4 * 2 * MODEL.mlp_width)  # prefill
    assert slot_bytes(MODEL, 100, 300, 8) > 2 * 300 * token


def test_the_smallest_layout_at_which_weights_and_cache_fit():
    assert tensor_sizes(MODEL, 8, 16) == [1, 2, 4, 8]
    assert tensor_sizes(MODEL, 8, 12) == [2, 4, 8]
    assert tensor_sizes(replace(MODEL, num_heads=4), 8, 13) == []
    weights = {tensor: estimate(MODEL, tensor) for tensor in (1, 2, 4, 8)}
    choose = lambda memory, each=1: smallest_tensor(MODEL, 8, 16, lambda _: each, memory)  # noqa: E731
    assert choose(None) == 1
    assert choose(weights[1] + 2) == 1  # two prompts on a device
    assert choose(weights[1] + 1) == 2
    assert choose(2 * weights[2], each=GIB) == 2  # room for a part of the batch
    assert choose(10) == 8


def test_a_batch_is_divided_evenly_into_as_few_parts_as_fit():
    assert fitting(128, each=10, memory=10_000, shards=4) == 128
    assert fitting(128, each=10, memory=120, shards=4) == 44  # three batches instead of 48, 48 and 32
    assert fitting(128, each=10, memory=1, shards=4) == 4
    assert fitting(6, each=1, memory=100, shards=4) == 8


RUN = test_loop.changed(test_loop.TINY, rollout={"prompts": 32, "max_prompt_length": 4})


@pytest.fixture
def limited(monkeypatch):
    """A function that gives every device so much memory beside weights and training, and makes the sampler of a run."""

    def make(config, room):
        monkeypatch.setattr(parallel, "device_memory", lambda _: None)
        plain = setup.make_setup(config)
        params = networks.network_shapes(plain.policy, plain.mesh)
        state = networks.state_shapes(networks.make_optimizers(config)["policy"], params, plain.mesh)
        held = parallel.bytes_on_device((state, policy.trainable(params)))
        total = (held + estimate(plain.policy) + room) / setup.USABLE
        monkeypatch.setattr(parallel, "device_memory", lambda _: int(total) + 1)
        made = setup.make_setup(config)
        return made, make_sampler(made).sampling

    return make


def test_a_run_takes_the_batch_that_fits_and_what_the_config_sets_stays(limited):
    shape = setup.make_setup(RUN).policy
    each = prompt_bytes(shape, 4, RUN.rollout.max_response_length, RUN.rollout.group_size)
    made, sampling = limited(RUN, 2 * each)
    assert dict(made.sampling_mesh.shape) == {"data": 8, "fsdp": 1, "context": 1, "tensor": 1}
    assert (sampling.batch_size, sampling.memory) == (16, pytest.approx(2 * each, abs=2))
    assert limited(RUN, 100 * each)[1].batch_size == 32
    given = test_loop.changed(RUN, rollout={"batch_size": 24})
    assert limited(given, 2 * each)[1].batch_size == 24
    assert make_sampler(setup.make_setup(RUN)).sampling.batch_size == 16


def test_a_run_shares_parameters_among_devices_if_they_do_not_fit(limited):
    made, _ = limited(RUN, -100)
    assert made.sampling_mesh.shape["tensor"] == 2
    given = replace(RUN, mesh=parallel.MeshConfig(rollout_tensor=1))
    assert limited(given, -100)[0].sampling_mesh.shape["tensor"] == 1


def test_parts_of_a_batch_never_wait_on_the_device():
    sampler = make(batch_size=1)
    engine, flying = sampler._engine, []
    dispatch = engine._sample
    engine._sample = lambda *args: (flying.append(args[1].shape), dispatch(*args))[1]
    sampler.submit(groups())
    sampler.ready()
    assert flying == [(1, 6)] * 2
    assert len(sampler.poll()) == GROUP
    assert len(flying) == 2
    sampler.poll()
    assert len(flying) == 3
    while sampler.poll():
        pass
    assert len(flying) == 6


@pytest.mark.parametrize(("memory", "prompts"), [(0, 6), (2.5, 2), (0.1, 1)])
def test_memory_limits_the_prompts_of_smaller_groups(memory, prompts):
    each = partial(prompt_bytes, CONFIG, PROMPT, LENGTH)
    sampler = make(memory=int(memory * each(1)))
    engine, shapes = sampler._engine, []
    engine._sample = lambda *args: shapes.append(args[1].shape)
    sampler.submit(groups([1] * 6))
    engine._dispatch(sampler._params)
    assert shapes[0] == (prompts, PROMPT)
