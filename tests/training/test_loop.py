import dataclasses
import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest

from rlvr_jax.config import Config, EvaluationConfig, RolloutConfig, SftConfig, TaskConfig, TrainingConfig
from rlvr_jax.errors import CheckpointError, ConfigError, DivergedError
from rlvr_jax.learner import credit
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.policy import ADAPTERS, LoraConfig, PolicyConfig, base
from rlvr_jax.rollout.player import Player
from rlvr_jax.training import checkpoints, setup, supervised
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import sft
from rlvr_jax.training.start import param_shapes
from rlvr_jax.verifiers.pool import Job, Pool
from tests.training.verifiers_that_fail import right_or_failing

pytestmark = pytest.mark.usefixtures("one_device")

POLICY = PolicyConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16, max_length=10)
TINY = Config(
    tasks={"modsum": TaskConfig(options={"digits": 3})},
    policy=POLICY,
    rollout=RolloutConfig(prompts=8, group_size=4, max_prompt_length=4, max_response_length=6),
    reward=(("length", 1.0), ("score", 1.0)),
    algorithm=AlgorithmConfig(kl_coef=0.01, reference="initial"),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    training=TrainingConfig(num_steps=2, save_every=1, keep_checkpoints=9, max_skipped_in_a_row=3),
    evaluation=EvaluationConfig(every=2, problems=8, pass_problems=8, pass_samples=4, ks=(1, 4), shown=2),
    sft=SftConfig(
        num_steps=12,
        batch_size=8,
        updates_per_call=2,
        save_every=12,
        optimizer=OptimizerConfig(learning_rate=3e-3),
    ),
)
# At the beginning and the end, in one batch of the shape of a step's, so that nothing more is compiled.
QUIET = {"every": 9, "problems": 4, "pass_problems": 1}
METRICS = {
    "step",
    "train/reward",
    "train/reward_length",
    "train/reward_score",
    "train/response_length",
    "train/entropy",
    "train/kl",
    "train/grad_norm",
    "train/zero_signal_groups",
    "train/logprob_gap",
    "train/skipped_steps",
    "train/learning_rate",
    "verify/errors",
    "time/rollout_tokens_per_second",
    "rollout/occupancy",
    "time/train_tokens_per_second",
    "time/rollout",
    "time/verify",
    "time/train",
    "time/layout",
    "time/step",
    "rollout/received_bytes",
}


def changed(config, **changes):
    """The config with the fields of its groups replaced."""
    groups = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **groups)


def rows_of(workdir, name="metrics.jsonl"):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def params_of(config, workdir, step):
    """The parameters saved at a step, as NumPy arrays."""
    ready = make_setup(config)
    with checkpoints.open_manager(workdir, keep=9) as manager:
        return jax.tree.map(np.asarray, checkpoints.restore_params(manager, param_shapes(ready), step))


def equal(tree, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, other)))


@pytest.fixture(scope="module")
def pool():
    with Pool(1, timeout=60.0) as pool:
        yield pool


@pytest.fixture
def judged_here():
    """No processes: the pool judges in this one."""
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def plain(pool, tmp_path_factory):
    """The workdir of a run of `TINY`, whose second step is traced."""
    workdir = tmp_path_factory.mktemp("plain")
    train(changed(TINY, training={"profile": "2:2"}), workdir, pool)
    return workdir


def training(row):
    """What a row says of training, without the clock."""
    return {name: value for name, value in row.items() if name.startswith("train/")}


def test_the_steps_asked_for_are_traced(plain):
    assert len(list((plain / "profile").rglob("*.xplane.pb"))) == 1


def test_more_steps_and_other_evaluations_give_the_bits_of_a_run_that_was_never_stopped(plain, judged_here, tmp_path):
    train(changed(TINY, training={"num_steps": 1}), tmp_path, judged_here)
    train(changed(TINY, evaluation=QUIET), tmp_path, judged_here)
    assert equal(params_of(TINY, tmp_path, 2), params_of(TINY, plain, 2))
    assert [training(row) for row in rows_of(tmp_path)] == [training(row) for row in rows_of(plain)]
    assert rows_of(tmp_path, "changes.jsonl")[0]["step"] == 1


