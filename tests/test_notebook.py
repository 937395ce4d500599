"""A policy to talk to: its samples are the rollout's, its log-probs those of teacher forcing, from any source."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import rlvr_jax
from rlvr_jax.config import Config, PromptConfig, RolloutConfig, SftConfig
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.parallel import MeshConfig, make_mesh
from rlvr_jax.policy import LoraConfig, PolicyConfig
from rlvr_jax.rollout.sampler import Request, Sampler, SamplingConfig, episode_keys
from rlvr_jax.text.tokenizers import decode, encode
from rlvr_jax.training.export import export
from rlvr_jax.training.sft import sft
from tests.hf.checkpoints import write_model
from tests.policy.reference import log_softmax
from tests.policy.reference import logits as reference_logits
from tests.text.pretrained import EOS, EOT, WRITES_ITS_OWN, tokenizer

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")

SHAPE = PolicyConfig(vocab_size=300, num_layers=1, width=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_width=16)
TEXTS = ["2+2=", "a longer one: 17*3?", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tokenizer("bytes", template=WRITES_ITS_OWN)
    return write_model(tmp_path_factory.mktemp("models") / "tiny", made, SHAPE, eos_token_id=[EOS, 9])


@pytest.fixture(scope="module")
def model(folder):
    return rlvr_jax.load(folder)


def test_the_repr_is_short(model):
    assert len(repr(model)) < 1500
    assert "num_heads=2" in repr(model)
    assert "AddedToken" not in repr(model)


@pytest.mark.usefixtures("eight_devices")
def test_samples_are_those_of_the_rollout(model):
    sampling = SamplingConfig(32, 12, group_size=3, batch_size=8, top_k=50, top_p=0.9)
    sampler = Sampler(model.config, sampling, make_mesh(MeshConfig(data=1, fsdp=8)))
    sampler.set_params(model.params, 0)
    prompts = [np.array(encode(model.tokenizer, f"<s>{text}"), np.int32) for text in TEXTS]
    settings = {"budget": 12, "temperature": 0.8, "stop_tokens": model.stop_tokens}
    keys = episode_keys(jax.random.key(7), range(9))
    sampler.submit([Request(i, keys[i], prompts[i // 3], **settings) for i in range(9)])
    turns = [turn for part in iter(sampler.poll, []) for turn in part]
    expected = sorted(turns, key=lambda turn: turn.id)
    options = {"samples": 3, "max_tokens": 12, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "seed": 7}
    found = model.generate(TEXTS, **options)
    said = [turn.tokens[: len(turn.tokens) - (turn.finish == "stop")] for turn in expected]
    assert [x.prompt for x in found] == [f"<s>{text}" for text in TEXTS for _ in range(3)]
    assert [(x.text, x.finish_reason) for x in found] == [
        (text, turn.finish) for text, turn in zip(decode(model.tokenizer, said), expected, strict=True)
    ]
    for x, t in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x.tokens, t.tokens)
        np.testing.assert_allclose(x.logprobs, t.logprobs, rtol=1e-5, atol=1e-5)
    in_batches = model.generate(TEXTS, **options, batch_size=4)
    assert [x.text for x in in_batches] == [x.text for x in found]
    assert [x.text for x in model.generate(TEXTS, **options | {"seed": 8})] != [x.text for x in found]


def test_log_probs_are_those_of_teacher_forcing(model):
    found = model.generate(TEXTS, max_tokens=9, seed=3)
    again = model.logprobs(TEXTS, found)
    for text, x, logprobs in zip(TEXTS, found, again, strict=True):
        ids = model.tokenizer(text)["input_ids"]
        rows = log_softmax(reference_logits(model.config, model.params, [*ids, *x.tokens]))
        expected = rows[np.arange(len(ids) - 1, len(ids) - 1 + len(x.tokens)), x.tokens]
        np.testing.assert_allclose(logprobs, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(x.logprobs, expected, rtol=1e-4, atol=1e-5)
    of_text = model.logprobs(TEXTS[0], "4, of course")[0]
    of_ids = model.logprobs([TEXTS[0]], [model.tokenizer("4, of course", add_special_tokens=False)["input_ids"]])[0]
    assert of_text.shape == (12,)
    np.testing.assert_array_equal(of_text, of_ids)
    two = model.logprobs([TEXTS[0]] * 3, ["4, of course", "", "5"], batch_size=2)
    np.testing.assert_allclose(two[0], of_text, rtol=1e-5, atol=1e-6)
    assert [x.shape for x in two[1:]] == [(0,), (1,)]


def test_messages_go_through_the_chat_template_and_text_does_not(model):
    assert model.stop_tokens == (EOS, EOT, 9)
    chat = [{"role": "user", "content": "2+2?"}]
    for prompts in (chat, [chat], [chat, "2+2="]):
        found = model.generate(prompts, max_tokens=2, temperature=0)
        assert found[0].prompt == "<s><|user|>2+2?<|assistant|>"
    assert found[1].prompt == "<s>2+2="
    assert found[0].text == model.generate(chat, max_tokens=2, temperature=0, seed=5)[0].text
    assert model.generate([]) == []


@pytest.mark.parametrize(
    "bad", [{"samples": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"temperature": np.nan}]
)
def test_numbers_out_of_range_are_refused(model, bad):
    with pytest.raises(ValueError, match="must be above 0"):
        model.generate("x", **bad)
    with pytest.raises(ValueError, match="there are 2 prompts and 1 completions"):
        model.logprobs(["x", "y"], "z")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, "prompt 1 is int"),
        (b"x", "prompt 1 is bytes"),
        ([], "prompt 1 must end with"),
        ([{"role": "wizard", "content": "x"}], 'message 1 of prompt 1 must be {"role": system or user'),
        ([{"role": "user"}], "message 1 of prompt 1"),
        ("x" * 1024, "prompt 1 has 1025 tokens; 1 to 1023"),
    ],
)
def test_a_prompt_that_cant_be_continued_is_named(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        model.generate(["x", prompt])


def test_a_completion_ends_with_the_window(model):
    short = dataclasses.replace(model, config=dataclasses.replace(model.config, max_length=10), stop_tokens=())
    found = short.generate(["x", "x" * 7], max_tokens=20)
    assert [(len(x.tokens), x.finish_reason) for x in found] == [(8, "length"), (2, "length")]
    short.logprobs(["x", "x" * 7], found)
    with pytest.raises(ValueError, match="prompt 0 has 3 tokens; 1 to 2 "):
        short.logprobs("xx", found[0])
    with pytest.raises(ValueError, match="completion 0 has tokens that are not from 0 to 299"):
        short.logprobs("x", [[300]])


def test_the_workdir_of_a_run_with_adapters_is_the_policy_that_its_export_is(folder, tmp_path):
    config = Config(
        pretrained=str(folder),
        policy=PolicyConfig(lora=LoraConfig(rank=2, alpha=64.0)),
        prompt=PromptConfig("chat"),
        rollout=RolloutConfig(8, 4, 64, 16),
        sft=SftConfig(num_steps=2, batch_size=8, updates_per_call=2, save_every=2),
    )
    sft(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    of_run, exported = rlvr_jax.load(tmp_path / "run"), rlvr_jax.load(tmp_path / "out", dtype="float32")
    jax.tree.map(np.testing.assert_array_equal, of_run.params, exported.params)
    assert of_run.stop_tokens == exported.stop_tokens
    same = {"max_length": 0, "init_scale": 1.0, "remat": "none"}
    assert dataclasses.replace(of_run.config, **same) == dataclasses.replace(exported.config, **same)


def test_the_blocks_of_the_page_run(folder):
    page = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(folder)), {})


def test_what_cant_be_loaded_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder /no/such"):
        rlvr_jax.load("/no/such/folder")
    with pytest.raises(ValueError, match="not 'int8'"):
        rlvr_jax.load(tmp_path, dtype="int8")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        rlvr_jax.load(tmp_path)


def test_the_package_imports_nothing_heavy():
    program = "import sys, rlvr_jax; assert not {'jax', 'numpy', 'transformers'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)
