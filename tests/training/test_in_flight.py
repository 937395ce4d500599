"""Episodes that go on over updates: the policies of their tokens, and runs that continue to the bit."""

import dataclasses
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.policy import logits
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.training import checkpoints
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.training import counting
from tests.training.test_loop import TINY, changed, equal, params_of, rows_of
from tests.training.test_queue import go_on, of_training

pytestmark = pytest.mark.usefixtures("one_device")

STEPS = 4
TASK = TaskConfig(
    name=f"{counting.HERE}:numbers", environment=f"{counting.HERE}:asking", environment_options={"ends": "1"}
)
GOES_ON = changed(
    dataclasses.replace(TINY, tasks={"n": TASK}),
    policy={"max_length": 20},
    rollout={
        "max_prompt_length": 8,
        "max_response_length": 12,
        "max_turn_length": 6,
        "slots": 8,
        "chunk": 2,
        "patience": 3,
    },
    training={"num_steps": STEPS, "max_lag": 1},
    reward=(("score", 1.0),),
    algorithm={"kl_coef": 0.0, "reference": "none", "proximal": "recompute", "correction": "token_tis"},
    optimizer={"learning_rate": 0.03},
    evaluation={"pass_problems": 0, "every": 3, "problems": 2},
)
CONFIGS = {mode: changed(GOES_ON, rollout={"in_flight": mode}) for mode in ("recompute", "keep")}


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def runs(pool, tmp_path_factory):
    """By mode the workdir of a run, the groups of each step, and the calls of tools."""
    found, take = {}, Collector.take_first
    for mode, config in CONFIGS.items():
        counting.CALLS.clear()
        workdir, groups = tmp_path_factory.mktemp(mode), []
        with pytest.MonkeyPatch.context() as patch:
            recorded = lambda *a, groups=groups: groups.append(take(*a)) or groups[-1]  # noqa: E731
            patch.setattr(Collector, "take_first", recorded)
            train(config, workdir, pool)
        found[mode] = workdir, groups, Counter(counting.CALLS)
    return found


def spans_of(groups):
    """(step, window, span) of what the policy sampled."""
    for step, taken in enumerate(groups, 1):
        for _, _, group in taken:
            for window in (window for episode in group.episodes for window in episode.sequences):
                yield from ((step, window, span) for span in window.spans if span.author == "policy")


@pytest.mark.parametrize("mode", CONFIGS)
def test_every_group_is_trained_on_once_and_no_step_waits_for_those_that_it_started(runs, mode):
    workdir, groups, _ = runs[mode]
    taken = [(name, number) for step in groups for name, number, _ in step]
    assert sorted(taken) == [(str(step), number) for step in range(1, STEPS + 1) for number in range(8)]
    assert any(int(name) > step for step, part in enumerate(groups, 1) for name, *_ in part)
    spans = list(spans_of(groups))
    assert any(span.earlier for _, _, span in spans)
    for step, row in enumerate(rows_of(workdir)[1:], 1):
        ages = [(n, step - 1 - version) for at, _, x in spans if at == step for n, version in x.versions]
        assert row["train/lag"] == pytest.approx(sum(n * age for n, age in ages) / sum(n for n, _ in ages))
        assert row["train/max_lag"] == max(age for _, age in ages)


def test_each_token_has_the_logprob_of_the_policy_that_sampled_it(runs):
    """With "recompute": of that policy given the whole context, whatever sampled the tokens before."""
    workdir, groups, _ = runs["recompute"]
    policy = make_setup(CONFIGS["recompute"]).policy
    versions = {step: params_of(CONFIGS["recompute"], workdir, step) for step in range(STEPS)}
    score = jax.jit(lambda params, tokens: jax.nn.log_softmax(logits(policy, params, tokens[None])[0]))
    updated = [(window, span) for _, window, span in spans_of(groups) if span.earlier][:6]
    assert updated
    for window, span in updated:
        tokens = np.concatenate([x.tokens for x in window.spans])
        before = itertools.takewhile(lambda x, span=span: x is not span, window.spans)
        start = sum(len(x.tokens) for x in before)
        padded = np.pad(tokens, (0, 20 - len(tokens)))
        place = start + np.arange(len(span.tokens))
        of = np.repeat([version for _, version in span.versions], [n for n, _ in span.versions])
        expected = [score(versions[v], padded)[i - 1, tokens[i]] for v, i in zip(of.tolist(), place, strict=True)]
        np.testing.assert_allclose(span.logprobs, expected, atol=2e-5)


@pytest.mark.parametrize("mode", CONFIGS)
def test_a_run_that_is_continued_with_episodes_in_flight_ends_with_the_same_bits(runs, mode, pool, tmp_path):
    config, (whole, _, calls) = CONFIGS[mode], runs[mode]
    with checkpoints.open_manager(whole, keep=9) as manager:
        host = checkpoints.restore_host(manager, 2)["in_flight"]
    logs = [log for _, log in host["episodes"]]
    assert any(log["verdict"] is None for log in logs)  # unfinished
    assert sum(len(log["results"]) for log in logs) > 0
    assert ("in_flight" in {x.name for x in (whole / "checkpoints" / "2").iterdir()}) == (mode == "keep")
    counting.CALLS.clear()
    go_on(config, whole, tmp_path / "again", pool, 2)
    assert of_training(tmp_path / "again") == of_training(whole)
    assert rows_of(tmp_path / "again", "samples.jsonl") == rows_of(whole, "samples.jsonl")
    assert equal(params_of(config, tmp_path / "again", STEPS), params_of(config, whole, STEPS))
    assert Counter(counting.CALLS) < calls
