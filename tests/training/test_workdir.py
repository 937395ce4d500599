import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr_jax.config import Config, RolloutConfig, TaskConfig, TrainingConfig, flatten, to_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.reporting import jsonl
from rlvr_jax.training import lock
from rlvr_jax.training import workdir as workdirs
from rlvr_jax.training.workdir import read_config
from rlvr_jax.verifiers.judge import JudgeConfig

CONFIG = Config(tasks={"modsum": TaskConfig(options={"digits": 3})}, reward=(("score", 1.0), ("length", -0.5)))


def open_workdir(folder, config, kind):
    """A run that ends at once."""
    with workdirs.open_workdir(folder, config, kind):
        pass


def make_steps(folder, last):
    """What a run leaves that has made so many steps."""
    jsonl.append(folder / "metrics.jsonl", [{"step": step} for step in range(last + 1)])
    for step in (0, last):
        (folder / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / str(step) / "commit_success.txt").write_text("")


def changed(config, **groups):
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in groups.items()}
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_config_json_gives_the_config_back(tmp_path):
    open_workdir(tmp_path / "a" / "run", CONFIG, "rl")
    assert read_config(tmp_path / "a" / "run") == CONFIG


def test_environment_json_says_where_the_results_came_from(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"command", "python", "jax", "orbax-checkpoint", "devices", "machine"} <= environment.keys()


def test_a_resumed_run_says_which_code_and_versions_have_changed(tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text("def short(verdict, episode):\n    return 1.0\n")
    config, folder = dataclasses.replace(CONFIG, reward=((f"{own}:short", 1.0),)), tmp_path / "run"
    open_workdir(folder, config, "rl")
    own.write_text("def short(verdict, episode):\n    return 2.0\n")
    open_workdir(folder, config, "rl")  # without a step that it has changed
    make_steps(folder, 3)
    open_workdir(folder, config, "rl")
    assert capsys.readouterr().err == ""
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"jax": "0.1"}))
    own.write_text("def short(verdict, episode):\n    return 3.0\n")
    open_workdir(folder, config, "rl")
    assert "own.py (config.reward), jax changed: after step 3" in capsys.readouterr().err
    (row,) = jsonl.read(folder / "changes.jsonl")
    assert row["step"] == 3
    assert row["code"] == ["own.py (config.reward)"]
    assert row["changes"] == ["own.py (config.reward) was edited", f"jax: 0.1 -> {environment['jax']}"]
    (folder / "environment.json").write_text("torn")
    open_workdir(folder, config, "rl")
    assert "jax" in json.loads((folder / "environment.json").read_text())


