"""Samples that are made ahead of the update: their age, and runs that go on to the bit with some in flight."""

import shutil

import pytest

from rlvr_jax.config_rules import check
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.training import checkpoints
from rlvr_jax.training.loop import train
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import QUIET, TINY, changed, equal, params_of, rows_of

pytestmark = pytest.mark.usefixtures("one_device")

STEPS = 4
DECOUPLED = {"proximal": "recompute", "correction": "token_tis"}
AHEAD = changed(
    TINY,
    training={"num_steps": STEPS, "max_lag": 2, "packing": "prefix_tree", "all_samples": True},
    algorithm={
        "kl_coef": 0.0,
        "reference": "none",
        "proximal": "recompute",
        "correction": "token_tis",
        "minibatches": 2,
    },
    optimizer={"learning_rate": 0.03},
    evaluation=QUIET,
)


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def ahead(pool, tmp_path_factory):
    """The workdir of a run of `AHEAD`."""
    workdir = tmp_path_factory.mktemp("ahead")
    train(AHEAD, workdir, pool)
    return workdir


def of_training(workdir):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows_of(workdir)]


def go_on(config, whole, workdir, pool, step):
    """Continues a copy of a run from a step."""
    shutil.copytree(whole, workdir)
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(workdir / "checkpoints" / str(later))
    train(config, workdir, pool)


def test_samples_are_as_old_as_the_lag_allows_from_the_start_on(ahead):
    rows = rows_of(ahead)[1:]
    assert [row["train/lag"] for row in rows] == [0, 1, 2, 2]
    assert all(row["train/logprob_gap"] < 2e-5 for row in rows[:1])
    assert all(row["train/logprob_gap"] > 1e-3 for row in rows[1:])  # the policy has moved since they were sampled
    assert rows[0]["train/importance_weight"] == pytest.approx(1, abs=1e-5)
    assert all(abs(row["train/importance_weight"] - 1) > 1e-4 for row in rows[1:])


def test_the_problems_of_a_step_do_not_depend_on_the_lag(ahead, pool, tmp_path):
    train(changed(AHEAD, training={"max_lag": 0, "num_steps": 2}), tmp_path, pool)
    problems = [
        [(r["step"], r["example"]) for r in rows_of(x, "samples.jsonl") if r["split"] == "train" and r["step"] < 3]
        for x in (tmp_path, ahead)
    ]
    assert problems[0] == problems[1]
    assert {step for step, _ in problems[0]} == {1, 2}
    now, late = of_training(tmp_path), of_training(ahead)
    assert now[:2] == late[:2]  # the first step is on-policy in both
    assert now[2] != late[2]
    assert {row["train/lag"] for row in now[1:]} == {0}


def test_a_run_that_is_continued_with_groups_in_flight_ends_with_the_same_bits(ahead, pool, tmp_path):
    go_on(AHEAD, ahead, tmp_path / "again", pool, 2)
    assert of_training(tmp_path / "again") == of_training(ahead)
    assert rows_of(tmp_path / "again", "samples.jsonl") == rows_of(ahead, "samples.jsonl")
    assert equal(params_of(AHEAD, tmp_path / "again", STEPS), params_of(AHEAD, ahead, STEPS))


def test_a_checkpoint_holds_the_groups_in_flight_and_notices_a_changed_byte(ahead, pool, tmp_path):
    with checkpoints.open_manager(ahead, keep=9) as manager:
        held = {step: sorted(checkpoints.restore_host(manager, step)) for step in range(STEPS + 1)}
    assert held == {0: [], 1: ["2", "3"], 2: ["3", "4"], 3: ["4"], 4: []}
    shutil.copytree(ahead, tmp_path / "damaged")
    shutil.rmtree(tmp_path / "damaged" / "checkpoints" / "4")
    (file,) = (tmp_path / "damaged" / "checkpoints" / "3" / "host").glob("*metadata*")
    file.write_text(file.read_text().replace('"score": 0.0', '"score": 1.0', 1).replace('"stop"', '"length"', 1))
    with pytest.raises(CheckpointError, match=r"step 3.*host is damaged"):
        train(AHEAD, tmp_path / "damaged", pool)


@pytest.mark.parametrize("lag", [0, 2])
def test_a_rollout_that_can_not_start_costs_no_finished_step(pool, tmp_path, monkeypatch, lag):
    start = Collector.start

    def failing(self, name, *arguments, **options):
        if name == "3":
            raise ConfigError("the prompt of made-up/3 does not fit")
        start(self, name, *arguments, **options)

    monkeypatch.setattr(Collector, "start", failing)
    with pytest.raises(ConfigError, match="made-up/3"):
        train(changed(AHEAD, training={"max_lag": lag}), tmp_path, pool)
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(3 - lag))
    with checkpoints.open_manager(tmp_path, keep=9) as manager:
        assert manager.latest_step() == 2 - lag


@pytest.mark.usefixtures("four_devices")
def test_half_of_the_devices_sample_and_the_others_train(ahead, pool, tmp_path):
    config = changed(AHEAD, rollout={"devices": 2}, mesh=MeshConfig(fsdp=2), training={"num_steps": 2, "max_lag": 1})
    train(config, tmp_path, pool)
    names = ("train/reward", "train/lag", "train/response_length", "train/importance_weight")
    for row, expected in zip(rows_of(tmp_path)[1:3], rows_of(ahead)[1:3], strict=True):
        assert {name: row[name] for name in names} == pytest.approx({name: expected[name] for name in names}, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"max_lag": STEPS}}, r"training\.max_lag = 4 .*training\.num_steps = 4"),
        ({"training": {"max_lag": -1}}, r"training\.max_lag must be 0 or more, not -1"),
        ({"rollout": {"devices": 8}}, r"rollout\.devices = 8 of 8"),
        ({"rollout": {"devices": 3}}, r"rollout\.prompts = 8 .*3 devices that sample"),
    ],
)
def test_a_lag_or_a_number_of_devices_that_can_not_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(changed(AHEAD, **changes), 8)
