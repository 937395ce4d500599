"""A Hugging Face checkpoint trains on real problems and goes back out as one, with its tokenizer and chat template."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from rlvr_jax import policy
from rlvr_jax.config import Config, EvaluationConfig, PromptConfig, RolloutConfig, TaskConfig, TrainingConfig
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.hf.export import save_pretrained
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.policy import LoraConfig, PolicyConfig
from rlvr_jax.text.tokenizers import decode, encode, pretrained_tokenizer, stop_tokens
from rlvr_jax.training.export import export
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.pages import Page

SHAPE = PolicyConfig(
    vocab_size=320, num_layers=1, width=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=48, qk_norm="head",
    rope_theta=1e6,
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is "
    "false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random Qwen3 of one layer, with a byte-level BPE tokenizer of 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["How many apples does she have in the end?"], trainer)
    files = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(files)
    (files / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "temperature": 0.6}))
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3"
    save_pretrained(folder, SHAPE, policy.init(SHAPE, jax.random.key(0)), files=sorted(files.iterdir()))
    return folder


@pytest.fixture(scope="module")
def config(checkpoint, data_sets, prepared_dir) -> Config:
    config = Config(
        pretrained=str(checkpoint),
        tasks={"gsm8k": TaskConfig(options={"answer_format": "boxed"}, thinking="off")},
        prompt=PromptConfig(format="chat"),
        rollout=RolloutConfig(8, 4, 256, 8, overlong_prompts="drop"),
        reward=(("length", 1.0),),  # which a random policy earns
        optimizer=OptimizerConfig(learning_rate=1e-2),
        training=TrainingConfig(num_steps=2, save_every=2),
        evaluation=EvaluationConfig(2, problems=8, pass_problems=4, pass_samples=4, ks=(1, 4), shown=4),
    )
    data = dataclasses.replace(config.data, manual_dir=str(data_sets), data_dir=str(prepared_dir))
    return dataclasses.replace(config, data=data)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The workdirs of a run, and of one with adapters."""
    workdirs = {}
    with Pool(1, timeout=60.0) as pool:
        for name, rank in (("full", 0), ("lora", 2)):
            workdirs[name] = tmp_path_factory.mktemp(name)
            shape = dataclasses.replace(config.policy, lora=LoraConfig(rank, alpha=4.0, targets=("q", "out", "down")))
            train(dataclasses.replace(config, policy=shape), workdirs[name], pool)
    return workdirs


def test_the_checkpoint_decides_the_shape_and_the_run_the_rest(config, checkpoint):
    changed = dataclasses.replace(config, policy=PolicyConfig(width=999, dtype="bfloat16", max_length=512))
    setup = make_setup(changed)
    assert setup.policy == dataclasses.replace(SHAPE, dtype="bfloat16", max_length=512, remat="none", head_chunk=0)
    unset = make_setup(dataclasses.replace(config, policy=PolicyConfig()))
    assert unset.policy.max_length == json.loads((checkpoint / "config.json").read_text())["max_position_embeddings"]
    assert setup.stop_tokens == (0, 2)
    assert setup.tokenizer.eos_token_id == 2


def test_prompts_are_the_templates_own_rendering_of_real_problems_and_long_ones_are_counted(finished, checkpoint):
    samples = [json.loads(line) for line in (finished["full"] / "samples.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for sample in samples:
        problem = sample["prompt"].removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
        messages = [{"role": "user", "content": problem}]
        again = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        assert sample["prompt"] == again
        assert problem.endswith("\\boxed{}.")
    first = json.loads((finished["full"] / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < first["task/gsm8k/dropped_prompts"] < 8_792
    page = Page((finished["full"] / "report.html").read_text())
    assert "Tasks" in page.text
    assert page.samples[0]["prompt"].startswith("<|im_start|>user")


def test_text_of_any_script_survives_the_tokenizer(checkpoint):
    tokenizer = pretrained_tokenizer(str(checkpoint))
    for text in ("Grüße, 雪と花 🌸🏳️‍🌈 e\u0301", " \n\t x ", "<think>2²</think>"):
        assert decode(tokenizer, [encode(tokenizer, text)]) == [text]
    assert encode(tokenizer, "<|im_end|>") == [2]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # it has no token of its own for it
    assert stop_tokens(tokenizer) == (2,)


def test_a_run_from_a_checkpoint_comes_out_as_one_that_loads_with_everything(finished, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert export(finished["full"], out) == 2
    assert {file.name for file in out.iterdir()} == {file.name for file in checkpoint.iterdir()}
    assert AutoConfig.from_pretrained(out).to_dict() == AutoConfig.from_pretrained(checkpoint).to_dict() | {
        "_name_or_path": str(out)
    }
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 0]
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, out))
    assert {name: x.shape for name, x in before.items()} == {name: x.shape for name, x in after.items()}
    assert not np.array_equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    with pytest.raises(CheckpointError, match="is there already; choose another folder"):
        export(finished["full"], out)


def test_adapters_come_out_merged_or_alone_in_the_format_of_peft(finished, checkpoint, tmp_path):
    export(finished["lora"], tmp_path / "merged")
    export(finished["lora"], tmp_path / "alone", adapters=True)
    record = json.loads((tmp_path / "alone" / "adapter_config.json").read_text())
    assert (record["r"], record["lora_alpha"], record["peft_type"]) == (2, 4.0, "LORA")
    assert record["target_modules"] == ["down_proj", "o_proj", "q_proj"]
    assert record["base_model_name_or_path"] == str(checkpoint)
    before, merged = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "merged"))
    adapters = load_file(tmp_path / "alone" / "adapter_model.safetensors")
    assert len(adapters) == 2 * 3
    changed = set()
    for name, weight in before.items():
        a, b = (adapters.get(f"base_model.model.{name[:-7]}.lora_{which}.weight") for which in "AB")
        change = 0.0 if a is None else 4.0 / 2 * b.astype(np.float64) @ a
        np.testing.assert_allclose(merged[name], weight + change, rtol=1e-6, atol=1e-6)
        changed |= {name} if np.any(merged[name] != weight) else set()
    assert len(changed) == 3
    with pytest.raises(CheckpointError, match="these parameters have no adapters"):
        export(finished["full"], tmp_path / "none", adapters=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pretrained": "/no/such/folder"}, ConfigError, r"^config\.pretrained: there is no folder /no/such/folder$"),
        ({"tokenizer": "bytes", "prompt": PromptConfig("plain")}, None, ""),
    ],
)
def test_a_source_that_does_not_exist_is_one_clear_error_and_another_tokenizer_may_be_chosen(
    config, changes, error, message
):
    changed = dataclasses.replace(config, **changes)
    if error is None:
        assert len(make_setup(dataclasses.replace(changed)).tokenizer) == 258
    else:
        with pytest.raises(error, match=message):
            make_setup(changed)
