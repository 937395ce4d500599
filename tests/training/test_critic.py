"""Runs with a critic: what they log, keep and continue; and runs whose reference policy or KL coefficient moves."""

import contextlib
import itertools
import shutil
import signal

import jax
import numpy as np
import pytest

from rlvr_jax import parallel
from rlvr_jax.errors import CheckpointError, ConfigError, PreemptedError
from rlvr_jax.learner.critic import CriticConfig
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.learner.step import Learner
from rlvr_jax.policy import LoraConfig
from rlvr_jax.training import checkpoints, functions, preemption
from rlvr_jax.training.loop import train
from rlvr_jax.training.networks import make_optimizers, network_shapes, state_shapes
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.programs import programs
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.start import start
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import MESH, QUIET, TINY, changed, equal, params_of, rows_of

pytestmark = pytest.mark.usefixtures("one_device")

PPO = changed(
    TINY,
    algorithm={
        "baseline": "value",
        "scale": "token_whitening",
        "gae_lambda": 0.95,
        "kl_coef": 0.0,
        "kl_reward_coef": 0.05,
        "kl_reward_target": 0.01,
        "entropy": "adaptive",
        "entropy_coef": 0.01,
        "entropy_target": 9.0,
        "kl_reward_horizon": 320,
        "reference_every": 2,
        "minibatches": 2,
        "epochs": 2,
    },
    critic=CriticConfig(clip=9.0, warmup_steps=1, optimizer=OptimizerConfig(learning_rate=2e-2, microbatches=2)),
    training={"num_steps": 3},
    evaluation=QUIET,
)
CRITICS = {"critic/loss", "critic/clip_fraction", "critic/grad_norm", "critic/value", "critic/return"}
CRITICS |= {"critic/explained_variance"}


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def whole(pool, tmp_path_factory):
    """The workdir of a run of `PPO`."""
    workdir = tmp_path_factory.mktemp("whole")
    train(PPO, workdir, pool)
    return workdir


def saved(config, workdir, step):
    """All that a checkpoint holds, on the host."""
    setup = make_setup(config)
    shapes = {
        name: state_shapes(optimizer, network_shapes(setup.policy, setup.mesh, name), setup.mesh)
        for name, optimizer in make_optimizers(config).items()
    }
    one = shapes["policy"].updates
    others = {
        "reference": shapes["policy"].params,
        "kl_coef": {"value": jax.ShapeDtypeStruct((), np.float32, sharding=one.sharding)},
    }
    others["entropy_coef"] = dict.fromkeys(("value", "entropy"), others["kl_coef"]["value"])
    with checkpoints.open_manager(workdir, keep=9) as manager:
        return jax.tree.map(np.asarray, checkpoints.restore(manager, Learner(shapes, others), step))


@pytest.fixture(scope="module")
def states(whole):
    """All that the checkpoints of the run hold, by step."""
    return [saved(PPO, whole, step) for step in range(4)]


def begin(config, workdir):
    """Saves the state before the first step."""
    ready, key = make_setup(config), jax.random.wrap_key_data(np.array([0, config.seed], np.uint32))
    with parallel.use_mesh(ready.mesh), checkpoints.open_manager(workdir) as manager:
        start(ready, make_optimizers(config), manager, key, needs_reference=True)


def of_training(workdir):
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "eval/"))} for row in rows_of(workdir)[1:]]


def test_in_the_warm_up_only_the_critic_is_trained_and_then_both_as_often_as_there_are_epochs(whole, states):
    assert [int(x.states["policy"].updates) for x in states] == [0, 0, 4, 8]
    assert [int(x.states["critic"].updates) for x in states] == [0, 4, 8, 12]
    moved = [not equal(a.policy.params, b.policy.params) for a, b in itertools.pairwise(states)]
    assert moved == [False, True, True]
    assert all(not equal(a.states["critic"].params, b.states["critic"].params) for a, b in itertools.pairwise(states))
    _, first, *rest = rows_of(whole)
    assert first.keys() >= CRITICS
    assert "train/loss" not in first
    assert all(row.keys() >= CRITICS | {"train/loss", "train/kl_episode"} for row in rest)
    assert first["critic/value"] == 0  # of a new head
    assert first["train/kl_episode"] == pytest.approx(0, abs=1e-4)  # the reference is the policy


