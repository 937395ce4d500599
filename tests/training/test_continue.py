"""A run that goes on with a changed config: the bits of a run that was never stopped, or other devices."""

import jax
import pytest

from rlvr_jax.parallel import MeshConfig
from rlvr_jax.training.loop import train
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import TINY, changed, equal, params_of, rows_of

pytestmark = pytest.mark.usefixtures("one_device")

LONG = changed(TINY, training={"num_steps": 3})


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def whole(pool, tmp_path_factory):
    """The workdir of a run of three steps, of which the second is traced."""
    workdir = tmp_path_factory.mktemp("whole")
    train(changed(LONG, training={"profile": "2:2"}), workdir, pool)
    return workdir


def training(row):
    """What a row says of training, without the clock."""
    return {name: value for name, value in row.items() if name.startswith("train/")}


def test_more_steps_and_other_evaluations_give_the_bits_of_a_run_that_was_never_stopped(whole, pool, tmp_path):
    train(changed(TINY, training={"num_steps": 1}), tmp_path, pool)
    train(changed(LONG, evaluation={"every": 3, "problems": 4, "pass_problems": 0}), tmp_path, pool)
    assert equal(params_of(LONG, tmp_path, 3), params_of(LONG, whole, 3))
    assert [training(row) for row in rows_of(tmp_path)] == [training(row) for row in rows_of(whole)]
    assert rows_of(tmp_path, "changes.jsonl")[0]["step"] == 1


def test_a_run_goes_on_on_other_devices(whole, pool, tmp_path, monkeypatch):
    train(changed(LONG, training={"num_steps": 2}), tmp_path, pool)
    monkeypatch.setattr(jax, "devices", jax.local_devices)
    train(changed(LONG, mesh=MeshConfig(data=2, fsdp=2, tensor=2)), tmp_path, pool)
    first, second, other = (training(row) for row in rows_of(tmp_path)[1:])
    assert [first, second] == [training(row) for row in rows_of(whole)[1:3]]
    assert other["train/reward"] == pytest.approx(training(rows_of(whole)[3])["train/reward"], abs=0.1)


def test_the_steps_asked_for_are_traced(whole):
    assert len(list((whole / "profile").rglob("*.xplane.pb"))) == 1
