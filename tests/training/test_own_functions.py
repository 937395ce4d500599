"""Advantages, losses and data sets of a user's own: what is wrong is named before the run, or ends it with one line."""

import dataclasses

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError, FunctionError
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import QUIET, TINY, changed, rows_of

pytestmark = pytest.mark.usefixtures("one_device")

OWN = """
import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from rlvr_jax.envs import Done, Env
from rlvr_jax.learner.losses import Loss, Sums, policy_gradient
from rlvr_jax.tasks import Example, Task, modsum

calls = itertools.count(1)

def plain(rewards, groups, judged):
    return rewards

def careless(rewards, groups, judged):
    rewards -= 100
    groups[:], judged[:] = 0, True
    return rewards

def late(rewards, groups, judged):
    return rewards * np.nan if next(calls) > 2 else rewards

def short(rewards, groups, judged):
    return rewards[:1]

def leaves(*_):
    raise SystemExit(0)

def hangs(rewards, groups, judged):
    while True:
        len(rewards)

def of_sums(make):
    def loss(config, algorithm, temperature, max_length):
        whole = policy_gradient(config, algorithm, temperature, max_length)
        return Loss(lambda params, batch: make(whole.sums(params, batch)), whole.needs)
    return loss

bare = of_sums(lambda sums: Sums(sums.loss, sums.weight, {}, {}))
number = of_sums(lambda sums: sums.loss)
vector = of_sums(lambda sums: sums.replace(loss=jnp.ones(3) * sums.loss))

def values(*arguments):
    return dataclasses.replace(policy_gradient(*arguments), needs=("advantages", "values"))

def deaf(*arguments):
    return Loss(lambda params: 0)

def sums_of(reference="0", bad=-1):
    def example(split, index):
        if index == bad:
            raise KeyError("torn row")
        return Example(f"sums/{split}/{index}", f"{index}=", eval(reference), "sums")
    return Task("sums", "modsum", example, lambda _: 4, alphabet="0123456789=#")

def lucky():
    return Env(lambda example: (None, example.prompt), lambda state, _: (state, Done({"luck": 1.0})), parts=("luck",))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "mine.py"
    file.write_text(OWN)
    return str(file)


def config_of(own, **algorithm):
    algorithm = {name: f"{own}:{function}" for name, function in algorithm.items()}
    return changed(TINY, algorithm={"kl_coef": 0.0, "reference": "none", **algorithm}, evaluation=QUIET)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("advantage", "short", r"mine\.py, line \d+: .*1 numbers.* for 5 rewards"),
        ("advantage", "leaves", r"mine\.py, line \d+: .*SystemExit: 0"),
        ("advantage", "hangs", r"mine\.py, line \d+: .*TimeoutError: it took longer than 0\.2 s"),
        ("loss", "leaves", r"mine\.py, line \d+: .*SystemExit: 0"),
        ("loss", "values", r"needs the columns values; there are advantages, behaviour"),
        ("loss", "deaf", r"mine\.py, line \d+: TypeError: .*takes 1 positional argument"),
        ("loss", "number", r"mine\.py, line \d+: its sums are .*, not .*Sums"),
        ("loss", "vector", r"mine\.py, line \d+: its sums have the shapes .*\(3,\)"),
    ],
)
def test_a_function_that_can_not_be_used_is_named_before_anything_is_compiled(own, kind, name, message):
    with pytest.raises(ConfigError, match=rf"config\.algorithm\.{kind} = '{own}:{name}': .*{message}"):
        make_setup(changed(config_of(own, **{kind: name}), verifier={"timeout": 0.2}))


def test_an_advantage_that_is_not_finite_in_a_later_step_ends_the_run_with_its_line(own, tmp_path):
    with Pool(0) as pool, pytest.raises(FunctionError, match=r"mine\.py, line \d+: .*32 of them not finite"):
        train(config_of(own, advantage="late"), tmp_path, pool)
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1]


def test_groups_of_one_a_loss_without_metrics_and_an_advantage_that_changes_its_arguments(own, tmp_path):
    config = changed(config_of(own, advantage="careless", loss="bare"), rollout={"group_size": 1})
    with Pool(0) as pool:
        train(config, tmp_path, pool)
    rows = rows_of(tmp_path)[1:]
    assert all(0 < row["train/reward"] < 10 and row["train/grad_norm"] > 0 for row in rows)
    assert not {"train/logprob_gap", "train/entropy"} & rows[0].keys()
    with pytest.raises(ConfigError, match=r"rollout\.group_size is 1"):
        make_setup(changed(config, algorithm={"advantage": "baseline"}))


def test_a_step_may_be_without_the_task_that_has_a_part_of_the_reward(own, tmp_path):
    config = config_of(own)
    modsum = TINY.tasks["modsum"]
    lucky = dataclasses.replace(modsum, name="modsum", environment=f"{own}:lucky", weight=0.08)
    config = changed(
        dataclasses.replace(config, tasks={"modsum": modsum, "lucky": lucky}, reward=(("score", 1.0), ("luck", 1.0))),
        training={"num_steps": 3},
    )
    with Pool(0) as pool:
        train(config, tmp_path, pool)
    luck = [row["train/reward_luck"] for row in rows_of(tmp_path)[1:]]
    assert min(luck) == 0 < max(luck)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "{1}"}, "the reference of sums/train/0 must be plain JSON data: .*set"),
        ({"bad": 2}, r"sums/train/2: .*mine\.py, line \d+: KeyError: 'torn row'"),
    ],
)
def test_a_problem_that_can_not_be_made_is_named(own, options, message):
    task = TaskConfig(name=f"{own}:sums_of", options=options)
    with pytest.raises(ConfigError, match=rf"^config\.tasks\.sums: {message}"):
        make_setup(dataclasses.replace(TINY, tasks={"sums": task}))
