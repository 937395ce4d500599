"""Runs with several context windows, tools and questions in an episode: continued, they end with the same bits."""

import dataclasses
import shutil

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.training import checkpoints
from rlvr_jax.training.loop import train
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
    rollout={"max_prompt_length": 8, "max_response_length": 12, "max_turn_length": 6, "max_sequences": 5},
    training={"num_steps": 2},
    evaluation={"every": 2},
)


@pytest.mark.parametrize("mode", ["finish", "recompute", "keep"])
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