def test_the_same_config_may_continue(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    before = contents(tmp_path)
    open_workdir(tmp_path, CONFIG, "rl")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"rollout": RolloutConfig(group_size=4)}, "rollout.group_size: 8 -> 4"),
        ({"tasks": {"modsum": TaskConfig(options={"digits": 4})}}, "tasks.modsum.options.digits: 3 -> 4"),
        (
            {"tasks": {"modsum": TaskConfig(options={"digits": 3, "direct_share": 0.5})}},
            "direct_share: (absent) -> 0.5",
        ),
        ({"reward": (("score", 1.0),)}, "reward: "),
        ({"tasks": {"other": TaskConfig(name="countdown")}}, "tasks: modsum -> other"),
    ],
)
def test_another_config_is_refused_with_old_and_new_value_and_nothing_changes(change, message, tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    make_steps(tmp_path, 3)
    before = contents(tmp_path)
    with pytest.raises(ConfigError) as error:
        open_workdir(tmp_path, dataclasses.replace(CONFIG, **change), "rl")
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert str(error.value).count(" -> ") == 1
    assert contents(tmp_path) == before


def test_keys_of_another_version_are_named_with_their_file(tmp_path):
    (tmp_path / "config.json").write_text('{"run": "rl", "seed": 1, "sede": 2}')
    for attempt in (lambda: open_workdir(tmp_path, CONFIG, "rl"), lambda: read_config(tmp_path)):
        with pytest.raises(ConfigError, match=r"config\.json was edited, .*config\.sede"):
            attempt()


def test_another_kind_of_run_is_refused(tmp_path):
    open_workdir(tmp_path, CONFIG, "sft")
    make_steps(tmp_path, 3)
    with pytest.raises(ConfigError, match="run: sft -> rl"):
        open_workdir(tmp_path, CONFIG, "rl")


@pytest.mark.parametrize("text", ["", '{"seed": 0', "[1, 2]", "\x00\xff"])
def test_a_damaged_config_json_is_named_and_left_alone(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        open_workdir(tmp_path, CONFIG, "rl")
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        read_config(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_without_config_json_is_not_a_workdir(tmp_path):
    with pytest.raises(ConfigError, match="is not the workdir of a run"):
        read_config(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_in_place_of_the_folder_is_named(place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"workdir=.*{place}: .*file is a file"):
        open_workdir(tmp_path / place, CONFIG, "rl")


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    with pytest.raises(OSError, match="x" * 300):
        open_workdir(tmp_path / ("x" * 300), CONFIG, "rl")


GOES_ON = {
    "what is evaluated, saved and reported": (
        changed(CONFIG, evaluation={"every": 3, "problems": 99}, training={"save_every": 7, "profile": "1:2"}),
        [],
    ),
    "more verifier processes": (changed(CONFIG, verifier={"workers": 9}), []),
    "more steps at a constant rate": (changed(CONFIG, training={"num_steps": 777}), []),
    "more steps of a schedule": (
        changed(CONFIG, training={"num_steps": 777}, optimizer={"decay": "cosine"}),
        ["config.optimizer.decay = 'cosine'"],
    ),
    "other devices": (
        changed(CONFIG, mesh={"fsdp": 2}, rollout={"devices": 4}),
        ["mesh.fsdp, rollout.devices changed: after step 3"],
    ),
    "time and rows": (
        changed(CONFIG, verifier={"timeout": 99.0}, optimizer={"microbatches": 2}),
        ["optimizer.microbatches changed", "verifier.timeout changed"],
    ),
    "what only a warm start uses": (changed(CONFIG, sft={"num_steps": 77, "batch_size": 3}), []),
}


@pytest.mark.parametrize("what", GOES_ON)
def test_a_run_goes_on_with_what_it_may_change_and_says_what_that_means(what, tmp_path, capsys):
    config, notes = GOES_ON[what]
    before = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, decay=config.optimizer.decay))
    open_workdir(tmp_path, before, "rl")
    make_steps(tmp_path, 3)
    open_workdir(tmp_path, config, "rl")
    assert read_config(tmp_path) == config
    written = capsys.readouterr().err.splitlines()
    assert len(written) == len(notes)
    assert all(line.startswith("note: ") and note in line for line, note in zip(written, notes, strict=True))
    (row,) = jsonl.read(tmp_path / "changes.jsonl")
    assert row["step"] == 3
    assert [line.partition(":")[0] for line in row["changes"]]
    open_workdir(tmp_path, config, "rl")
    assert len(jsonl.read(tmp_path / "changes.jsonl")) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("done", "steps", "noted"), [(7, 20, False), (8, 20, True), (10, 11, True), (8, 9, False)])
def test_more_steps_than_were_sampled_ahead_are_said(done, steps, noted, tmp_path, capsys):
    ahead = {"max_lag": 3, "num_steps": 10}
    open_workdir(tmp_path, changed(CONFIG, training=ahead), "rl")
    make_steps(tmp_path, done)
    open_workdir(tmp_path, changed(CONFIG, training=ahead | {"num_steps": steps}), "rl")
    assert ("config.training.max_lag = 3" in capsys.readouterr().err) == noted


def test_what_must_not_change_is_named_without_what_may(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    make_steps(tmp_path, 3)
    with pytest.raises(ConfigError) as error:
        open_workdir(tmp_path, changed(CONFIG, evaluation={"every": 3}, algorithm={"kl_coef": 0.5}), "rl")
    assert "algorithm.kl_coef" in str(error.value)
    assert f"--config.init_from={tmp_path}" in str(error.value)
    assert "evaluation" not in str(error.value)


def test_fewer_steps_than_were_made_are_refused(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    make_steps(tmp_path, 8)
    with pytest.raises(ConfigError, match=r"config\.training\.num_steps = 7.* 8 "):
        open_workdir(tmp_path, changed(CONFIG, training={"num_steps": 7}), "rl")
    open_workdir(tmp_path, changed(CONFIG, training={"num_steps": 8}), "rl")


def test_a_key_that_an_earlier_version_did_not_know_has_its_default(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    make_steps(tmp_path, 3)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["reporting"], record["training"]["profile"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    open_workdir(tmp_path, CONFIG, "rl")
    assert not (tmp_path / "changes.jsonl").exists()


@pytest.mark.parametrize("left", ["nothing", "a checkpoint of step 0", "an evaluation of step 0"])
def test_a_run_that_made_no_step_gives_way_to_another_and_what_is_not_its_own_stays(left, tmp_path, capsys):
    open_workdir(tmp_path, CONFIG, "sft")
    (tmp_path / "notes.txt").write_text("mine")
    if left != "nothing":
        make_steps(tmp_path, 0)
    if left == "a checkpoint of step 0":
        (tmp_path / "metrics.jsonl").unlink()
    other = dataclasses.replace(CONFIG, pretrained="another/model")
    open_workdir(tmp_path, other, "rl")
    assert read_config(tmp_path) == other
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "environment.json", "lock", "notes.txt"}
    assert "ended before its first step" in capsys.readouterr().err


def test_of_a_folder_elsewhere_only_checkpoints_are_removed_and_it_must_be_empty_at_first(tmp_path):
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    config = dataclasses.replace(CONFIG, training=TrainingConfig(checkpoints=str(elsewhere)))
    open_workdir(workdir, config, "rl")
    for name in ("0", "0.orbax-checkpoint-tmp", "1.orbax-checkpoint-tmp-3", "thesis", "2024 photos"):
        (elsewhere / name).mkdir()
    other = dataclasses.replace(CONFIG, seed=1, training=TrainingConfig(checkpoints=str(tmp_path / "another")))
    open_workdir(workdir, other, "rl")
    assert {path.name for path in elsewhere.iterdir()} == {"thesis", "2024 photos"}
    for folder in (elsewhere, tmp_path):
        wrong = dataclasses.replace(CONFIG, training=TrainingConfig(checkpoints=str(folder)))
        with pytest.raises(ConfigError, match=r"config\.training\.checkpoints = .* is not empty"):
            open_workdir(tmp_path / "third", wrong, "rl")


def test_a_step_without_a_checkpoint_is_a_step(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    jsonl.append(tmp_path / "metrics.jsonl", [{"step": 0}, {"step": 1}])
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        open_workdir(tmp_path, dataclasses.replace(CONFIG, seed=1), "rl")


def test_a_workdir_in_use_is_refused_by_the_process_that_holds_it(tmp_path):
    with workdirs.open_workdir(tmp_path, CONFIG, "rl"):
        before = contents(tmp_path)
        with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on "):
            open_workdir(tmp_path, CONFIG, "rl")
        assert contents(tmp_path) == before
    open_workdir(tmp_path, CONFIG, "rl")
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_dead_process_holds_no_lock(tmp_path):
    code = (
        "import os, pathlib, signal, sys\n"
        "from rlvr_jax.training.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    dead = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert dead.returncode == -signal.SIGKILL
    assert b"process " in (tmp_path / "lock").read_bytes()
    open_workdir(tmp_path, CONFIG, "rl")


def test_a_file_system_without_locks_is_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    open_workdir(tmp_path, CONFIG, "rl")
    assert "has no locks" in capsys.readouterr().err


def test_the_keys_that_may_change_exist_and_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    keys = flatten(to_dict(Config(judges={"*": JudgeConfig()})))
    for name in (*workdirs._FREE, *workdirs._ROUNDING, *workdirs._JUDGING, *workdirs._STEPS.values()):
        assert name in keys or any(key.startswith(name) for key in keys if name.endswith(".")), name
        assert f"`{name}*`" in text or f"`{name}`" in text, name
