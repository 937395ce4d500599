"""The state that samples leave behind: pass rates, stages, the tracker of SPO and replayed groups, by hand; and runs
that go on with it to the bit."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.baselines import tracker_decay
from rlvr_jax.rollout.episode import Group
from rlvr_jax.rollout.replay import Outcome, drawn, stored
from rlvr_jax.tasks import Example
from rlvr_jax.tasks.curriculum import Chosen, Counts, CurriculumConfig
from rlvr_jax.training import history as histories
from rlvr_jax.training.history import (
    History,
    advanced,
    first_history,
    from_json,
    make_choice,
    to_json,
    warn_exhausted,
)
from rlvr_jax.training.loop import train
from rlvr_jax.training.record import doubling
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.training.test_loop import TINY, changed, equal, params_of, rows_of
from tests.training.test_queue import of_training

pytestmark = pytest.mark.usefixtures("one_device")

PROBLEMS = [(f"{a}{b}=", str((a + b) % 10), a % 2) for a in range(1, 5) for b in range(5)]


def parity(completion, reference):
    """A verifier whose scores differ among the samples of a policy that knows nothing."""
    return float((sum(map(ord, completion)) + int(reference)) % 2)


@pytest.fixture(scope="module")
def finite(tmp_path_factory):
    """A config whose task has twenty problems, of two levels, with a state that every step changes."""
    file = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    rows = [{"prompt": p, "reference": r, "hard": h} for p, r, h in PROBLEMS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = "tests.training.test_history:parity"
    task = TaskConfig(file=str(file), verifier=verifier, level="hard", heldout_share=0.3, alphabet="0123456789=#")
    return changed(
        replace(TINY, tasks={"sums": task}),
        reward=(("score", 1.0),),
        algorithm={"kl_coef": 0.0, "reference": "none"},
        training={"num_steps": 4},
        evaluation={"every": 9, "problems": 4, "pass_problems": 4},
    )


def test_a_filter_that_leaves_nothing_is_told_for_steps_of_the_run(caplog):
    is_news = doubling()
    for step in (2, 2, 3):
        warn_exhausted(changed(TINY, training={"num_steps": 2}), step, Chosen((), exhausted=1), is_news)
    (told,) = caplog.messages
    assert told.startswith("step 2: ")


def outcome(place, scores, step=1, rewards=None):
    """A group of samples with these scores, None for unjudged ones."""
    name, index = place
    example = Example(f"{name}/train/{index}", "1=", "1", name, level="x" if name == "leveled" else "")
    episodes = tuple(episode([1, 2], "#1", example=example) for _ in scores)
    verdicts = tuple(Verdict(0.0, error="it died") if x is None else Verdict(x) for x in scores)
    rewards = scores if rewards is None else rewards
    values = np.array([x or 0.0 for x in rewards], np.float32)
    return Outcome(place, Group(example, episodes, verdicts), values, np.array([x is not None for x in scores]), step)


def nothing(*_):
    raise AssertionError("no problems are to be chosen")


def test_rates_of_tasks_and_levels_are_of_judged_samples_and_forget():
    config = changed(TINY, curriculum=CurriculumConfig(decay=0.5), algorithm={"replay": 1})
    groups = [
        outcome(("plain", 3), [1, 0, None]),
        outcome(("leveled", 2), [1, 1]),
        outcome(("leveled", 4), [0.5, None]),
    ]
    history, metrics = advanced(config, nothing, History({"plain": Counts(4, 8)}), 1, groups)
    assert history.rates == {"plain": Counts(3, 5), "leveled": Counts(2, 1), "leveled/x": Counts(2, 1)}
    assert metrics == {}  # they choose no problems here
    assert history.replay == tuple(groups[:2])


def test_a_run_without_any_of_it_has_no_history():
    assert advanced(TINY, nothing, History(), 1, [outcome(("a", 0), [1, 0])]) == (History(), {})
    assert first_history(TINY, nothing) == History()


def test_a_stage_opens_when_all_tasks_of_the_one_before_pass_and_only_open_tasks_are_sampled():
    tasks = {name: TaskConfig(name="modsum", stage=stage) for name, stage in (("a", 0), ("b", 0), ("c", 2), ("d", 3))}
    config = replace(TINY, tasks=tasks, curriculum=CurriculumConfig(threshold=0.75, decay=0.0))
    config = changed(config, rollout={"max_prompt_length": 8}, policy={"max_length": 16})
    setup = make_setup(config)
    choice = make_choice(setup)
    names = lambda history, step: {name for name, _ in history.problems[step]}  # noqa: E731
    history = first_history(config, choice)
    assert names(history, 1) == {"a", "b"}
    history, metrics = advanced(config, choice, history, 1, [outcome(("a", 0), [1, 1, 1, 0])])
    assert (history.stage, names(history, 2), metrics["curriculum/stage"]) == (0, {"a", "b"}, 0)  # b was not seen
    history, metrics = advanced(config, choice, history, 2, [outcome(("b", 0), [1, 1, 1, 0])])
    assert (history.stage, metrics["curriculum/stage"]) == (2, 2)
    assert list(history.problems) == [3]
    assert names(history, 3) == {"a", "b", "c"}
    assert histories._stage(config, 2, {"c": Counts(3, 1)}) == 3
    assert histories._stage(config, 3, {"d": Counts(1, 0)}) == 3


def test_the_tracker_is_that_of_spo():
    rng, rho = np.random.default_rng(0), lambda d: np.clip(2 ** (-d / 0.06), 0.875, 0.96)
    algorithm = AlgorithmConfig(baseline="tracker")
    for drift in (0.0, 0.002, 0.005, 0.011, 0.3):
        assert tracker_decay(algorithm, drift) == pytest.approx(rho(drift), rel=1e-12)
    config, history = replace(TINY, algorithm=algorithm), History()
    alpha, beta = dict.fromkeys("012", 4.0), dict.fromkeys("012", 4.0)
    for step in range(1, 12):
        rewards, drifts = rng.random(3).astype(np.float32), rng.random(3) / 50
        groups = [outcome(("a", i), [0.0], step, [rewards[i]]) for i in range(3) if rng.random() < 0.7]
        places = {f"a/{x.place[1]}": drifts[x.place[1]] for x in groups}
        history, _ = advanced(config, nothing, history, step, groups, places)
        for key in (str(x.place[1]) for x in groups):
            r, decay = float(rewards[int(key)]), rho(drifts[int(key)])
            alpha[key], beta[key] = decay * alpha[key] + r, decay * beta[key] + 1 - r
    for key, counts in history.rates.items():
        if key != "a":
            np.testing.assert_allclose((counts.right, counts.wrong), (alpha[key[2:]], beta[key[2:]]), rtol=1e-6)
    assert len(history.rates) == 4
    assert set(history.last) == set(history.rates) - {"a"}


def test_the_buffer_is_bounded_and_drops_the_oldest_or_the_least():
    scores = [[0, 0], [1, 0], [1, 1], [0.5, 0], [1, 0], [0.5, 0.25]]
    groups = [outcome(("a", i), x, i) for i, x in enumerate(scores)]
    kept = lambda buffer: [x.step for x in buffer]  # noqa: E731
    assert kept(stored((), groups, 9, "newest")) == [1, 2, 4]
    assert kept(stored(stored((), groups[:3], 2, "newest"), groups[3:], 2, "newest")) == [2, 4]
    assert kept(stored((), groups, 9, "deviation")) == [1, 3, 4, 5]
    assert kept(stored((), groups, 2, "deviation")) == [1, 4]
    assert kept(stored(stored((), groups[:4], 3, "deviation"), groups[4:], 3, "deviation")) == [1, 3, 4]
    assert kept(stored((), groups, 1, "deviation")) == [4]  # of equal ones the older goes
    assert drawn((), 2, 0, 1) == []
    found = [kept(drawn(groups, 2, 0, step)) for step in range(200)]
    assert found[:3] == [kept(drawn(groups, 2, 0, step)) for step in range(3)]
    assert all(a < b for a, b in found)
    np.testing.assert_allclose(np.bincount(np.ravel(found)) / 200, 1 / 3, atol=0.1)


def test_a_history_is_read_back_as_it_was_written(finite):
    config = changed(finite, curriculum=CurriculumConfig(by="problem", sampling="towards_half"))
    setup = make_setup(config)
    example = setup.tasks["sums"].example("train", 3)
    group = replace(outcome(("sums", 3), [1, None]).group, example=example)
    group = replace(group, episodes=tuple(replace(x, example=example) for x in group.episodes))
    replayed = replace(outcome(("sums", 3), [1, None], 7), group=group)
    last = {"sums/3": replace(group, episodes=group.episodes[:1], verdicts=group.verdicts[:1])}
    history = History({"sums": Counts(1 / 3, 0.1)}, 2, {5: (("sums", 3), ("sums", 0))}, last, (replayed,))
    again = from_json(json.loads(json.dumps(to_json(history))), setup)
    assert (again.rates, again.stage, again.problems) == (history.rates, 2, history.problems)
    assert json.dumps(to_json(again)) == json.dumps(to_json(history))
    assert again.replay[0].group.example == again.last["sums/3"].example == example
    assert (again.replay[0].rewards.dtype, again.replay[0].judged.dtype) == (np.float32, bool)


def continued(config, workdir, tmp_path, step):
    """A copy of a run that has gone on from a step."""
    shutil.copytree(workdir, tmp_path)
    for later in range(step + 1, config.training.num_steps + 1):
        shutil.rmtree(tmp_path / "checkpoints" / str(later))
    with Pool(0) as pool:
        train(config, tmp_path, pool)
    assert of_training(tmp_path) == of_training(workdir)
    assert rows_of(tmp_path, "samples.jsonl") == rows_of(workdir, "samples.jsonl")
    assert equal(*(params_of(config, x, config.training.num_steps) for x in (tmp_path, workdir)))


def test_a_run_with_a_curriculum_and_replay_goes_on_to_the_bit_with_groups_in_flight(finite, tmp_path):
    config = changed(
        finite,
        curriculum=CurriculumConfig(by="problem", sampling="towards_half", low=0.0, high=0.9),
        algorithm={"replay": 2, "replay_order": "deviation", "replay_size": 3},
        training={"max_lag": 1},
    )
    with Pool(0) as pool:
        train(config, tmp_path / "whole", pool)
    rows = rows_of(tmp_path / "whole")[1:]
    assert [row["replay/groups"] for row in rows] == [0, 2, 2, 2]
    assert all(row["replay/age"] >= 1 for row in rows[1:])
    assert rows[0]["train/logprob_gap"] < 2e-5
    assert rows[2]["train/logprob_gap"] > 1e-4  # of older samples, whose log-probs are those of their own policy
    assert [row["curriculum/problems"] for row in rows] == sorted(row["curriculum/problems"] for row in rows)
    continued(config, tmp_path / "whole", tmp_path / "again", 2)


def test_a_run_with_tracked_problems_goes_on_to_the_bit(finite, tmp_path, monkeypatch):
    drifts, drift = [], histories.drift
    monkeypatch.setattr("rlvr_jax.training.loop.drift", lambda *x: drifts.append(drift(*x)) or drifts[-1])
    config = changed(
        finite,
        algorithm={"baseline": "tracker", "scale": "batch_whitening"},
        rollout={"group_size": 1},
        evaluation={"pass_samples": 1, "ks": (1,)},
        optimizer={"learning_rate": 0.03},
        training={"num_steps": 3},
    )
    with Pool(0) as pool:
        train(config, tmp_path / "whole", pool)
    assert (drifts[0], len(drifts[2]) >= 5) == ({}, True)
    assert all(0 < x < 1 for x in drifts[2].values())
    rows = rows_of(tmp_path / "whole")[1:]
    assert rows[0]["train/tracked_reward"] == 0.5 != rows[2]["train/tracked_reward"]
    continued(config, tmp_path / "whole", tmp_path / "again", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curriculum": CurriculumConfig(by="problem", sampling="towards_half")}, r"curriculum\.by .*tasks\.modsum"),
        ({"algorithm": {"baseline": "tracker", "scale": "none"}}, r"baseline = 'tracker' .*tasks\.modsum"),
    ],
)
def test_problems_that_never_come_again_have_no_rates(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_setup(changed(TINY, **changes))
