import dataclasses
import json
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rlvr_jax import config_rules
from rlvr_jax.config import Config, from_dict, to_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.learner.rewards import Rewards
from rlvr_jax.rollout.episode import Episode, Sequence, Span
from rlvr_jax.rollout.requests import RolloutStats
from rlvr_jax.tasks import Example
from rlvr_jax.text.tokenizers import byte_tokenizer, encode
from rlvr_jax.training.record import (
    describe,
    describe_updates,
    doubling,
    open_record,
    sample_rows,
    throughput,
    warn_unjudged,
)
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode, grouped


def write(workdir, done, last):
    """Rows of the steps after `done` up to `last`, of step 0 too if nothing is done, as a run writes them."""
    with open_record(workdir, Config(), 10, done, "training") as record:
        for step in range(done + 1 if done else 0, last + 1):
            record.write({"step": step, "train/reward": step / 10}, [{"step": step, "completion": "#1"}])


def steps(workdir, name):
    return [json.loads(line)["step"] for line in (workdir / name).read_text().splitlines()]


def events(workdir):
    """The events of all files of the run, in TensorBoard's order."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_every_step_is_in_the_metrics_the_samples_and_tensorboard(tmp_path):
    write(tmp_path, 0, 3)
    assert steps(tmp_path, "metrics.jsonl") == steps(tmp_path, "samples.jsonl") == [0, 1, 2, 3]
    scalars = [(event.step, event.summary.value[0].tag) for event in events(tmp_path) if event.HasField("summary")]
    assert scalars == [(step, "train/reward") for step in range(4)]


def test_resuming_drops_the_rows_of_later_steps_and_keeps_the_others_to_the_byte(tmp_path):
    write(tmp_path, 0, 5)
    kept = b"".join((tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:4])
    with open_record(tmp_path, Config(), 10, 3, "training"):
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept
        assert steps(tmp_path, "samples.jsonl") == [0, 1, 2, 3]
    write(tmp_path, 3, 6)
    assert steps(tmp_path, "metrics.jsonl") == steps(tmp_path, "samples.jsonl") == list(range(7))


@pytest.mark.parametrize("last", [0, 2])
def test_without_a_checkpoint_after_step_0_that_step_is_made_again(last, tmp_path):
    write(tmp_path, 0, last)
    with open_record(tmp_path, Config(), 10, 0, "training"):
        assert (tmp_path / "metrics.jsonl").read_bytes() == b""
        assert (tmp_path / "samples.jsonl").read_bytes() == b""


def test_tensorboard_hides_the_steps_that_are_made_again(tmp_path):
    write(tmp_path, 0, 5)
    write(tmp_path, 3, 4)
    purges = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert purges == [0, 4]


def test_the_torn_line_of_a_killed_run_is_dropped(tmp_path):
    write(tmp_path, 0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/rew')
    write(tmp_path, 3, 4)
    assert steps(tmp_path, "metrics.jsonl") == [0, 1, 2, 3, 4]


def test_a_damaged_row_is_an_error_that_names_file_and_line_and_the_file_stays(tmp_path):
    write(tmp_path, 0, 3)
    damaged = (tmp_path / "metrics.jsonl").read_text().replace('{"step": 2', '{"step" 2')
    (tmp_path / "metrics.jsonl").write_text(damaged)
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 3"), open_record(tmp_path, Config(), 10, 2, "training"):
        pytest.fail("it was opened")
    assert (tmp_path / "metrics.jsonl").read_text() == damaged


def end_early(workdir, config, row, error):
    with open_record(workdir, config, 10, max(row["step"] - 1, 0), "training") as record:
        record.write(row)
        raise error


def test_a_run_that_ends_early_has_a_report_and_ends_by_its_own_error(tmp_path):
    for error in (RunError("it diverged"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            end_early(tmp_path, Config(), {"step": 0, "eval/greedy_accuracy": 0.25}, error)
        assert "0.25" in (tmp_path / "report.html").read_text()
        (tmp_path / "report.html").unlink()


class FakeWandb(types.ModuleType):
    """The part of Weights & Biases' package that is used, which writes down what it is told."""

    def __init__(self, broken=""):
        super().__init__("wandb")
        self.inits, self.rows, self.ends, self.metrics, self.broken = [], [], [], [], broken

    def Settings(self, **options):  # noqa: N802
        return options

    def init(self, **options):
        if self.broken:
            raise ValueError(self.broken)
        self.inits.append(options)
        return self

    def define_metric(self, *names, **options):
        self.metrics.append((names, options))

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code=0):
        self.ends.append(exit_code)


