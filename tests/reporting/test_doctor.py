"""Each suggestion of the report appears for curves that call for it, and for no others."""

import dataclasses
import json

import pytest

from rlvr_jax.config import Config, flatten
from rlvr_jax.reporting import doctor
from rlvr_jax.reporting.doctor import findings
from rlvr_jax.reporting.report import write_report

CONFIG = {"rollout": {"prompts": 4, "group_size": 4}}
HEALTHY = {
    "train/accuracy": 0.5,
    "train/zero_signal_groups": 0.3,
    "train/entropy": 0.6,
    "train/clip_fraction": 0.02,
    "train/logprob_gap": 1e-5,
    "train/lag": 0.0,
    "train/truncated": 0.1,
    "train/response_length": 20.0,
    "train/skipped_steps": 0,
    "train/kl": 0.01,
    "verify/errors": 0,
}


def curve(first=None, last=None, steps=12):
    """Rows with one set of metrics in the first half and another in the second."""
    halves = [HEALTHY | (first or {})] * (steps // 2) + [HEALTHY | (last or {})] * (steps - steps // 2)
    rows = [{"step": step} | metrics for step, metrics in enumerate(halves, start=1)]
    return [{"step": 0, "eval/greedy_accuracy": 0.5}, *rows]


SILENT = {"train/zero_signal_groups": 0.95}


def evaluated(before, after):
    rows = curve()
    for row, value in ((rows[0], before), (rows[-1], after)):
        row |= {
            "eval/greedy_accuracy": value,
            "eval/greedy_accuracy_low": value - 0.1,
            "eval/greedy_accuracy_high": value + 0.1,
        }
    return rows


def test_healthy_short_and_empty_curves_have_no_findings():
    for rows in (curve(), curve(steps=2)[:2], [], [{"step": 1, "sft/loss": 1.0}], evaluated(0.4, 0.3)):
        assert findings(rows, CONFIG) == []


def test_a_tool_without_a_known_share_of_successes_is_no_finding():
    assert findings(curve(last={"tool/python/success": None}), CONFIG) == []


@pytest.mark.parametrize("baseline", ["value", "none", "batch_mean"])
def test_groups_of_equal_rewards_are_no_trouble_for_a_baseline_that_is_not_of_groups(baseline):
    assert findings(curve(last=SILENT), CONFIG | {"algorithm": {"baseline": baseline}}) == []


@pytest.mark.parametrize(
    ("rows", "title", "key", "number"),
    [
        (curve(last={"train/skipped_steps": 3}), "updates were skipped", "optimizer.learning_rate", "3"),
        (curve(last={"verify/errors": 8}), "unjudged samples", "verifier.timeout", "48 of 192"),
        (curve({"tool/open/success": 0.5}, {"tool/open/success": 0.0, "tool/python/success": 0.0}),
         "a tool never works", "tasks", "Every call of python failed"),
        (curve({"tool/open/success": 0.1, "tool/open/calls": 0.1}, {"tool/open/success": 0.0, "tool/open/calls": 2.0}),
         "a tool hardly ever works", "tasks", "99.5% of the calls of open failed"),
        (curve(last={"train/truncated": 0.8, "train/finish/turns": 0.7, "train/accuracy": 0.2}),
         "responses at the limit", "rollout.max_turns", "80%"),
        (curve(last=SILENT | {"train/accuracy": 0.01}), "no signal: too hard", "tasks", "95%"),
        (curve(last=SILENT | {"train/accuracy": 0.99}), "no signal: too easy", "tasks", "0.99"),
        (curve(last=SILENT), "no signal: samples alike", "rollout.temperature", "95%"),
        (curve(last={"train/entropy": 0.01}), "entropy collapsed", "algorithm.clip_high", "0.010"),
        (curve(last={"train/clip_fraction": 0.4}), "many ratios are clipped", "algorithm.minibatches", "40%"),
        (curve(last={"train/logprob_gap": 2.0}), "sampler and trainer disagree", "policy.dtype", "2.00"),
        (curve(last={"train/truncated": 0.8, "train/accuracy": 0.2}),
         "responses at the limit", "rollout.max_response_length", "80%"),
        (curve(last={"critic/explained_variance": -0.5}), "the critic does not help", "critic.warmup_steps", "-50%"),
        (curve(last={"train/kl": 2.0}), "far from the reference", "algorithm.kl_coef", "2.00"),
        (curve(last={"train/response_length": 200.0}), "longer, but not better", "reward", "20 to 200 tokens"),
        (curve({"train/reward": 0.5}, {"train/reward": 0.9, "train/accuracy": 0.1}, 20),
         "reward and accuracy part", "reward", "risen by 0.40 and accuracy has fallen by 0.40"),
        (curve({"train/reward": 0.5, "train/score": 0.7}, {"train/reward": 0.9, "train/score": 0.6}, 20),
         "reward and the verifier's score part", "reward", "risen by 0.40 and the verifier's score has fallen by 0.10"),
        (curve({"task/a/reward": 0.5, "task/a/accuracy": 0.5, "task/b/accuracy": 0.1},
               {"task/a/reward": 0.9, "task/a/accuracy": 0.3, "task/b/accuracy": 0.9}, 20),
         "reward and accuracy of a part", "reward", "accuracy of a was best, at 0.50"),
        (curve({"part/hack/early_exit": 0.01, "part/hack/any": 0.01}, {"part/hack/early_exit": 0.3}),
         "programs aim at their tests", "reward", "early_exit in 30%"),
        (curve({"part/visible": 0.5, "part/hidden": 0.4}, {"part/visible": 0.9, "part/hidden": 0.3}),
         "visible and hidden tests part", "reward", "30%"),
        (evaluated(0.8, 0.3), "worse on held-out problems", "optimizer.learning_rate", "0.300"),
    ],
)  # fmt: skip
def test_each_trouble_is_named_with_its_numbers_and_keys(rows, title, key, number):
    (found,) = findings(rows, CONFIG)
    assert (found.title, key in found.keys) == (title, True)
    assert number in found.text


def test_the_report_shows_what_the_curves_suggest(tmp_path):
    for rows, shown in ((curve(last=SILENT), True), (curve(), False)):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        page = write_report(tmp_path).read_text()
        assert ("No signal: samples alike" in page) is shown
        assert ("<code>config.rollout.temperature</code>" in page) is shown


def test_a_failing_tool_is_named_with_the_first_logged_error():
    rows = curve(last={"tool/add/success": 0.0})
    samples = [
        {"calls": None},
        {"calls": [{"tool": "other", "error": "a"}, {"tool": "add", "error": "b (t.py, line 2)"}]},
    ]
    assert "b (t.py, line 2)" in findings(rows, CONFIG, samples)[0].text


def test_an_untrained_policy_that_rambles_is_no_trouble_yet():
    rows = curve({"train/truncated": 0.9, "train/accuracy": 0.0}, {"train/truncated": 0.9, "train/accuracy": 0.0}, 8)
    assert findings(rows, CONFIG) == []


def test_samples_that_are_cut_off_by_design_and_right_as_often_are_no_trouble():
    assert findings(curve(last={"train/truncated": 0.99, "train/accuracy": 0.27}), CONFIG) == []
    assert findings(curve(last={"train/truncated": 0.99, "train/accuracy": 0.01}), CONFIG) != []


def test_a_gap_of_stale_samples_and_a_low_entropy_of_a_solved_task_are_no_trouble():
    assert findings(curve(last={"train/logprob_gap": 2.0, "train/lag": 1.0}), CONFIG) == []
    assert findings(curve(last={"train/entropy": 0.0, "train/accuracy": 1.0}), CONFIG) == []


def test_every_key_that_a_finding_names_is_in_the_config():
    known = flatten(dataclasses.asdict(Config()))
    groups = {key.split(".")[0] for key in known}
    source = doctor.__loader__.get_source(doctor.__name__)
    named = [
        word for word in source.replace("\n", " ").split('"') if word.count(".") == 1 and word.split(".")[0] in groups
    ]
    assert len(named) > 12
    assert [key for key in named if key not in known] == []
