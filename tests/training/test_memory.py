"""What a run chooses to compute again, by the sizes of its policy and its batches."""

import dataclasses

import pytest

from rlvr_jax.policy import PolicyConfig
from rlvr_jax.training.memory import Load, activation_bytes, kept_bytes, logit_bytes, resolved
from rlvr_jax.training.setup import make_setup
from tests.training.test_loop import TINY

MODEL = PolicyConfig(
    vocab_size=49_152, num_layers=30, width=576, num_heads=9, num_kv_heads=3, head_dim=64, mlp_width=1536
)  # that of SmolLM2-135M


def test_bytes_follow_from_every_size():
    small, load = dataclasses.replace(MODEL, num_layers=1), Load(2, 5, 3)
    assert activation_bytes(small, load) == 4 * 2 * 5 * (2 * 576 + 2 * 1536 + (2 * 9 + 6) * 64 + 9 * 5)
    assert activation_bytes(dataclasses.replace(small, dtype="bfloat16"), load) == activation_bytes(small, load) // 2
    norms_behind = dataclasses.replace(small, norm_placement="both")
    assert activation_bytes(norms_behind, load) - activation_bytes(small, load) == 4 * 2 * 5 * 576
    assert activation_bytes(MODEL, load) == 30 * activation_bytes(small, load)
    assert logit_bytes(MODEL, load) == 3 * 4 * 2 * 3 * 49_152


@pytest.mark.parametrize(
    ("load", "remat", "chunk"),
    [(Load(64, 128, 24), "full", 256), (Load(4, 128, 24), "none", 0), (Load(4, 1024, 512), "full", 256)],
)
def test_a_real_model_computes_again_what_would_not_fit(load, remat, chunk):
    config = resolved(MODEL, load)
    assert (config.remat, config.head_chunk) == (remat, chunk)


def test_rematerialisation_keeps_inputs_of_layers_and_outputs_of_attention():
    load, width = Load(2, 512, 3), 576
    none, dots, full = (kept_bytes(dataclasses.replace(MODEL, remat=x), load) for x in ("none", "dots", "full"))
    assert none == dots == 31 * activation_bytes(MODEL, load) // 30
    assert full == 30 * 2 * 512 * (width + 9 * 64) * 4 + 2 * activation_bytes(MODEL, load) // 30
    halves = kept_bytes(dataclasses.replace(MODEL, num_heads=8, remat="none"), load, tensor=2)
    whole = kept_bytes(dataclasses.replace(MODEL, num_heads=8, remat="none"), load)
    assert whole - halves == 31 * 2 * 512 * (1536 + 8 * 64 + 3 * 64) * 4


def test_what_a_config_sets_stays():
    config = dataclasses.replace(MODEL, remat="dots", head_chunk=0)
    assert resolved(config, Load(512, 4096, 2048)) == config


def test_a_toy_keeps_everything():
    for run in ("rl", "sft"):
        setup = make_setup(TINY, run=run)
        assert (setup.policy.remat, setup.policy.head_chunk) == ("none", 0)


def test_microbatches_and_devices_share_the_rows():
    policy = dataclasses.replace(TINY.policy, num_layers=64, width=1024, mlp_width=4096, vocab_size=300)
    large = dataclasses.replace(TINY, policy=policy, rollout=dataclasses.replace(TINY.rollout, prompts=1024))
    assert make_setup(large).policy.remat == "full"
    parts = dataclasses.replace(large.optimizer, microbatches=64)
    assert make_setup(dataclasses.replace(large, optimizer=parts)).policy.remat == "none"
    assert make_setup(large, run="sft").policy.remat == "none"