def test_weights_and_biases_gets_every_row_and_a_continued_run_goes_on_there(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    config = dataclasses.replace(Config(), reporting=("wandb",))
    with open_record(tmp_path, config, 10, 0, "training") as record:
        record.write({"step": 0, "eval/pass@8": 0.5})
    with pytest.raises(RunError):
        end_early(tmp_path, config, {"step": 2, "train/reward": 0.25}, RunError("a reason"))
    assert wandb.rows == [{"step": 0, "eval/pass@8": 0.5}, {"step": 2, "train/reward": 0.25}]
    assert wandb.ends == [0, 1]
    first, second = wandb.inits
    assert first["id"] == second["id"]
    assert (first["resume"], first["project"], first["name"]) == ("allow", "mine", tmp_path.name)
    assert first["config"] == to_dict(config)
    assert (("*",), {"step_metric": "step"}) in wandb.metrics
    assert not (tmp_path / "tensorboard").exists()


def test_a_login_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("no API\nkey"))
    config = dataclasses.replace(Config(), reporting=("wandb",))
    with pytest.raises(RunError, match=r"no API key.*WANDB_MODE"), open_record(tmp_path, config, 10, 0, "training"):
        pytest.fail("it was opened")


def test_a_sink_whose_package_is_missing_is_refused_before_the_run(monkeypatch):
    config = dataclasses.replace(Config(), reporting=("tensorboard", "wandb"))
    monkeypatch.setattr(config_rules, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"config\.reporting .*rlvr_jax\[wandb\]"):
        config_rules.check(config, 1)
    monkeypatch.setattr(config_rules, "find_spec", lambda name: name)
    config_rules.check(config, 1)
    with pytest.raises(ConfigError, match=r"config\.reporting\[0\] must be one of 'tensorboard', 'wandb'"):
        from_dict({"reporting": ["comet"]})


EXAMPLE = Example("modsum/train/1", "12=", "3", "modsum")
TOKENIZER = byte_tokenizer()


def said(text, finish="stop", version=0):
    logprobs = -np.arange(1, len(text) + 1) / 4
    return episode(len(text), text, finish, EXAMPLE, logprobs=logprobs, version=version)