MESH = MeshConfig(fsdp=2, tensor=2)
CHOICES = {
    "plain": {},
    "microbatches of rows that share a prompt, cut, on a mesh, with moments and reference on the host": {
        "training": {"packing": "prefix_tree", "packing_multiple": 8, "offload_reference": True},
        "optimizer": {"offload": True, "microbatches": 2},
        "mesh": MESH,
    },
}


@pytest.mark.parametrize("choice", CHOICES)
def test_choices_of_how_to_compute_give_the_metrics_of_the_plain_run(choice, plain, pool, tmp_path, monkeypatch):
    config = changed(TINY, **CHOICES[choice])
    if config != TINY:
        monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:4])
    workdir = tmp_path if CHOICES[choice] else plain
    report = train(config, workdir, pool)
    assert report.parent == workdir
    assert report.exists()
    rows, expected_rows = rows_of(workdir), rows_of(plain)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert {"eval/greedy_accuracy", "eval/pass@1", "eval/pass@4"} <= rows[0].keys() & rows[2].keys()
    for row, plain_row in zip(rows[1:], expected_rows[1:], strict=True):
        assert row.keys() >= METRICS
        assert {name: value for name, value in row.items() if not math.isfinite(value)} == {}
        assert row["train/skipped_steps"] == row["verify/errors"] == 0
        assert row["train/logprob_gap"] <= 2e-5
        same = {name for name in METRICS if not name.startswith("time/")}
        same -= {"train/logprob_gap", "rollout/received_bytes"}
        assert {name: row[name] for name in same} == pytest.approx(
            {name: plain_row[name] for name in same}, rel=1e-3, abs=1e-6
        )
    assert checkpoints.complete_steps(workdir) == [0, 1, 2]
    assert not equal(params_of(config, workdir, 0), params_of(config, workdir, 2))
    if config.optimizer.offload:  # what lies on the host comes back from a checkpoint
        shutil.rmtree(workdir / "checkpoints" / "2")
        train(config, workdir, pool)
        again = rows_of(workdir)[-1]
        assert {x: again[x] for x in again if "time/" not in x} == {x: row[x] for x in row if "time/" not in x}
        shutil.rmtree(workdir / "checkpoints" / "2")
        monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
        train(TINY, workdir, pool)  # on other devices
        assert training(rows_of(workdir)[-1]) == pytest.approx(training(expected_rows[-1]), rel=1e-3, abs=1e-5)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """The workdir of a warm start on `MESH`."""
    workdir = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:4])
        sft(changed(TINY, mesh=MESH), workdir)
    return workdir


def test_a_warm_start_lowers_the_loss_on_any_mesh(warm):
    rows = rows_of(warm)
    assert [row["step"] for row in rows] == [1, *range(2, 13, 2)]
    assert rows[-1]["sft/loss"] < rows[0]["sft/loss"]


ADAPTED = changed(
    TINY,
    policy={"lora": LoraConfig(rank=2, alpha=8.0)},
    mesh=MESH,
    optimizer={"learning_rate": 0.3},
)


@pytest.fixture(scope="module")
def adapted(warm, tmp_path_factory):
    """The workdir of a run of `ADAPTED` from the warm start."""
    workdir = tmp_path_factory.mktemp("adapted")
    with Pool(0) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:4])
        train(dataclasses.replace(ADAPTED, init_from=str(warm)), workdir, pool)
    return workdir


