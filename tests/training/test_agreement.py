import dataclasses
import re

import pytest

from rlvr_jax.config import Config, TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.training import agreement
from tests.parallel.coordination import together


def test_other_keys_and_versions_are_named_with_their_process(monkeypatch):
    of_process = {0: Config(), 1: Config(), 2: Config(seed=3, tasks={"modsum": TaskConfig(options={"digits": 2})})}
    for error in together(3, lambda processes: agreement.check_agreement(of_process[processes.index], processes)):
        assert isinstance(error, ConfigError)
        assert re.search(r"process 2 on \S+ differs from process 0 on ", str(error))
        assert "config.seed: 0 -> 3" in str(error)
        assert "config.tasks.modsum.options.digits: (absent) -> 2" in str(error)
    versions = iter(["0.10.1", "0.10.2"])
    monkeypatch.setattr(agreement, "_VERSIONS", ("jax",))
    monkeypatch.setattr(agreement, "version", lambda _: next(versions))
    for error in together(2, lambda processes: agreement.check_agreement(Config(), processes)):
        assert "version.jax: 0.10." in str(error)


def test_the_same_config_is_agreed_upon_and_clocks_apart_are_noted(monkeypatch, capsys):
    config = dataclasses.replace(Config(), reward=(("score", 1.0), ("length", 0.5)))
    assert together(2, lambda processes: agreement.check_agreement(config, processes)) == [None, None]
    assert capsys.readouterr().err == ""
    times = iter([1000.0, 1093.0])
    monkeypatch.setattr(agreement.time, "time", lambda: next(times))
    assert together(2, lambda processes: agreement.check_agreement(config, processes)) == [None, None]
    note = capsys.readouterr().err
    assert note.count("note: ") == 1
    assert "93 s" in note


def test_a_folder_that_only_some_processes_see(tmp_path):
    folders = [tmp_path / "a", tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    (tmp_path / "b" / agreement._TOKEN).write_text("of an earlier run")
    for error in together(3, lambda processes: agreement.check_shared(folders[processes.index], processes, 0.1)):
        assert isinstance(error, ConfigError)
        assert re.search(r"--workdir=\S+: process 2 on \S+ can't see what process 0 on ", str(error))
    assert together(2, lambda processes: agreement.check_shared(tmp_path / "a", processes, 60.0)) == [None, None]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_single_process_writes_nothing(tmp_path):
    agreement.check_agreement(Config(), Processes())
    agreement.check_shared(tmp_path / "absent", Processes())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2])
def test_devices_of_their_own_for_sampling_need_one_process(count):
    from rlvr_jax.config_rules import check

    config = dataclasses.replace(Config(), rollout=dataclasses.replace(Config().rollout, devices=4))
    if count == 1:
        check(config, 8, count)
        return
    with pytest.raises(ConfigError, match=r"config\.rollout\.devices = 4"):
        check(config, 8, count)