def test_the_critic_learns_the_returns(whole):
    first, *_, last = rows_of(whole)[1:]
    assert abs(last["critic/value"] - last["critic/return"]) < 0.75 * abs(first["critic/return"])
    assert last["critic/loss"] < 0.6 * first["critic/loss"]


def test_the_reference_is_replaced_by_the_policy_and_the_coefficient_follows_the_divergence(whole, states):
    rows = rows_of(whole)[1:]
    assert equal(states[1].others["reference"], states[0].policy.params)
    for step in (2, 3):
        assert equal(states[step].others["reference"], states[2].policy.params)
    coefs = [float(x.others["kl_coef"]["value"]) for x in states]
    assert [row["train/kl_reward_coef"] for row in rows] == pytest.approx(coefs[:3])
    assert coefs[0] == pytest.approx(0.05)
    for (before, after), row in zip(itertools.pairwise(coefs), rows, strict=True):
        error = np.clip(row["train/kl_episode"] / 0.01 - 1, -0.2, 0.2)
        assert after == pytest.approx(before * (1 + error * 32 / 320), rel=1e-6)


def test_the_coefficient_of_entropy_follows_the_entropy_and_applies_once_there_is_one(whole, states):
    found, rows = [state.others["entropy_coef"] for state in states], rows_of(whole)[1:]
    assert [float(x["value"]) for x in found] == pytest.approx([0.01, 0.01, 0.015, 0.02])
    assert [row.get("train/entropy_coef") for row in rows] == pytest.approx([None, 0, 0.015])
    assert [bool(np.isfinite(x["entropy"])) for x in found] == [False, False, True, True]


def test_a_run_that_was_killed_goes_on_to_the_bit_with_critic_reference_and_coefficient(whole, states, pool, tmp_path):
    shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "3")
    train(PPO, tmp_path / "again", pool)
    assert of_training(tmp_path / "again") == of_training(whole)
    assert equal(saved(PPO, tmp_path / "again", 3), states[3])


@pytest.mark.usefixtures("four_devices")
def test_sharded_and_packed_and_in_other_microbatches_a_critic_gives_the_same_metrics(
    whole, pool, tmp_path, monkeypatch
):
    config = changed(
        PPO,
        mesh=MESH,
        training={"packing": "prefix_tree"},
        critic={"optimizer": OptimizerConfig(learning_rate=2e-2, microbatches=1)},
    )
    monkeypatch.setattr(preemption, "watch", lambda _: contextlib.nullcontext(lambda: signal.SIGTERM))
    with pytest.raises(PreemptedError, match="step 1"):  # the policy's update is that of other tests
        train(config, tmp_path, pool)
    (row,), (expected, *_) = of_training(tmp_path), of_training(whole)
    for name in CRITICS:
        assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name


def test_a_critic_starts_from_the_policy_from_another_run_or_from_random_numbers(whole, states, tmp_path):
    last, first = states[-1], {}
    for name, init in {"policy": "policy", "fresh": "fresh", "critic": str(whole)}.items():
        config = changed(PPO, critic={"init": init})
        begin(config, tmp_path / name)
        first[name] = saved(config, tmp_path / name, 0)
    assert equal(first["policy"].states["critic"].params["layers"], first["policy"].policy.params["layers"])
    assert not equal(first["fresh"].states["critic"].params["layers"], first["fresh"].policy.params["layers"])
    assert not first["fresh"].states["critic"].params["value"].any()
    assert equal(first["critic"].states["critic"].params, last.states["critic"].params)
    assert last.states["critic"].params["value"].any()


def test_a_critic_may_start_from_a_run_without_one(tmp_path):
    other, config = changed(TINY, seed=5), changed(PPO, critic={"init": str(tmp_path / "other")})
    begin(other, tmp_path / "other")
    begin(config, tmp_path / "run")
    state = saved(config, tmp_path / "run", 0)
    assert equal(state.states["critic"].params["layers"], params_of(other, tmp_path / "other", 0)["layers"])
    assert not equal(state.states["critic"].params["layers"], state.policy.params["layers"])