@pytest.mark.usefixtures("four_devices")
def test_with_adapters_on_a_mesh_the_base_stays_and_is_the_reference_and_a_warm_start_without_them_serves(
    warm, adapted
):
    before, after = (params_of(ADAPTED, adapted, step) for step in (0, 2))
    assert equal(base(before), params_of(changed(TINY, mesh=MESH), warm, TINY.sft.num_steps))
    assert equal(base(before), base(after))
    assert all(
        not np.array_equal(*pair)
        for pair in zip(*map(jax.tree.leaves, (before[ADAPTERS], after[ADAPTERS])), strict=True)
    )
    _, first, second = rows_of(adapted)
    assert first["train/kl"] == pytest.approx(0, abs=1e-9)  # a fresh adapter changes nothing
    assert all(math.isfinite(row[name]) for row in (first, second) for name in METRICS)
    assert first["train/logprob_gap"] <= 2e-5
    assert second["train/kl"] > 1e-3
    with checkpoints.open_manager(adapted, keep=9) as manager:
        moments = manager.restore(2)["rest"]["opt_state"]
    assert sum(x.size for x in jax.tree.leaves(moments)) < 3 * sum(x.size for x in jax.tree.leaves(after[ADAPTERS]))


@pytest.mark.usefixtures("four_devices")
def test_adapters_that_go_on_from_those_of_a_run_are_measured_against_them(adapted, judged_here, tmp_path):
    again = dataclasses.replace(ADAPTED, init_from=str(adapted))
    train(again, tmp_path / "run", judged_here)
    _, first, second = rows_of(tmp_path / "run")
    assert abs(first["train/kl"]) < 1e-6
    assert second["train/kl"] > 1e-4
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    train(again, tmp_path / "run", judged_here)
    assert rows_of(tmp_path / "run")[-1]["train/kl"] == second["train/kl"]
    for wrong in (LoraConfig(rank=2, alpha=4.0), LoraConfig(rank=3, alpha=8.0)):
        with pytest.raises((ConfigError, CheckpointError), match=r"lora\.alpha is 4\.0|holds another policy"):
            train(changed(again, policy={"lora": wrong}), tmp_path / "wrong", judged_here)
    assert not (tmp_path / "wrong").exists()


def test_a_verifier_that_raises_hangs_or_dies_leaves_its_sample_out_and_no_other(tmp_path, monkeypatch, caplog):
    failures = {
        "raise": "KeyError: 'what a pity'",
        "hang": "timed out after 2 s",
        "die": "worker process died (signal 9)",
    }

    def job(_, episode):
        kind = [*failures, ""][min(episode.sample, len(failures))]
        return Job(right_or_failing, episode.text, episode.example.reference, {"failure": kind})

    monkeypatch.setattr(Player, "job", job)
    with Pool(2, timeout=2.0) as pool:
        config = changed(TINY, reward=(("score", 1.0),), training={"num_steps": 1}, evaluation={"pass_problems": 0})
        train(config, tmp_path, pool)
    before, row = rows_of(tmp_path)
    count, samples = len(failures), TINY.rollout.prompts * TINY.rollout.group_size
    assert row["verify/errors"] == count
    assert row["train/reward"] == row["train/accuracy"] == 1.0
    assert row["train/zero_signal_groups"] == 1.0  # the others are all right, so nothing is learnt from them
    assert f"{count} of {samples} samples could not be judged" in caplog.text
    assert before["eval/errors"] == count
    assert before["eval/greedy_accuracy"] == pytest.approx(1 - count / 8)
    kept = [sample for sample in rows_of(tmp_path, "samples.jsonl") if sample["split"] == "train"]
    assert [sample["error"] is not None for sample in kept] == [i < count for i in range(len(kept))]
    assert [sample["reward"] for sample in kept] == [None if i < count else 1.0 for i in range(len(kept))]
    failures["raise"] += f" ({right_or_failing.__code__.co_filename}, line 13)"
    assert [sample["error"] for sample in kept[:count]] == list(failures.values())


