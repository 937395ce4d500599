"""What a worker does with a job: its answer, and the verifier processes that go on from run to run."""

import dataclasses
import sys

import pytest

from rlvr_jax.config import Config, EvaluationConfig, RolloutConfig, TaskConfig, VerifierConfig, to_dict
from rlvr_jax.sweeps import worker
from rlvr_jax.verifiers.pool import Pool

CONFIG = Config(
    tasks={"modsum": TaskConfig(options={"digits": 3})},
    rollout=RolloutConfig(prompts=8, group_size=2, max_prompt_length=4, max_response_length=6),
    evaluation=EvaluationConfig(problems=8, pass_problems=0),
    verifier=VerifierConfig(workers=0),
)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """A function that checks a config and returns the answer."""
    monkeypatch.setattr(sys, "argv", sys.argv)

    def check(config, run="rl", needs=False):
        job = {"job": "check", "run": run, "config": to_dict(config), "needs": needs, "argv": ["rlvr sweep"]}
        with worker.Pools() as pools:
            return worker.do(job | {"folder": str(tmp_path / "run"), "log": str(tmp_path / "log.txt")}, pools)

    return check


def test_a_config_that_runs_is_no_error_and_one_that_does_not_names_its_key(ask, tmp_path):
    assert ask(CONFIG) == {"status": "finished", "error": None}
    short = dataclasses.replace(CONFIG, rollout=dataclasses.replace(CONFIG.rollout, max_prompt_length=2))
    assert "config.rollout.max_prompt_length = 2" in ask(short)["error"]
    assert not (tmp_path / "run").exists()


def test_a_beginning_is_looked_at_unless_it_is_still_to_be_made(ask):
    config = dataclasses.replace(CONFIG, init_from="runs/nothing")
    assert "runs/nothing" in ask(config)["error"]
    assert ask(config, needs=True)["error"] is None


def test_a_warm_start_needs_demonstrations(ask, tmp_path):
    assert ask(CONFIG, run="sft")["error"] is None
    (tmp_path / "own.jsonl").write_text('{"prompt": "123=", "reference": "6"}\n' * 40)
    own = TaskConfig(file=str(tmp_path / "own.jsonl"), verifier="modsum")
    config = dataclasses.replace(CONFIG, tasks={"own": own}, tokenizer="bytes")
    assert "config.tasks.own has no demonstrations" in ask(config, run="sft")["error"]


def test_verifier_processes_go_on_while_their_settings_are_the_same(monkeypatch):
    closed = []
    monkeypatch.setattr(Pool, "close", lambda self: closed.append(self))
    slow = dataclasses.replace(CONFIG, verifier=VerifierConfig(workers=0, timeout=3.0))
    with worker.Pools() as pools:
        first = pools.of(CONFIG)
        assert pools.of(dataclasses.replace(CONFIG, seed=1)) is first
        assert closed == []
        second = pools.of(slow)
        assert (second is first, closed) == (False, [first])
    assert closed == [first, second]
