import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.errors import CheckpointError, DivergedError, PreemptedError
from rlvr_jax.learner.step import Learner, new_state
from rlvr_jax.parallel import Processes
from rlvr_jax.training import checkpoints, reading
from rlvr_jax.training.checkpoints import complete_steps, open_manager
from rlvr_jax.training.checksums import checksums_of, on_devices, on_host
from rlvr_jax.training.reading import has_network, load_params, open_params
from tests.experiments import runs

OPTIMIZER = optax.adam(0.1)


def mesh(*shape):
    return Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp"))


def sharding_of(array, on):
    return NamedSharding(on, PartitionSpec("data", "fsdp") if array.ndim == 2 else PartitionSpec())


def state_of(seed, on=None):
    """A state whose every array has bits of its own, on a mesh."""
    wide, narrow = jax.random.normal(jax.random.key(seed), (64, 32)), jax.random.normal(jax.random.key(seed + 1), (5,))
    state = new_state(OPTIMIZER, {"embed": wide, "layers": {"scale": narrow.astype(jnp.bfloat16)}})
    state = jax.tree.map(lambda x: (x + seed + 1).astype(x.dtype), state)
    on = mesh(4, 2) if on is None else on
    return jax.tree.map(lambda x: jax.device_put(x, sharding_of(x, on)), state)


def shapes_of(state, on=None):
    on = mesh(4, 2) if on is None else on
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x, on)), state)


def save(manager, state, step):
    checkpoints.save(manager, Learner({"policy": state}), step)


def restore(manager, shapes, step):
    return checkpoints.restore(manager, Learner({"policy": shapes}), step).policy


