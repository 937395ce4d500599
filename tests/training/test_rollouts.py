"""Rollouts with further episodes: replaced groups, greedy responses, episodes from states in between."""

import dataclasses
import logging
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from rlvr_jax.envs import Done, Env, Say
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner import presets
from rlvr_jax.rollout.streams import fold_in, stream_of
from rlvr_jax.tasks import modsum
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.training.loop import train
from rlvr_jax.training.record import describe
from rlvr_jax.training.rollouts import Rollouts
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.rollout.scripted import Scripted
from tests.training.test_loop import QUIET, TINY, changed, equal, params_of, rows_of

pytestmark = pytest.mark.usefixtures("one_device")

PROMPTS, SIZE = TINY.rollout.prompts, 2
SCORES = changed(
    TINY, rollout={"group_size": SIZE}, algorithm={"kl_coef": 0.0, "reference": "none"}, reward=(("score", 1.0),)
)


def rollouts_of(score, said=lambda *_: "#1", **algorithm):
    setup = make_setup(changed(SCORES, algorithm=algorithm))
    collector = Scripted(setup.tokenizer, score, said)
    rollouts = Rollouts(setup, collector, partial(fold_in, stream_of(jax.random.key(3))))
    rollouts.start(5)
    return rollouts, collector


def mixed_where(condition):
    """Groups for which the condition holds have rewards 0 and 1, the others 0."""
    return lambda name, g, i: float(condition(name, g) and i == 0)


DAPO = {"keep": "mixed_groups", "max_draws": 4}


def test_groups_without_a_signal_are_replaced_by_those_of_further_draws_in_order():
    signal = mixed_where(lambda name, g: g % 3 == 0 if name == "5" else g < 4)
    rollouts, collector = rollouts_of(signal, **DAPO)
    rollout = rollouts.take(5)
    assert list(collector.calls) == ["5", "5 draw 1", "5 draw 2"]
    drawn = [collector.calls[name][0] for name in collector.calls]
    expected = [drawn[0][g] for g in (0, 3, 6)] + drawn[1][:4] + drawn[2][:1]
    assert [group.example.id for group in rollout.groups] == [example.id for example in expected]
    assert rollout.rewards.values.tolist() == [1.0, 0.0] * PROMPTS
    assert rollout.rewards.group.tolist() == np.repeat(np.arange(PROMPTS), SIZE).tolist()
    assert len({str([example.id for example in examples]) for examples in drawn}) == 3
    assert len({str(collector.calls[name][2]) for name in collector.calls}) == 3
    assert rollout.metrics["rollout/draws"] == 3
    assert rollout.metrics["train/unfiltered_accuracy"] == pytest.approx((3 + 4 + 4) / (3 * PROMPTS * SIZE))
    assert rollout.metrics["train/unfiltered_reward"] == rollout.metrics["train/unfiltered_accuracy"]
    assert rollout.metrics["train/zero_signal_groups"] == pytest.approx(1 - 11 / 24)


def test_the_draws_are_bounded_and_the_step_goes_on_with_what_there_is(caplog):
    rollouts, collector = rollouts_of(mixed_where(lambda _, g: g == 1), **DAPO)
    with caplog.at_level(logging.WARNING):
        rollout = rollouts.take(5)
    assert (len(collector.calls), len(rollout.groups)) == (4, 4)
    assert f"step 5: 4 of {PROMPTS} groups have a signal after 4 draws" in caplog.text
    rollouts, collector = rollouts_of(lambda *_: 0.0, **DAPO)
    rollout = rollouts.take(5)
    assert [group.example for group in rollout.groups] == list(collector.calls["5"][0])


def test_one_draw_is_enough_for_groups_with_a_signal_and_without_the_option():
    for signal, draws in ((mixed_where(lambda *_: True), 4), (mixed_where(lambda _, g: g == 0), 1)):
        rollouts, collector = rollouts_of(signal, **DAPO | {"max_draws": draws})
        assert (len(rollouts.take(5).groups), list(collector.calls)) == (PROMPTS, ["5"])


