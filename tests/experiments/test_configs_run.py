"""The configs for real models: each trains for two steps on real data, with a policy of its kind that is very small."""

import dataclasses
import json

import pytest

from rlvr_jax.config import Config
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.test_configs import load

TASKS = {
    "gsm8k_qwen3_1p7b": ("gsm8k",),
    "gsm8k_llama32_1b": ("gsm8k",),
    "gsm8k_gemma3_1b": ("gsm8k",),
    "math_qwen25_1p5b": ("math",),
    "math_python_qwen25_1p5b": ("math",),
    "tulu3_rlvr_8b": ("gsm8k", "math", "ifeval"),
    "r1_zero_countdown_qwen25_3b": ("countdown_tinyzero",),
    "smollm2_135m_sentences": ("sentences",),
    "smollm2_135m_sums": ("sums",),
    "papers_search": ("find_one", "find_three", "author", "citation"),
}
PROMPT_LENGTHS = {
    "r1_zero_countdown_qwen25_3b": 640,
    "papers_search": 1792,
    "math_python_qwen25_1p5b": 960,
}  # others have 320 bytes
CORPUS = "corpus/acl_anthology_2016_2020.jsonl"

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def tiny(name: str, manual_dir, data_dir) -> Config:
    """The config at a size for 2 CPU cores, random weights, prompts in bytes."""
    overrides = {
        "pretrained": "",
        "tokenizer": "bytes",
        "shrink": 128,
        "policy.num_layers": 1,
        "data.manual_dir": manual_dir,
        "data.data_dir": data_dir,
        "rollout.prompts": 8,
        "rollout.group_size": 2,
        "rollout.max_prompt_length": PROMPT_LENGTHS.get(name, 320),
        "rollout.max_response_length": 8,
        "algorithm.minibatches": 1,
        "optimizer.microbatches": 1,
        "training.num_steps": 2,
        "training.save_every": 2,
        "evaluation.every": 2,
        "evaluation.problems": 8,
        "evaluation.pass_problems": 0,
    }
    if name != "r1_zero_countdown_qwen25_3b":
        overrides["prompt.format"] = "plain"  # the template of models without a chat template is 500 bytes
    if "math" in TASKS[name]:
        overrides["tasks.math.options.heldout"] = "holdback"  # MATH-500 is not among the files here
    if name == "papers_search":
        overrides |= {"rollout.prompts": 4, "evaluation.problems": 1}
        # Without a chat template there are no messages of tools.
        overrides |= {f"tasks.{task}.environment_options.format": "tags" for task in TASKS[name]}
        name += f":{next(manual_dir.glob(f'{CORPUS}*'))}"
    return load(name, *(f"--config.{key}={value}" for key, value in overrides.items()))


@pytest.mark.parametrize("name", TASKS)
def test_a_config_for_a_real_model_trains_at_reduced_width_on_real_data(
    name, data_sets, tmp_path, prepared_dir, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(prepared_dir))  # of corpora
    config = tiny(name, data_sets, prepared_dir)
    setup = make_setup(config)
    full = load(name)
    resized = {"vocab_size", "num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width"}
    resolved = {"remat", "head_chunk"}
    for field in {field.name for field in dataclasses.fields(full.policy)} - resized - resolved:
        assert getattr(setup.policy, field) == getattr(full.policy, field)
    assert setup.policy.num_layers >= len(full.policy.window_pattern)
    assert setup.policy.num_heads // setup.policy.num_kv_heads == full.policy.num_heads // full.policy.num_kv_heads
    with Pool(1, timeout=60.0) as pool:
        report = train(config, tmp_path, pool)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["verify/errors"] == 0 for row in rows[1:])
    page = report.read_text()
    for task in TASKS[name]:
        assert {f"task/{task}/greedy_accuracy", f"task/{task}/dropped_prompts"} <= rows[0].keys()
        assert f"<td>{task}</td>" in page
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert {sample["task"] for sample in samples} == set(TASKS[name])
    assert dataclasses.asdict(config)["pretrained"] == ""
