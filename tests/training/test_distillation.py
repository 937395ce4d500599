"""Runs with a teacher, and of online preferences: tiny ones, a step or two each."""

import dataclasses
import shutil

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.presets import preset
from rlvr_jax.learner.supervised import SourceConfig
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.reporting import jsonl
from rlvr_jax.training import checkpoints, loop
from rlvr_jax.training.frozen import find_teacher
from rlvr_jax.training.functions import make_loss, scored_columns
from rlvr_jax.training.loop import train
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import sft
from rlvr_jax.training.versions import with_versions, write_versions
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import QUIET, TINY, changed

pytestmark = pytest.mark.usefixtures("one_device")

SMALLER = PolicyConfig(num_layers=1, width=8, num_heads=1, num_kv_heads=1, head_dim=8, mlp_width=8, max_length=10)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The workdir of a warm start of `TINY`, which is the teacher of a smaller policy."""
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    sft(TINY, workdir)
    return workdir


def student(teacher, name: str, **algorithm):
    config = dataclasses.replace(TINY, policy=SMALLER, teacher=str(teacher), algorithm=preset(name, **algorithm))
    return changed(config, training={"num_steps": 1}, evaluation=QUIET)


def row_of(config, workdir) -> dict:
    with Pool(0) as pool:
        train(config, workdir, pool)
    return jsonl.read(workdir / "metrics.jsonl")[-1]


def test_a_smaller_policy_learns_from_the_distributions_of_a_teacher(teacher, tmp_path):
    row = row_of(changed(student(teacher, "gkd"), optimizer={"microbatches": 2}), tmp_path)
    assert row["train/loss"] == pytest.approx(row["train/teacher_divergence"], rel=1e-5)
    assert row["train/loss"] > 0
    assert 0 <= row["train/logprob_gap"] < 1e-4
    setup = make_setup(student(teacher, "gkd"))
    held = memory_of_run(setup).phases["update"]
    assert held["teacher"] > held["parameters"]
    assert "reference" not in held


def test_the_teacher_may_be_the_reference_policy_of_a_reward_of_tokens(teacher, tmp_path):
    config = student(teacher, "on_policy_distillation")
    setup = make_setup(config)
    assert scored_columns(setup, make_loss(setup)) == ("reference",)
    row = row_of(config, tmp_path / "run")
    assert row["train/kl_k1"] == pytest.approx(row["train/kl_episode"] / row["train/response_length"], rel=1e-3)
    # The policy is not its teacher, and the reference is not the policy itself.
    assert abs(row["train/kl_k1"]) > 1e-3


def test_a_policy_is_no_distance_from_itself_as_its_teacher(teacher, tmp_path):
    config = dataclasses.replace(student(teacher, "gkd"), policy=TINY.policy, init_from=str(teacher))
    assert row_of(config, tmp_path / "run")["train/loss"] == pytest.approx(0, abs=1e-6)


def test_a_teacher_that_can_not_be_one_is_named_before_the_run(teacher, tmp_path):
    config = student(teacher, "gkd")
    for changes, text in (
        ({"teacher": str(tmp_path / "absent")}, "absent"),
        ({"tokenizer": "bytes"}, r"another vocabulary \(.* tokens\)"),
    ):
        with pytest.raises(ConfigError, match=rf"config\.teacher: .*{text}"), Pool(0) as pool:
            loop.train(dataclasses.replace(config, **changes), tmp_path / "run", pool)
    assert not (tmp_path / "run").exists()
    assert find_teacher(make_setup(TINY)) is None


def test_a_resumed_run_has_the_teacher_that_it_began_with(teacher, tmp_path):
    source, workdir = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teacher, source)
    workdir.mkdir()
    setup = make_setup(student(source, "gkd"))
    begun = with_versions(setup, workdir)
    assert begun.versions == {"config.teacher": "step 12"}
    write_versions(begun, workdir)
    folders = source / "checkpoints"
    shutil.copytree(folders / "12", folders / "13")  # it trains on
    assert with_versions(setup, tmp_path / "another").versions == {"config.teacher": "step 13"}
    resumed = with_versions(setup, workdir)
    assert resumed.versions == begun.versions
    shutil.rmtree(folders / "13" / "params")  # damaged, but not read
    find_teacher(resumed)
    shutil.rmtree(folders / "12")
    with pytest.raises(ConfigError, match=r"config\.teacher: .*step 12"):
        find_teacher(resumed)


def test_files_of_a_frozen_network_that_change_are_named(tmp_path):
    (tmp_path / "judge").mkdir()
    file = tmp_path / "judge" / "model.safetensors"
    file.write_bytes(bytes(300_000))
    config = dataclasses.replace(TINY, judges={"j": JudgeConfig(model=str(file.parent))}, reward=(("j", 1.0),))
    setup = make_setup(config)
    write_versions(with_versions(setup, tmp_path), tmp_path)
    assert with_versions(setup, tmp_path).versions.keys() == {"config.judges.j"}
    file.write_bytes(bytes(299_999) + b"1")
    with pytest.raises(ConfigError, match=r"config\.judges\.j: .*has changed"):
        with_versions(setup, tmp_path)
    assert with_versions(make_setup(TINY), tmp_path).versions == {}


@pytest.mark.parametrize("run", ["rl", "sft", "preferences"])
def test_data_that_change_after_the_first_saved_step_are_named(run, tmp_path, monkeypatch):
    file, workdir = tmp_path / "rows.jsonl", tmp_path / "run"
    file.write_text('{"prompt": "12=", "reference": "3"}\n{"prompt": "1=", "reference": "1"}\n')
    workdir.mkdir()
    if run == "rl":
        config, key = dataclasses.replace(TINY, tasks={"mine": TaskConfig(file=str(file), verifier="modsum")}), "tasks"
    else:
        options = dataclasses.replace(getattr(TINY, run), sources={"mine": SourceConfig(str(file))})
        config, key = dataclasses.replace(TINY, **{run: options}), rf"{run}\.sources"
    setup = make_setup(config, problems=False, run=run)

    def begun():
        return with_versions(setup, workdir)

    first = begun()
    write_versions(first, workdir)
    assert begun().versions == first.versions
    file.write_text(file.read_text().replace("3", "4"))
    second = begun()  # no step was made
    assert second.versions.keys() == first.versions.keys()
    assert second.versions != first.versions
    write_versions(second, workdir)
    monkeypatch.setattr(checkpoints, "complete_steps", lambda _: [0, 1])
    assert begun().versions == second.versions
    file.write_text(file.read_text() + '{"prompt": "2=", "reference": "2"}\n')
    with pytest.raises(ConfigError, match=rf"config\.{key}\.mine\.file: .*rows\.jsonl has changed"):
        begun()


def test_online_preferences_raise_the_reward_of_the_best_over_that_of_the_worst(tmp_path):
    config = changed(
        dataclasses.replace(TINY, algorithm=preset("online_dpo", preference_beta=0.5, epochs=2)),
        training={"num_steps": 2},
        evaluation=QUIET,
    )
    with Pool(0) as pool:
        train(config, tmp_path, pool)
    rows = jsonl.read(tmp_path / "metrics.jsonl")[1:]
    for row in rows:
        assert row["train/kept"] <= 2 / config.rollout.group_size
        assert row["preferences/margin"] > 0  # after the first of two updates
        assert row["preferences/loss"] == pytest.approx(row["train/loss"])
    assert rows[0]["train/logprob_gap"] < 1e-4