def test_a_critic_of_another_shape_is_refused_before_anything_is_written(whole, pool, tmp_path):
    config = changed(PPO, critic={"init": str(whole)}, policy={"mlp_width": 24})
    with pytest.raises(CheckpointError, match=r"another critic .*layers/mlp/.*16.* instead of .*24"):
        train(config, tmp_path / "run", pool)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"algorithm": {"gae_lambda": 0.95}}, ("algorithm.gae_lambda = 0.95", "baseline = 'value'")),
        ({"critic": {"warmup_steps": 2}}, ("critic.warmup_steps = 2", "baseline = 'value'")),
        ({"algorithm": {"gamma": 0.9}}, ("algorithm.gamma = 0.9", "'group_mean'")),
        ({"algorithm": {"baseline": "value"}}, ("baseline = 'value'", "scale = 'group_std'")),
        ({"algorithm": {"baseline": "value", "scale": "none"}, "policy": {"lora": LoraConfig(rank=2)}}, ("rank = 2",)),
        ({"algorithm": {"baseline": "none", "scale": "none", "gamma": 1.5}}, ("algorithm.gamma", "[0, 1]", "1.5")),
        ({"algorithm": {"gae_lambda": -0.1}}, ("algorithm.gae_lambda", "[0, 1]", "-0.1")),
        ({"algorithm": {"return_lambda": 2.0}}, ("algorithm.return_lambda", "[0, 1]", "2.0")),
        ({"critic": {"clip": -1.0}}, ("critic.clip", "-1.0")),
        ({"algorithm": {"reference": "none", "kl_coef": 0.0, "kl_reward_coef": 0.1}}, ("kl_reward_coef = 0.1",)),
        ({"algorithm": {"reference": "none", "kl_coef": 0.0, "reference_every": 5}}, ("reference_every = 5",)),
        ({"algorithm": {"kl_reward_coef": 0.1}}, ("kl_reward_coef = 0.1", "kl_coef = 0.01")),
        ({"algorithm": {"kl_reward_target": 0.1}}, ("kl_reward_target = 0.1", "kl_reward_coef")),
        ({"algorithm": {"reference_share": 0.0, "reference_every": -1}}, ("reference_every", "-1")),
    ],
)
def test_a_contradiction_is_one_line_with_its_keys(changes, names):
    with pytest.raises(ConfigError) as error:
        make_setup(changed(TINY, **changes))
    assert [name for name in names if name not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_the_reference_may_be_an_exponential_average():
    rng = np.random.default_rng(0)
    old, new = ({"x": rng.normal(size=(3, 5)).astype(np.float32)} for _ in range(2))
    expected = 0.75 * np.float64(old["x"]) + 0.25 * np.float64(new["x"])
    found = functions._moved(jax.device_put(old), jax.device_put(new), 0.25)
    np.testing.assert_allclose(found["x"], expected, rtol=1e-6, atol=1e-8)


def test_a_critic_is_counted_in_every_phase_and_has_programs_of_its_own_and_without_one_there_is_nothing():
    ready, plain = make_setup(PPO), make_setup(TINY)
    phases = memory_of_run(ready).phases
    held = phases["update"]
    assert {"values", "critic"} <= phases.keys()
    assert all(kinds["critic"] == held["critic"] for kinds in phases.values())
    assert held["critic"] == pytest.approx(held["parameters"] + held["moments"], rel=0.01)  # the embedding is its head
    made = {p.phase: p.holds for p in programs(ready)}
    assert [*made][:4] == ["update", "scoring", "critic", "values"]
    assert made["critic"] == ("critic", "batch")
    assert made["values"] == ()  # parameters, which are a part of what "critic" counts
    without = memory_of_run(plain).phases
    assert not {"values", "critic"} & without.keys()
    assert not any("critic" in kinds for kinds in without.values())
    assert not {"values", "critic"} & {p.phase for p in programs(plain)}