def with_advantages(monkeypatch, broken):
    """Advantages are not a number in the calls that `broken` counts (from 1), one for each step."""
    calls, advantages = [], credit.advantages

    def sometimes(*arguments):
        calls.append(1)
        return advantages(*arguments) * np.float32(np.nan if len(calls) in broken else 1)

    monkeypatch.setattr(credit, "advantages", sometimes)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """The workdir of a run in whose second step alone the gradient is finite; and the parameters of its steps."""
    workdir, config = tmp_path_factory.mktemp("diverged"), changed(TINY, training={"num_steps": 9})
    with Pool(0) as pool, pytest.MonkeyPatch.context() as patch:
        with_advantages(patch, {1, 3, 4, 5})
        with pytest.raises(DivergedError, match="step 5: 3 updates"):
            train(config, workdir, pool)
    return workdir, [params_of(config, workdir, step) for step in range(5)]


def test_a_gradient_that_is_not_finite_skips_the_step_and_is_counted(diverged):
    workdir, saved = diverged
    assert [row["train/skipped_steps"] for row in rows_of(workdir)[1:]] == [1, 1, 2, 3, 4]
    assert rows_of(workdir)[1]["train/grad_norm"] == "NaN"
    assert [equal(a, b) for a, b in itertools.pairwise(saved)] == [True, False, True, True]


def test_after_several_in_a_row_the_run_stops_and_the_last_good_checkpoint_loads(diverged):
    workdir, saved = diverged
    assert [row["step"] for row in rows_of(workdir)] == [0, 1, 2, 3, 4, 5]
    assert checkpoints.complete_steps(workdir) == [0, 1, 2, 3, 4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


def test_a_reward_that_is_not_finite_leaves_its_sample_out(judged_here, tmp_path):
    config = changed(TINY, reward=(("length", 2e38),), training={"num_steps": 1})
    train(config, tmp_path, judged_here)
    kept = [sample for sample in rows_of(tmp_path, "samples.jsonl") if sample["split"] == "train"]
    assert {sample["length"] > 1 for sample in kept} == {True, False}
    for sample in kept:
        assert (sample["reward"] is None) == ("not finite" in (sample["error"] or "")) == (sample["length"] > 1)
    _, row = rows_of(tmp_path)
    assert 0 < row["verify/errors"] < TINY.rollout.prompts * TINY.rollout.group_size
    assert row["train/reward"] == pytest.approx(2e38)
    assert (row["train/zero_signal_groups"], row["train/skipped_steps"]) == (1.0, 0)


@pytest.mark.usefixtures("four_devices")
def test_a_warm_start_that_diverges_stops_and_keeps_the_checkpoint_from_before(tmp_path, monkeypatch):
    config = changed(TINY, mesh=MESH)

    def start(*arguments):
        learner, reference = supervised_start(*arguments)
        state = learner.policy
        broken = state.params | {"norm": np.nan * state.params["norm"]}
        return learner.replace(states={"policy": state.replace(params=broken)}), reference

    supervised_start = supervised.start
    monkeypatch.setattr(supervised, "start", start)
    with pytest.raises(DivergedError, match="not finite"):
        sft(config, tmp_path)
    assert checkpoints.complete_steps(tmp_path) == [0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params_of(config, tmp_path, 0)))


def test_a_task_without_demonstrations_has_no_warm_start(tmp_path, monkeypatch):
    make = setup.tasks.make_task
    silent = lambda *args, **kwargs: dataclasses.replace(make(*args, **kwargs), demonstration=None)  # noqa: E731
    monkeypatch.setattr(setup.tasks, "make_task", silent)
    with pytest.raises(ConfigError, match="modsum has no demonstrations to imitate"):
        sft(TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_problems_are_those_of_the_seed(plain, pool, tmp_path):
    train(changed(TINY, seed=1, training={"num_steps": 1}), tmp_path, pool)
    prompts = {}
    for workdir in (plain, tmp_path):
        samples = [sample for sample in rows_of(workdir, "samples.jsonl") if sample["step"] <= 1]
        prompts[workdir] = {
            split: [s["prompt"] for s in samples if s["split"] == split] for split in ("train", "heldout")
        }
    assert prompts[plain]["train"] != prompts[tmp_path]["train"]
    assert set(prompts[plain]["heldout"]) == set(prompts[tmp_path]["heldout"])