def test_episodes_are_described_and_kept_with_their_verdicts():
    episodes = [said("#3", version=4), said("#312", "length", version=5), said("")]
    verdicts = [Verdict(1.0, {"form": 1.0, "x": 0.25}, "3", "right"), Verdict(0.5, {"form": 0.0})]
    verdicts.append(Verdict(0.0, {"form": 1.0}, error="it died"))
    groups = grouped(verdicts, episodes, 3)
    updates = [{"train/entropy": 0.5, "train/logprob_gap": 1e-6}, {"train/entropy": 1.0, "train/logprob_gap": 0.5}]
    updates[0] |= {"train/entropy_positive": 0.25, "train/entropy_negative": 0.0}  # no such actions
    updates[1] |= {"train/entropy_positive": 0.0, "train/entropy_negative": 0.0}
    values, laps = np.array([1.0, 0.5, 0.0], np.float32), {"time/rollout": 2.0, "time/train": 4.0}
    group = np.zeros(3, np.int32)
    rewards = Rewards(values, np.array([True, True, False]), {"score": values}, group, tuple(verdicts))
    metrics = describe(groups, rewards, 6) | describe_updates([[x] for x in updates])
    assert metrics["train/reward"] == metrics["train/reward_score"] == metrics["task/modsum/reward"] == 0.75
    assert metrics["train/entropy"] == pytest.approx(0.75)
    assert (metrics["train/entropy_positive"], "train/entropy_negative" in metrics) == (0.25, False)
    assert metrics["train/logprob_gap"] == pytest.approx(1e-6)
    speed = throughput(RolloutStats(steps=9, slot_steps=16, active_slot_steps=8), 6.0, laps)
    assert (speed["time/rollout_tokens_per_second"], speed["time/train_tokens_per_second"]) == (4.0, 1.5)
    assert speed["rollout/occupancy"] == 0.5
    assert metrics["train/accuracy"] == metrics["task/modsum/accuracy"] == 0.5
    assert (metrics["part/form"], metrics["part/x"]) == (0.5, 0.25)
    assert metrics["train/response_length"] == pytest.approx(2)
    assert (metrics["train/response_length_right"], metrics["train/response_length_wrong"]) == (2, 4)
    assert (metrics["train/surprisal_right"], metrics["train/surprisal_wrong"]) == (0.375, 0.625)
    assert metrics["train/truncated"] == pytest.approx(1 / 3)
    assert metrics["train/turns"] == 1
    assert metrics["train/lag"] == pytest.approx((2 * 2 + 4 * 1) / 6)  # a mean over tokens
    assert metrics["verify/errors"] == 1
    rows = sample_rows(7, "train", groups, TOKENIZER, rewards)
    assert [row["reward"] for row in rows] == [1.0, 0.5, None]
    assert [row["error"] for row in rows] == [None, None, "it died"]
    assert rows[0] | {"step": 7, "split": "train", "completion": "#3", "reference": "3", "answer": "3"} == rows[0]
    assert sample_rows(7, "heldout", groups, TOKENIZER)[0]["reward"] is None


def test_the_kept_text_of_several_turns_shows_what_the_policy_was_told():
    tokens = lambda text: np.array(encode(TOKENIZER, text), np.int32)  # noqa: E731
    spans = [Span("prompt", tokens("12=")), *(Span("policy", tokens("1")), Span("env", tokens(" no\n"))) * 2]
    turns = Episode(EXAMPLE, 0, (Sequence((*spans, spans[1])),), ("1", "2", "3"), "stop")
    (row,) = sample_rows(1, "train", grouped([Verdict(0.0)], [turns], 1), TOKENIZER)
    assert (row["completion"], row["turns"]) == ("1\n[[no]]\n2\n[[no]]\n3", 3)


def test_a_share_is_news_at_first_and_when_it_has_more_than_doubled():
    is_news = doubling()
    assert [is_news(x) for x in (0.0, 0.1, 0.1, 0.2, 0.21, 0.1, 0.42, 0.43)] == [0, 1, 0, 0, 1, 0, 0, 1]


def test_a_step_without_a_judgement_has_no_reward_and_no_accuracy_and_says_why(caplog):
    verdicts = (Verdict(0.0, error="it died\n\x1b[2Jhere"), Verdict(0.0, error="too late"))
    zeros = np.zeros(2, np.float32)
    rewards = Rewards(zeros, np.zeros(2, bool), {"score": zeros}, np.zeros(2, np.int32), verdicts)
    groups = grouped(verdicts, [said("#3")] * 2, 2)
    metrics = describe(groups, rewards, 0)
    assert not {name for name in metrics if "reward" in name or "accuracy" in name}
    assert metrics["verify/errors"] == 2
    assert metrics["task/modsum/response_length"] == 2
    warn_unjudged(4, rewards, doubling())
    assert "step 4: 2 of 2 samples could not be judged and are left out; the first: it died  [2Jhere" in caplog.text
