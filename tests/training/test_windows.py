"""Runs with several context windows, tools and questions in an episode: continued, they end with the same bits."""

import dataclasses
import shutil

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.memory import weight_bytes
from rlvr_jax.training import checkpoints
from rlvr_jax.training.functions import sampling_config
from rlvr_jax.training.loop import train
from rlvr_jax.training.plan import lines, memory_of_run
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.training import counting
from tests.training.test_in_flight import GOES_ON
from tests.training.test_loop import changed, equal, params_of, rows_of
from tests.training.test_queue import of_training

pytestmark = pytest.mark.usefixtures("one_device")

COMPACTION = {
    "environment": f"{counting.HERE}:asking", "environment_options": {"turns": 2, "ends": "1"},
    "summary_tokens": 2, "reserve": 4, "ask": "?", "prompt": "{problem}{summary}?{observation}",
}  # fmt: skip
QUESTIONS = {
    "environment": "compaction", "environment_options": COMPACTION,
    "marks": ["2", "1"], "prompt": "{}?", "observation": "{}?", "failure": "9",
}  # fmt: skip
TASK = TaskConfig(name=f"{counting.HERE}:numbers", environment="subcalls", environment_options=QUESTIONS)
CONFIG = changed(
    dataclasses.replace(GOES_ON, tasks={"n": TASK}),
    rollout={"max_sequences": 5},
    training={"num_steps": 2},
    evaluation={"every": 2},
)


@pytest.mark.parametrize("mode", ["finish", "keep"])
def test_a_run_of_several_windows_that_is_continued_ends_with_the_same_bits(mode, tmp_path):
    config, whole, again = changed(CONFIG, rollout={"in_flight": mode}), tmp_path / "whole", tmp_path / "again"
    with Pool(0) as pool:
        train(config, whole, pool)
        shutil.copytree(whole, again)
        shutil.rmtree(again / "checkpoints" / "2")
        train(config, again, pool)
    row = rows_of(whole)[-1]
    assert row["part/windows"] > 2
    assert row["part/asks"] > 0
    with checkpoints.open_manager(whole, keep=9) as manager:
        logs = [log for _, log in checkpoints.restore_host(manager, 1).get("in_flight", {"episodes": []})["episodes"]]
    assert any(len(log["turns"]) > 1 and log["verdict"] is None for log in logs) == (mode != "finish")
    assert of_training(again) == of_training(whole)
    assert rows_of(again, "samples.jsonl") == rows_of(whole, "samples.jsonl")
    assert equal(params_of(config, again, 2), params_of(config, whole, 2))


def test_another_policy_may_be_asked_and_is_not_trained(tmp_path):
    own, helper, helped = tmp_path / "own", tmp_path / "helper", tmp_path / "helped"
    config = changed(CONFIG, rollout={"in_flight": "finish"}, training={"num_steps": 1, "max_lag": 0})
    task = dataclasses.replace(TASK, environment_options={**QUESTIONS, "policy": str(helper)})
    asking = dataclasses.replace(config, tasks={"n": task})
    with Pool(0) as pool:
        with pytest.raises(ConfigError, match=r"config\.tasks\.n\.environment: .*helper"):
            train(asking, helped, pool)
        train(config, own, pool)
        shutil.copytree(own, helper)
        shutil.rmtree(helper / "checkpoints" / "1")  # so that it is the policy that both runs begin with
        train(asking, helped, pool)
    here = make_setup(asking)
    phases = memory_of_run(here).phases
    assert phases["update"]["asked"] == phases["update"]["sampler"]
    assert phases["rollout"]["asked"] == phases["rollout"]["sampler"] + phases["rollout"]["KV cache"]
    assert "asked" in lines(memory_of_run(here), here)[0]
    tight = dataclasses.replace(here, sampling_memory=10 * weight_bytes(here.policy))
    alone = dataclasses.replace(make_setup(config), sampling_memory=tight.sampling_memory)
    assert sampling_config(tight).memory == 9 * weight_bytes(here.policy)
    assert 1 <= sampling_config(tight).batch_size <= sampling_config(alone).batch_size / 2  # they need room, too
    assert "asked" in memory_of_run(make_setup(asking, problems=False)).phases["rollout"]  # as `rlvr compile` has it
    assert "asked" not in memory_of_run(make_setup(config)).phases["rollout"]
    said, trained = (
        [row["completion"] for row in rows_of(x, "samples.jsonl") if row["step"] == 1] for x in (own, helped)
    )
    assert said == trained
    before, after = rows_of(own)[-1], rows_of(helped)[-1]
    assert before["part/asks"] == after["part/asks"] > 0
    assert 0 < after["train/response_length"] < before["train/response_length"]
    for row in rows_of(helped, "samples.jsonl"):
        assert all(not span["trained"] for span in row.get("spans") or () if span.get("depth"))
    with pytest.raises(ConfigError, match=r"in_flight = 'keep'"):
        make_setup(changed(asking, rollout={"in_flight": "keep"}))
