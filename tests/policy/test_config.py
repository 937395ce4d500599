"""What is refused in a policy's shape."""

import dataclasses
from dataclasses import replace

import pytest

from rlvr_jax.config import from_dict, to_dict
from rlvr_jax.policy import PolicyConfig, RopeScaling
from rlvr_jax.policy.config import problems, shrunk

LLAMA = replace(
    PolicyConfig(), rope_scaling=RopeScaling("llama3", factor=32.0, original_length=8192), window_pattern=(4096, 0)
)
LONGROPE = RopeScaling("longrope", 32.0, original_length=4096, short_factors=(1.0,) * 8, long_factors=(2.0,) * 8)
PHI = replace(
    PolicyConfig(),
    head_dim=128,
    rotary_dim=96,
    rope_scaling=replace(LONGROPE, short_factors=(1.0,) * 48, long_factors=(2.0,) * 48),
)


def test_shapes_that_can_run_have_no_problem():
    assert not list(problems(PolicyConfig()))
    assert not list(problems(LLAMA))
    assert not list(problems(PHI))


def test_a_smaller_policy_turns_the_same_share_of_its_heads():
    small = shrunk(replace(PHI, vocab_size=600), 2)
    assert (small.head_dim, small.rotary_dim, len(small.rope_scaling.long_factors)) == (64, 48, 24)
    assert not list(problems(small))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be above 0, not 0"),
        ({"rope_theta": float("nan")}, "rope_theta must be above 0, not nan"),
        ({"rope_theta_unscaled": -1.0}, "rope_theta_unscaled must be 0 or more, not -1.0"),
        ({"score_dim": -1}, "score_dim must be 0 or more, not -1"),
        ({"norm_offset": float("inf")}, "norm_offset must be finite, not inf"),
        ({"head_chunk": -2}, "head_chunk must be -1, 0 or more, not -2"),
        ({"num_kv_heads": 3}, "num_kv_heads = 3 does not divide config.policy.num_heads = 4"),
        ({"head_dim": 5}, "head_dim = 5 must be even (rotary positions go in pairs)"),
        ({"rotary_dim": 3}, "rotary_dim = 3 must be even, and at most config.policy.head_dim = 16"),
        ({"rotary_dim": 18}, "rotary_dim = 18 must be even, and at most config.policy.head_dim = 16"),
        (
            {"rope_scaling": replace(LONGROPE, long_factors=(1.0,) * 7)},
            f"rope_scaling.long_factors must be 8 numbers above 0, for as many frequencies, not {(1.0,) * 7}",
        ),
        (
            {"rope_scaling": replace(LONGROPE, short_factors=(0.0,) * 8)},
            f"rope_scaling.short_factors must be 8 numbers above 0, for as many frequencies, not {(0.0,) * 8}",
        ),
        ({"rope_pattern": ()}, "rope_pattern has no entry; the plain one is ('scaled',)"),
        ({"window_pattern": ()}, "window_pattern has no entry; the plain one is (0,)"),
        ({"window_pattern": (4, -1)}, "window_pattern holds a negative number: (4, -1); 0 is for no window"),
        ({"rope_scaling": RopeScaling("linear", factor=0.5)}, "rope_scaling.factor must be 1 or more, not 0.5"),
        (
            {"rope_scaling": RopeScaling("yarn", factor=4.0)},
            "rope_scaling.original_length must be above 0 for type 'yarn', not 0",
        ),
        (
            {"rope_scaling": RopeScaling(low_freq_factor=4.0)},
            "rope_scaling.low_freq_factor = 4.0 must be above 0 and below "
            "config.policy.rope_scaling.high_freq_factor = 4.0",
        ),
        (
            {"rope_scaling": RopeScaling(beta_slow=0.0)},
            "rope_scaling.beta_slow = 0.0 must be above 0 and below config.policy.rope_scaling.beta_fast = 32.0",
        ),
        (
            {"rope_scaling": RopeScaling(attention_factor=-1.0)},
            "rope_scaling.attention_factor must be 0 or more, not -1.0",
        ),
    ],
)
def test_each_impossible_shape_is_named(change, message):
    assert list(problems(replace(PolicyConfig(), **change))) == [message]


def test_a_shape_goes_through_the_config_of_a_run_and_back():
    assert from_dict({"policy": dataclasses.asdict(LLAMA)}).policy == LLAMA
    assert to_dict(from_dict({"policy": dataclasses.asdict(LLAMA)}))["policy"] == dataclasses.asdict(LLAMA)