def test_a_greedy_response_to_each_prompt_is_sampled_once_and_is_the_baseline_of_its_group():
    score = lambda name, g, i: (None if g == 2 else float(g % 2)) if "greedy" in name else float(i)  # noqa: E731
    rollouts, collector = rollouts_of(score, baseline="greedy", scale="none")
    rollout = rollouts.take(5)
    examples, size, key, temperature, _ = collector.calls["5 greedy"]
    assert (size, temperature) == (1, 0.0)
    assert (examples, key != collector.calls["5"][2]) == (collector.calls["5"][0], True)
    assert rollout.expected.tolist() == np.repeat([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], SIZE).tolist()
    assert rollout.rewards.judged.tolist() == [True] * 4 + [False] * 2 + [True] * 10
    assert {x.error for x in rollout.rewards.verdicts} == {None, "greedy response: it died"}
    assert rollout.metrics == {"train/greedy_reward": pytest.approx(4 / 7)}
    assert [group.example for group in rollout.groups] == list(examples)


VALUES = {"": 0.25, "12": 0.5, "13": None, "1234": 0.75}


def test_steps_are_compared_by_the_mean_rewards_of_episodes_from_the_states_between():
    """Two groups have samples of their own; the states of equal beginnings are sampled from once."""
    texts = {(0, 0): "12345", (0, 1): "1245", (1, 0): "1", (1, 1): "1345"}
    said = lambda name, g, i: texts.get((g, i), "7") if name == "5" else "#1"  # noqa: E731

    def score(name, g, i):
        if name == "5":
            return None if (g, i) == (2, 0) else 1.0
        value = VALUES[text_of(begun[g])] if g in of_two else 1.0
        return None if value is None else value + (0.25 if i == 0 else -0.25 / 3)

    rollouts, collector = rollouts_of(
        score, said, baseline="monte_carlo", scale="none", step_length=2, state_samples=4, max_states=9
    )
    begun, of_two = [], []
    text_of = lambda tokens: "".join(t for t in rollouts._setup.tokenizer.convert_ids_to_tokens(tokens.tolist()))  # noqa: E731
    start = collector.start

    def watched(name, examples, *rest):
        start(name, examples, *rest)
        begun[:] = rest[-1]
        first_two = [example.id for example in collector.calls["5"][0][:2]]
        of_two[:] = [g for g, example in enumerate(examples) if example.id in first_two]

    collector.start = watched
    rollout = rollouts.take(5)
    states = [text_of(begun[g]) for g in of_two]
    assert states == ["", "12", "1234", "", "13"]
    assert collector.calls["5 states"][1] == 4
    assert rollout.metrics["rollout/states"] == 5 + PROMPTS - 2
    np.testing.assert_allclose(rollout.steps[0], [0.25, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(rollout.steps[1], [0.25, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(rollout.steps[2], [0.75])
    np.testing.assert_allclose(
        rollout.steps[3], [0, 0, 0.75, 0.75]
    )  # the state between has the value of the one before
    assert not rollout.steps[4].any()  # unjudged


@pytest.mark.parametrize(
    ("algorithm", "numbers"),
    [
        ({"keep": "all", "max_draws": 3}, "max_draws = 3"),
        ({"keep": "mixed_groups", "max_draws": 0}, "max_draws"),
        ({"baseline": "greedy", "scale": "group_std"}, "scale = 'group_std'"),
        ({"baseline": "greedy", "scale": "none", "keep": "mixed_groups", "max_draws": 2}, "max_draws"),
        ({"baseline": "monte_carlo", "scale": "group_std"}, "scale = 'group_std'"),
        ({"baseline": "monte_carlo", "scale": "none", "step_delimiter": ""}, "step_delimiter"),
        ({"baseline": "monte_carlo", "scale": "none", "shuffle_rewards": True}, "shuffle_rewards"),
        ({"baseline": "monte_carlo", "scale": "none", "gamma": 0.9}, r"gamma = 0\.9"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(algorithm, numbers):
    with pytest.raises(ConfigError, match=rf"config\.algorithm.*{numbers}"):
        make_setup(changed(SCORES, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", [{"baseline": "greedy"}, {"baseline": "monte_carlo", "step_length": 2}, DAPO])
def test_without_a_judgement_there_is_no_mean_of_further_episodes(algorithm):
    rollouts, _ = rollouts_of(lambda *_: None, **{"scale": "none"} | algorithm)
    metrics = rollouts.take(5).metrics
    assert not {name for name in metrics if name.endswith(("_reward", "_accuracy", "_value"))}


def doubtful():
    return Env(lambda example: (0, example.prompt), lambda state, _: (1, Done() if state else Say("sure?")))


def test_states_and_demonstrations_are_for_tasks_that_have_them():
    tasks = {"modsum": dataclasses.replace(SCORES.tasks["modsum"], environment=f"{__name__}:doubtful")}
    for algorithm in ({"baseline": "monte_carlo", "scale": "none"}, {"demonstrations": 1}):
        with pytest.raises(ConfigError, match=r"config\.algorithm\.\w+ = .*config\.tasks\.modsum\.environment"):
            make_setup(changed(dataclasses.replace(SCORES, tasks=tasks), algorithm=algorithm))
    tasks = {"modsum": dataclasses.replace(SCORES.tasks["modsum"], name=f"{__name__}:silent")}
    with pytest.raises(ConfigError, match=r"config\.algorithm\.demonstrations = 1.*config\.tasks\.modsum"):
        make_setup(changed(dataclasses.replace(SCORES, tasks=tasks), algorithm={"demonstrations": 1}))


def silent(**options):
    return dataclasses.replace(modsum(**options), demonstration=None)


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.mark.parametrize("name", ["dapo", "remax", "vine_ppo", "luffy"])
def test_a_run_with_further_episodes_is_continued_to_the_bit_with_a_lag(pool, name, tmp_path):
    choices = {
        "dapo": {"length_buffer": 2, "max_draws": 2},
        "vine_ppo": {"step_length": 2, "state_samples": 2},
    }.get(name, {})
    config = changed(
        SCORES, training={"num_steps": 2, "max_lag": 1}, evaluation=QUIET | {"pass_samples": SIZE, "ks": (1, SIZE)}
    )
    config = dataclasses.replace(config, algorithm=presets.preset(name, **choices))
    train(config, tmp_path / "whole", pool)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "2")
    train(config, tmp_path / "cut", pool)
    assert equal(*(params_of(config, tmp_path / run, 2) for run in ("whole", "cut")))
    row = rows_of(tmp_path / "cut")[-1]
    of_method = {"dapo": "rollout/draws", "remax": "train/greedy_reward", "vine_ppo": "rollout/states"}
    assert [key for key in of_method.values() if key in row] == [
        key for method, key in of_method.items() if method == name
    ]


def test_demonstrations_take_the_place_of_samples_and_are_judged():
    setup = make_setup(changed(SCORES, rollout={"group_size": 3}, algorithm={"demonstrations": 1}))
    collector = Scripted(setup.tokenizer, lambda *_: 0.0)
    collector.judge = lambda episodes: [Verdict(1.0, answer=episode.text) for episode in episodes]
    rollouts = Rollouts(setup, collector, lambda step: stream_of(jax.random.key(step)))
    rollouts.start(1)
    rollout = rollouts.take(1)
    assert collector.calls["1"][1] == 2
    assert rollout.rewards.values.tolist() == [0.0, 0.0, 1.0] * PROMPTS
    for group in rollout.groups:
        shown, (window,) = group.episodes[2], group.episodes[2].sequences
        assert [episode.is_demonstration for episode in group.episodes] == [False, False, True]
        assert (shown.finish_reason, group.verdicts[2].answer) == ("stop", shown.text)
        assert window.response.tolist() == [*encode(setup.tokenizer, shown.text), setup.end_token]
        assert window.action_mask.all()
    assert len({group.episodes[2].text for group in rollout.groups}) > 1
    row = describe(rollout.groups, rollout.rewards, 0)
    assert (row["train/reward"], row["train/response_length"], row["task/modsum/accuracy"]) == (0.0, 2.0, 0.0)


def test_a_demonstration_beyond_the_response_budget_is_cut_off():
    setup = make_setup(changed(SCORES, rollout={"max_response_length": 1}, algorithm={"demonstrations": 1}))
    collector = Scripted(setup.tokenizer, lambda *_: 0.0)
    collector.judge = lambda episodes: [Verdict(0.0)] * len(episodes)
    rollouts = Rollouts(setup, collector, lambda step: stream_of(jax.random.key(step)))
    rollouts.start(1)
    shown = rollouts.take(1).groups[0].episodes[1]
    assert (shown.finish_reason, shown.length) == ("length", 1)
