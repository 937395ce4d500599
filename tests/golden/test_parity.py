"""The decoder with checkpoints of each family against what `transformers` on PyTorch computes with them."""

import importlib.util

import jax
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.hf.families import FAMILIES
from rlvr_jax.hf.pretrained import load_pretrained
from rlvr_jax.parallel import MeshConfig, make_mesh
from rlvr_jax.rollout.sampler import Request, Sampler, SamplingConfig
from tests.close import assert_close
from tests.golden import make_golden
from tests.hf.checkpoints import golden_weights, write_checkpoint
from tests.policy.reference import left_padded

SAMPLED = ("olmo3",)  # with norms, windows and rotations; decoding of the others is `policy/test_forward.py`'s


@pytest.fixture(scope="module", params=make_golden.CASES)
def case(request, tmp_path_factory):
    """Name, golden file, config, parameters, and logits of one ragged batch: the sequences whose logits are golden,
    and the prompts with their continuations."""
    golden = make_golden.read(request.param)
    folder = tmp_path_factory.mktemp("golden") / request.param
    write_checkpoint(folder, golden["config"], golden_weights(golden))
    config, params = load_pretrained(folder)
    sequences, prompts = make_golden.tokens(golden["config"])
    whole = [np.concatenate(pair) for pair in zip(prompts, golden["continuations"], strict=True)]
    batch = left_padded([*sequences, *whole], max(map(len, whole)))
    forward = jax.jit(
        lambda params, *batch: policy.head_logits(config, params, policy.forward(config, params, *batch)[0])
    )
    return request.param, golden, config, params, np.asarray(forward(params, *batch))


def test_logits_equal_those_of_transformers(case):
    _, golden, _, _, logits = case
    actual = logits[: len(golden["logits"]), -make_golden.LENGTH :]
    assert_close(actual, golden["logits"])


def test_every_greedy_token_of_transformers_is_the_likeliest_in_a_ragged_batch(case):
    _, golden, _, _, logits = case
    likeliest = logits[len(golden["logits"]) :, -make_golden.NEW_TOKENS - 1 : -1].argmax(axis=-1)
    np.testing.assert_array_equal(likeliest, golden["continuations"])


@pytest.mark.parametrize("case", SAMPLED, indirect=True)
def test_the_sampler_continues_a_ragged_batch_greedily_as_transformers_does(case):
    _, golden, config, params, _ = case
    _, prompts = make_golden.tokens(golden["config"])
    sampling = SamplingConfig(max(map(len, prompts)), make_golden.NEW_TOKENS, batch_size=len(prompts))
    sampler = Sampler(config, sampling, make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    sampler.set_params(params, 0)
    key = np.zeros(2, np.uint32)
    sampler.submit(
        [
            Request(i, key, np.asarray(prompt, np.int32), budget=make_golden.NEW_TOKENS, temperature=0.0)
            for i, prompt in enumerate(prompts)
        ]
    )
    turns = sorted(sampler.poll(), key=lambda turn: turn.id)
    np.testing.assert_array_equal([turn.tokens for turn in turns], golden["continuations"])


@pytest.mark.parametrize("name", make_golden.CASES)
def test_golden_files_are_what_their_script_makes(name):
    golden = make_golden.read(name)
    assert make_golden.checksum(golden_weights(golden)) == golden["checksum"]
    for key in ("model_type", "tie_word_embeddings", "vocab_size", "num_key_value_heads"):
        assert golden["config"][key] == make_golden.CASES[name][key]
    if importlib.util.find_spec("torch"):  # then what transformers computes now, too
        make_golden.compare(name, make_golden.compute(name, golden["seed"]))


def test_the_cases_cover_families_tied_embeddings_and_ratios_of_heads():
    covered = {}
    for config in make_golden.CASES.values():
        ratio = config["num_attention_heads"] // config["num_key_value_heads"]
        covered.setdefault(config["model_type"], set()).update(
            {
                ratio,
                "tied" if config["tie_word_embeddings"] else "untied",
                "odd" if config["vocab_size"] % 2 else "even",
            }
        )
    assert set(covered) == set(FAMILIES)
    assert all(found == {1, 2, 8, "tied", "untied", "odd", "even"} for found in covered.values())
