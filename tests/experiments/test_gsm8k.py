"""The real GSM8K problems go through the whole loop."""

import json

import pytest

from configs import gsm8k
from rlvr_jax.config import from_dict
from rlvr_jax.training.loop import train
from rlvr_jax.verifiers.pool import Pool
from tests.data.read import rows
from tests.pages import Page

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


@pytest.fixture(scope="module")
def workdir(data_sets, tmp_path_factory):
    """A run of two steps with a policy that is smaller still than the config's."""
    folder = tmp_path_factory.mktemp("gsm8k")
    config = gsm8k.get_config()
    config.data.manual_dir = str(data_sets / "gsm8k")
    config.data.data_dir = str(folder / "data")
    config.policy.num_layers, config.policy.width, config.policy.mlp_width = 1, 16, 16
    config.policy.num_heads, config.policy.num_kv_heads, config.policy.head_dim = 1, 1, 8
    config.rollout.prompts, config.rollout.group_size, config.rollout.max_response_length = 2, 2, 8
    config.optimizer.microbatches = 1
    config.evaluation.problems = 2
    config.evaluation.pass_problems = 0
    config.training.num_steps = 2
    with Pool(0) as pool:
        train(from_dict(config.to_dict()), folder / "run", pool)
    return folder / "run"


def test_a_run_goes_from_end_to_end(workdir):
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == list(range(3))
    assert all(row["verify/errors"] == 0 for row in metrics[1:])
    assert all(row["train/logprob_gap"] <= 2e-5 for row in metrics[1:])


def test_each_sample_is_judged_against_its_own_gold_answer(workdir, data_sets):
    gold = {}
    for split, name in (("train", "train"), ("heldout", "test")):
        for i, record in enumerate(rows(data_sets / "gsm8k" / f"{name}.jsonl")):
            gold[f"gsm8k/{split}/{i}"] = record["question"], record["answer"].rpartition("####")[2].strip()
    samples = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    assert {sample["split"] for sample in samples} == {"train", "heldout"}
    for sample in samples:
        question, answer = gold[sample["example"]]
        assert sample["prompt"].startswith(question)
        assert sample["reference"] == answer


def test_the_report_shows_real_problems(workdir):
    samples = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    page = Page((workdir / "report.html").read_text(encoding="utf-8"))
    assert [x["prompt"] for x in page.samples] == [sample["prompt"] for sample in samples]
