"""Random parameters, and the names of their axes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlvr_jax import parallel, policy
from tests.policy.reference import TINY

FULL = replace(TINY, qk_norm="head", qkv_bias=True, tie_embeddings=False)
OLMO = replace(TINY, qk_norm="full", norm_placement="post", window_pattern=(4, 0), rope_pattern=("none", "scaled"))

GEMMA = replace(TINY, qk_norm="head", norm_placement="both", norm_offset=1.0)


def test_parameters_are_a_function_of_config_and_key():
    first, again = policy.init(FULL, jax.random.key(3)), policy.init(FULL, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = policy.init(FULL, jax.random.key(4))
    assert not np.array_equal(first["embed"], other["embed"])
    assert not np.array_equal(first["layers"]["mlp"]["up"], other["layers"]["mlp"]["up"])


def test_no_two_weight_matrices_are_drawn_alike():
    params = policy.unstack(jax.device_get(policy.init(FULL, jax.random.key(0))))
    first_numbers = [float(x.flat[0] / x.std()) for x in jax.tree.leaves(params) if x.std()]
    assert len(first_numbers) == 7 * FULL.num_layers + 2
    assert len(set(first_numbers)) == len(first_numbers)


def test_weights_have_the_documented_scale():
    config = replace(FULL, width=64, mlp_width=256, vocab_size=500, head_dim=32, init_scale=0.05)
    params = jax.device_get(policy.init(config, jax.random.key(0)))
    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    for weights, fan_in in [
        (params["embed"], config.width),
        (params["head"], config.width),
        (attention["q"], config.width),
        (attention["k"], config.width),
        (attention["out"], config.num_heads * config.head_dim),
        (mlp["up"], config.width),
        (mlp["down"], config.mlp_width),
    ]:
        assert weights.std() == pytest.approx(0.05 * (config.width / fan_in) ** 0.5, rel=0.05)
    ones = [params["norm"], params["layers"]["attention_norm"], params["layers"]["mlp_norm"], attention["q_norm"]]
    assert all((x == 1).all() for x in ones)
    assert not any(attention[f"{name}_bias"].any() for name in "qkv")


def test_norm_scales_with_an_offset_begin_where_they_multiply_by_1():
    params = jax.device_get(policy.init(GEMMA, jax.random.key(0)))
    norms = {path[-1].key: x for path, x in jax.tree.leaves_with_path(params) if path[-1].key.endswith("norm")}
    assert len(norms) == 7
    assert not any(x.any() for x in norms.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_have_the_dtype_and_the_shapes_of_the_config(dtype):
    config = replace(FULL, param_dtype=dtype)
    params = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    c, attention, mlp = config, params["layers"]["attention"], params["layers"]["mlp"]
    assert params["embed"].shape == params["head"].shape == (c.vocab_size, c.width)
    assert attention["q"].shape == (c.num_layers, c.width, c.num_heads, c.head_dim)
    assert attention["k"].shape == attention["v"].shape == (c.num_layers, c.width, c.num_kv_heads, c.head_dim)
    assert attention["out"].shape == (c.num_layers, c.num_heads, c.head_dim, c.width)
    assert mlp["gate"].shape == mlp["up"].shape == (c.num_layers, c.width, c.mlp_width)
    assert mlp["down"].shape == (c.num_layers, c.mlp_width, c.width)


@pytest.mark.parametrize("config", [TINY, FULL, OLMO, GEMMA])
def test_options_that_are_off_have_no_parameters(config):
    params = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    attention = params["layers"]["attention"]
    assert ("head" in params) == (not config.tie_embeddings)
    assert ("q_norm" in attention) == ("k_norm" in attention) == (config.qk_norm != "none")
    assert all((f"{name}_bias" in attention) == config.qkv_bias for name in "qkv")


def test_norms_over_all_heads_have_a_scale_for_each():
    attention = jax.eval_shape(lambda: policy.init(OLMO, jax.random.key(0)))["layers"]["attention"]
    assert attention["q_norm"].shape == (OLMO.num_layers, OLMO.num_heads, OLMO.head_dim)
    assert attention["k_norm"].shape == (OLMO.num_layers, OLMO.num_kv_heads, OLMO.head_dim)


@pytest.mark.parametrize("config", [TINY, FULL, OLMO, GEMMA])
def test_every_axis_of_every_parameter_has_a_name_that_the_sharding_rules_know(config):
    params = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    axes = policy.logical_axes(config)
    known = {name for name, _ in parallel.RULES}
    pairs = jax.tree.leaves(
        jax.tree.map(lambda a, x: (a, x), axes, params, is_leaf=lambda x: isinstance(x, PartitionSpec)),
        is_leaf=lambda x: isinstance(x, tuple),
    )
    assert len(pairs) == len(jax.tree.leaves(params))
    for names, x in pairs:
        assert len(names) == x.ndim
        assert set(names) <= known
    assert all(spec[0] == "layers" for spec in jax.tree.leaves(axes["layers"], is_leaf=lambda x: isinstance(x, tuple)))