def bits(tree):
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with the checkpoints of the steps 0, 3 and 5."""
    workdir = tmp_path_factory.mktemp("run")
    with open_manager(workdir, keep=2) as manager:
        for step in (0, 2, 3, 5):
            save(manager, state_of(step), step)
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def newest(workdir):
    with open_manager(workdir, keep=2) as manager:
        step = manager.latest_step()
        return step, restore(manager, shapes_of(state_of(0)), step)


def test_the_newest_checkpoints_and_that_of_step_0_are_kept(run):
    assert complete_steps(run) == [0, 3, 5]


def test_a_state_comes_back_to_the_bit(run):
    step, state = newest(run)
    assert step == 5
    assert bits(state) == bits(state_of(5))


def test_data_of_the_run_is_saved_as_it_was_then_though_it_is_written_later(tmp_path, monkeypatch):
    with open_manager(tmp_path) as manager:
        spare, write = list(range(9)), manager.save
        monkeypatch.setattr(manager, "save", lambda *args, **named: spare.clear() or write(*args, **named))
        checkpoints.save(manager, Learner({"policy": state_of(0)}), 1, {"spare": spare})
        checkpoints.wait(manager)
        assert checkpoints.restore_host(manager, 1) == {"spare": list(range(9))}


def test_a_state_comes_back_to_the_bit_on_another_mesh(run):
    with open_manager(run, keep=2) as manager:
        state = restore(manager, shapes_of(state_of(0), mesh(2, 4)), 3)
    assert bits(state) == bits(state_of(3))
    assert state.params["embed"].sharding.mesh.devices.shape == (2, 4)


def test_the_newest_parameters_are_loaded_with_their_step(run):
    params, step = load_params(run, shapes_of(state_of(0)).params)
    assert step == 5
    assert bits(params) == bits(state_of(5).params)


def test_a_critic_and_what_follows_the_networks_come_back_to_the_bit_and_each_network_loads_alone(run, tmp_path):
    others = {"reference": state_of(3).params, "kl_coef": {"value": np.float32(0.1)}}
    saved = Learner({"policy": state_of(1), "critic": state_of(2)}, others)
    everywhere = NamedSharding(mesh(4, 2), PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=everywhere), saved)
    with open_manager(tmp_path) as manager:
        checkpoints.save(manager, saved, 4)
    with open_manager(tmp_path) as manager:
        assert bits(checkpoints.restore(manager, shapes, 4)) == bits(saved)
    for network in ("policy", "critic"):
        params, _ = load_params(tmp_path, shapes.states[network].params, network=network)
        assert bits(params) == bits(saved.states[network].params)
    assert has_network(tmp_path, "critic")
    assert not has_network(run, "critic")


def test_updates_after_a_save_do_not_reach_it(tmp_path):
    update = jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)
    with open_manager(tmp_path) as manager:
        state = state_of(1)
        save(manager, state, 0)
        update(state)  # its memory is reused while the checkpoint is being written
    assert bits(newest(tmp_path)[1]) == bits(state_of(1))


def leave_a_temporary_folder(folder: Path):
    shutil.copytree(folder / "5", folder / "7.orbax-checkpoint-tmp")


def leave_out_the_marker(folder: Path):
    shutil.copytree(folder / "5", folder / "7")
    (folder / "7" / "commit_success.txt").unlink()


def leave_an_empty_folder(folder: Path):
    (folder / "7").mkdir()


@pytest.mark.parametrize("leave", [leave_a_temporary_folder, leave_out_the_marker, leave_an_empty_folder])
def test_a_half_written_checkpoint_is_never_loaded_and_does_not_hinder_the_next(leave, copy):
    leave(copy / "checkpoints")
    assert complete_steps(copy) == [0, 3, 5]
    assert load_params(copy, shapes_of(state_of(0)).params)[1] == 5
    step, state = newest(copy)
    assert step == 5
    assert bits(state) == bits(state_of(5))
    with open_manager(copy, keep=2) as manager:
        save(manager, state_of(6), 6)
        save(manager, state_of(7), 7)
    assert complete_steps(copy) == [0, 6, 7]
    assert {path.name for path in (copy / "checkpoints").iterdir()} == {"0", "6", "7"}
    assert bits(newest(copy)[1]) == bits(state_of(7))


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path: Path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.usefixtures("unfinished_readers_are_silent")
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_checkpoint_is_an_error_or_harmless_and_never_other_bits(damage, run, tmp_path):
    right, before, shapes, errors = bits(state_of(5)), bits(state_of(3)), shapes_of(state_of(0)), {}
    files = sorted(path.relative_to(run) for path in (run / "checkpoints" / "5").rglob("*") if path.is_file())
    spared = {cut: "rest", Path.unlink: "params"}.get(damage)  # both have files of the same kinds
    files = [file for file in files if file.parts[2] != spared]
    for i, file in enumerate(files):
        workdir = tmp_path / str(i)
        shutil.copytree(run, workdir)
        damage(workdir / file)
        with open_manager(workdir, keep=2) as manager:
            if manager.latest_step() != 5:
                assert file.name == "commit_success.txt"
                continue
            try:
                assert bits(restore(manager, shapes, 5)) == right
            except CheckpointError as error:
                errors[file] = str(error)
                if len(errors) < 3:
                    assert bits(restore(manager, shapes, 3)) == before
    assert len(errors) >= 4
    for file, error in errors.items():
        assert "could not be read at step 5" in error
        assert "goes on from step 3" in error
        assert "\n" not in error
        if damage is not flip and file.name in ("_METADATA", "_CHECKPOINT_METADATA"):
            assert f"{file} is {'damaged' if damage is cut else 'missing'}" in error


def test_a_flipped_bit_of_any_array_changes_its_checksum():
    state = state_of(1)
    arrays = dict(checkpoints.leaves_of(state))
    flipped = {}
    for name, leaf in arrays.items():
        array = np.array(leaf)
        array.reshape(-1).view(np.uint8)[-1] ^= 0x40
        flipped[name] = jnp.asarray(array)
    before, after = checksums_of(arrays), checksums_of(flipped)
    assert [name for name in arrays if before[name] == after[name]] == []


def test_the_checksum_tells_swapped_rows_and_is_the_same_on_every_mesh():
    state = state_of(1)
    rows = state.params["embed"]
    assert checksums_of({"rows": rows}) != checksums_of({"rows": rows[::-1]})
    same = [checksums_of(dict(checkpoints.leaves_of(x))) for x in (state, state_of(1, mesh(1, 8)))]
    assert same[0] == same[1]


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, jnp.bfloat16, np.int32, np.float32])
def test_a_small_array_has_the_checksum_on_the_host_that_it_has_on_devices(dtype):
    array = np.random.default_rng(0).normal(scale=1e9, size=(3, 1, 5)).astype(np.float32).view(np.int32)
    array = (array % 3 == 0 if dtype is np.bool_ else array).astype(dtype)
    for x in (array, array[0, 0, 0]):
        assert on_host(np.asarray(x)) == int(on_devices(jnp.asarray(x)))


def test_parameters_can_be_read_one_at_a_time_and_damage_is_named(run, tmp_path):
    shapes = shapes_of(state_of(0)).params
    with open_params(run, shapes, 3) as (lazy, step):
        read = jax.tree.map(lambda x: x.read(), lazy)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), lazy) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    assert step == 3
    assert bits(read) == bits(state_of(3).params)
    shutil.copytree(run, tmp_path / "run")
    metadata = tmp_path / "run" / "checkpoints" / "3" / "_CHECKPOINT_METADATA"
    data = json.loads(metadata.read_text())
    data["custom_metadata"]["checksums"]["params"]["embed"] += 1
    metadata.write_text(json.dumps(data))
    with open_params(tmp_path / "run", shapes, 3) as (lazy, _):
        lazy["layers"]["scale"].read()
        with pytest.raises(CheckpointError, match=r"step 3.*params/embed is damaged"):
            lazy["embed"].read()


def test_parameters_of_another_shape_are_refused_by_their_names(run):
    shapes = shapes_of(state_of(0)).params
    other = {"embed": jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=shapes["embed"].sharding), "head": shapes}
    with pytest.raises(CheckpointError) as error:
        load_params(run, other)
    assert "embed: (64, 32) instead of (64, 16)" in str(error.value)
    assert "head/layers/scale: absent instead of (5,)" in str(error.value)
    assert "layers/scale: (5,) instead of absent" in str(error.value)
    with pytest.raises(CheckpointError, match="another policy"):
        reading.check_loadable(run, other)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    shapes = shapes_of(state_of(0)).params
    with pytest.raises(CheckpointError, match="nowhere is no folder"):
        load_params(tmp_path / "nowhere", shapes)
    with pytest.raises(CheckpointError, match="it is not the workdir of a run"):
        load_params(tmp_path, shapes)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        load_params(tmp_path, shapes)


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError) as error, open_manager(tmp_path) as manager:
        save(manager, state_of(0), 0)
    assert str(tmp_path / "checkpoints") in str(error.value)


def test_a_checkpoint_that_can_not_be_written_is_an_error_and_the_one_before_it_loads(tmp_path):
    moments = ("save", "wait", "close")
    line = [sys.executable, "-m", "tests.training.full_disk", str(tmp_path), *moments]
    status, stdout, stderr = runs.run(line, devices=8, doomed=True)  # no cache: its files would hit the limit, too
    assert status == 0, stderr
    errors = stdout.splitlines()
    assert len(errors) == len(moments), stdout
    for when, error in zip(moments, errors, strict=True):
        assert f"{tmp_path / when}" in error
        assert "could not be written" in error
        assert "File too large" in error
        assert "Complete checkpoints: [0]" in error


def test_the_error_of_a_run_is_not_hidden_by_that_of_its_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(KeyError, match="the first"), open_manager(tmp_path) as manager:  # noqa: PT012
        monkeypatch.setattr(manager, "wait_until_finished", lambda: 1 / 0)
        raise KeyError("the first")


def test_a_step_is_saved_if_that_is_due(tmp_path):
    with open_manager(tmp_path, keep=9) as manager:
        for step in range(4):
            learner = Learner({"policy": state_of(step).replace(skipped_in_a_row=jnp.int32(2))})
            checkpoints.end_step(manager, learner, step, step % 2 == 0, None, 3)
    assert complete_steps(tmp_path) == [0, 2]


def test_steps_of_a_multiple_and_those_of_the_highest_accuracy_are_kept_too_also_by_a_continued_run(tmp_path):
    state = state_of(0).replace(skipped_in_a_row=jnp.int32(0))
    accuracy = {1: 0.5, 2: 0.9, 3: 0.1, 5: 0.8, 6: 0.7, 8: 0.2}
    for steps in (range(4), range(4, 10)):
        with open_manager(tmp_path, keep=1, every=4, best=2) as manager:
            for step in steps:
                learner = Learner({"policy": state})
                checkpoints.end_step(manager, learner, step, True, None, 3, accuracy=accuracy.get(step))
    assert complete_steps(tmp_path) == [0, 2, 4, 5, 8, 9]
    assert load_params(tmp_path, shapes_of(state).params, 5)[1] == 5
    with pytest.raises(CheckpointError, match=r"of step 3; there are \[0, 2, 4, 5, 8, 9\]"):
        load_params(tmp_path, shapes_of(state).params, 3)


def test_a_signal_saves_and_ends_the_run(tmp_path):
    state = state_of(4).replace(skipped_in_a_row=jnp.int32(0))
    with pytest.raises(PreemptedError, match="state of step 4"), open_manager(tmp_path) as manager:
        checkpoints.end_step(manager, Learner({"policy": state}), 4, False, signal.SIGTERM, 3)
    assert complete_steps(tmp_path) == [4]


@pytest.fixture
def writing(monkeypatch):
    """Checkpoints are written once this event is set, and not at all if it has an error."""
    event = threading.Event()
    event.error = None

    class Write:
        def result(self, timeout=None):
            assert event.wait(timeout)
            if event.error:
                raise event.error

    def handler():
        made = json_handler()
        save = made.async_save

        async def async_save(*args, **named):
            return [*await save(*args, **named), Write()]

        made.async_save = async_save
        return made

    json_handler = ocp.JsonCheckpointHandler
    monkeypatch.setattr(ocp, "JsonCheckpointHandler", handler)
    return event


def end_step(manager, step, due, stop=None):
    learner = Learner({"policy": state_of(step).replace(skipped_in_a_row=jnp.int32(0))})
    return checkpoints.end_step(manager, learner, step, due, stop, 3, lambda: ({"step": step}, ()))


def test_steps_go_on_while_a_checkpoint_is_written_and_a_signal_meanwhile_saves_too(tmp_path, monkeypatch, writing):
    with pytest.raises(PreemptedError, match="state of step 3"), open_manager(tmp_path, keep=9) as manager:  # noqa: PT012
        assert end_step(manager, 1, True)["time/save"] > 0
        assert end_step(manager, 2, False) == {}
        assert complete_steps(tmp_path) == []
        wait = manager.wait_until_finished
        monkeypatch.setattr(manager, "wait_until_finished", lambda: writing.set() or wait())
        end_step(manager, 3, False, signal.SIGTERM)
    assert complete_steps(tmp_path) == [1, 3]
    for step in (1, 3):
        params, _ = load_params(tmp_path, shapes_of(state_of(0)).params, step)
        assert bits(params) == bits(state_of(step).params)


def test_a_write_that_fails_in_the_background_is_an_error_of_the_next_step(run, tmp_path, writing):
    shutil.copytree(run, tmp_path / "run")
    writing.error = OSError(28, "No space left on device")
    with pytest.raises(CheckpointError, match="No space left") as error, open_manager(tmp_path / "run", 9) as manager:  # noqa: PT012
        end_step(manager, 6, True)
        writing.set()
        while manager.is_saving_in_progress():
            time.sleep(0.001)
        end_step(manager, 7, False)
    assert "[0, 3, 5]" in str(error.value)
    assert complete_steps(tmp_path / "run") == [0, 3, 5]


def test_a_write_that_fails_in_one_of_several_processes_ends_all_at_once(tmp_path, monkeypatch, writing):
    """The others would wait for its part of the checkpoint."""
    two, reasons = Processes(), []
    two.count = 2
    monkeypatch.setattr(two, "exchange", lambda value: [value] * 2)
    monkeypatch.setattr(two, "end", reasons.append)
    writing.error = OSError(28, "No space left on device")
    with open_manager(tmp_path, processes=two) as manager:
        end_step(manager, 1, True)
        assert reasons == []
        writing.set()
    (reason,) = reasons
    assert "could not be written" in reason
    assert "No space left on device" in reason


@pytest.mark.parametrize("network", ["policy", "critic"])
def test_too_many_skipped_updates_in_a_row_of_any_network_end_the_run_without_saving(network, copy):
    states = dict.fromkeys(("policy", "critic"), state_of(8).replace(skipped_in_a_row=jnp.int32(0)))
    states[network] = state_of(8).replace(skipped_in_a_row=jnp.int32(3))
    with (
        pytest.raises(DivergedError, match="step 8: 3 updates in a row"),
        open_manager(copy, 2) as manager,
    ):
        checkpoints.end_step(manager, Learner(states), 8, True, None, 3)
    assert complete_steps(copy) == [0, 3, 5]
    assert bits(newest(copy)[1]) == bits(state_of(5))
