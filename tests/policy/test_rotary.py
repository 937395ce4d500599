"""Scaled rotary frequencies against those of the decoder in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.policy import RopeScaling
from rlvr_jax.policy import rotary as module
from rlvr_jax.policy.rotary import frequency_factors
from tests.policy import reference
from tests.policy.reference import TINY

rotary, rotate = jax.jit(module.rotary, static_argnums=(0, 1)), jax.jit(module.rotate)
WIDE = replace(TINY, head_dim=64, rope_theta=500_000.0)


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("none"),
        RopeScaling("linear", factor=4.0),
        RopeScaling("llama3", factor=32.0, original_length=8192),  # Llama 3.2 1B
        RopeScaling("yarn", factor=4.0, original_length=32768),  # Qwen3, as its model card says
        RopeScaling("yarn", factor=8.0, original_length=8192, attention_factor=1.2079441541679836),  # OLMo 3
        RopeScaling("yarn", factor=4.0, original_length=4096, truncate=False),
        RopeScaling(
            "longrope", factor=32.0, original_length=4096, short_factors=(1.25,) * 32, long_factors=(2.0,) * 32
        ),
        RopeScaling("yarn", factor=2.0, original_length=6),  # all frequencies are low: the borders coincide
    ],
    ids=lambda scaling: f"{scaling.type}-{scaling.factor}",
)
def test_frequencies_equal_those_in_float64(scaling):
    config = replace(WIDE, rope_scaling=scaling)
    expected, factor = reference.frequencies(config)
    plain = config.rope_theta ** (-np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(frequency_factors(scaling, config.rope_theta, 64) * plain, expected, rtol=1e-12)
    cos, sin = rotary(config, "scaled", jnp.array([[0, 1, 7]]))
    turned = factor * np.exp(1j * np.outer([0, 1, 7], expected))
    np.testing.assert_allclose(np.asarray(cos)[0, :, 0] + 1j * np.asarray(sin)[0, :, 0], turned, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("length", "divisor"), [(0, 1.25), (4096, 1.25), (4097, 2.0)])
def test_longrope_divides_the_frequencies_by_the_length_of_the_policy(length, divisor):
    scaling = RopeScaling("longrope", original_length=4096, short_factors=(1.25,) * 32, long_factors=(2.0,) * 32)
    np.testing.assert_allclose(frequency_factors(scaling, 1e4, 64, length), np.full(32, 1 / divisor), rtol=1e-12)


def test_dimensions_behind_the_rotary_ones_are_not_turned():
    part, whole = replace(WIDE, rotary_dim=16), replace(WIDE, head_dim=16)
    positions, x = np.arange(5, dtype=np.int32)[None], np.random.default_rng(0).normal(size=(1, 5, 3, 64))
    x = np.float32(x)
    y = np.asarray(rotate(x, *rotary(part, "scaled", positions)))
    np.testing.assert_array_equal(y[..., :16], rotate(x[..., :16], *rotary(whole, "scaled", positions)))
    np.testing.assert_array_equal(y[..., 16:], x[..., 16:])


def test_scaling_concerns_neither_unscaled_layers_nor_those_without_positions():
    scaled = replace(WIDE, rope_scaling=RopeScaling("yarn", factor=4.0, original_length=4096))
    positions = jnp.arange(9)[None]
    for actual, expected in zip(rotary(scaled, "unscaled", positions), rotary(WIDE, "scaled", positions), strict=True):
        np.testing.assert_array_equal(actual, expected)
    cos, sin = rotary(scaled, "none", positions)
    assert bool(jnp.all(cos == 1))
    assert bool(jnp.all(sin == 0))
