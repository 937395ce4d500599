"""What the commands say to bad input: one line that starts with `error:`, status 2, no traceback, no workdir."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from experiments import builtin, cli
from experiments import command as common
from experiments.command import OVERRIDES, file_to_write, write_files
from rlvr_jax.config import from_dict, to_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.learner.presets import preset
from rlvr_jax.reporting import files
from tests.experiments.runs import ROOT, command, error_of, run
from tests.test_configs import FILES, load

WRONG = {
    "an unknown key, with a proposal": ({"rollout__promts": 4}, r"config\.rollout\.promts: .* did you mean 'prompts'"),
    "an unknown key of the task": ({"tasks__modsum__options__digit": 4}, r"no key 'digit'\. Did you mean \"digits\""),
    "a word for a number": ({"rollout__prompts": "many"}, r"config\.rollout\.prompts=many: must be an integer"),
    "no dictionary": ({"judges": "{mine"}, r"config\.judges=\{mine: .*Python literal"),
    "a fraction for a number": ({"rollout__prompts": 2.5}, r"config\.rollout\.prompts=2\.5"),
    "an unknown choice": ({"policy__dtype": "float16"}, r"config\.policy\.dtype must be one of 'float32', 'bfloat16'"),
    "an unknown task": ({"tasks__modsum__name": "modsums"}, r"config\.tasks\.modsum: unknown task 'modsums'"),
    "an unknown reward": (
        {"reward": "(('sorce',1.0),)"},
        r"config\.reward: there is no term 'sorce'.*: score,.*format",
    ),
    "a group of one": ({"rollout__group_size": 1}, r"config\.rollout\.group_size.* at least 2"),
    "a window too short": ({"policy__max_length": 9}, r"longer than the policy's window"),
    "a prompt too long": ({"rollout__max_prompt_length": 2}, r"the prompt of modsum/train/0 has 4 tokens"),
    "too little memory": ({"verifier__memory_mib": 1}, r"config\.verifier: memory_bytes must be at least"),
    "a mesh without devices": ({"mesh__data": 3}, r"config\.mesh: .*3 devices.* 1 is"),
}


def test_a_config_that_can_not_run_is_one_line_and_makes_no_workdir(tmp_path):
    for what, (changes, message) in WRONG.items():
        outcome = run(command("train", tmp_path / "run", **changes))
        assert re.search(message, error_of(outcome, 2)), (what, outcome)
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_there_is_help_and_one_that_does_not_exist_is_one_line(monkeypatch, capsys):
    said = {}
    for argument in ("--help", "", "--version", "trian"):
        monkeypatch.setattr(sys, "argv", ["rlvr", *argument.split()])
        with contextlib.suppress(SystemExit):
            cli.main()
        said[argument] = capsys.readouterr()
    assert said[""] == said["--help"]
    assert said["--version"].out.startswith("rlvr_jax 0.")
    assert said["trian"].out == ""
    assert said["trian"].err.startswith("error: ")
    assert "did you mean 'train'" in said["trian"].err


def test_a_batch_that_the_mesh_does_not_divide_is_one_line_before_any_compilation(tmp_path):
    line = command("train", tmp_path / "run", mesh__data=8, rollout__prompts=13)
    message = error_of(run(line, devices=8), 2)
    assert "config.rollout.prompts = 13 can't be divided among the 8 devices" in message
    assert not (tmp_path / "run").exists()


def test_flags_that_are_missing_unknown_or_name_nothing_are_one_line(tmp_path):
    python, _, module, *_ = command("train", None)
    absent = [python, "-m", module, f"--config={tmp_path}/absent.py", f"--workdir={tmp_path}/run"]
    train = command("train", tmp_path / "run")
    lines = {
        "--workdir must be given (see python -m experiments.train": command("train", None),
        "--workdir must be given (see python -m experiments.sft": command("sft", None),
        f"there is no file {tmp_path}/absent.py": absent,
        "Did you mean: workdir": [*train, "--wrkdir=x"],
        "'stray'": [*train, "stray"],
    }
    for message, line in lines.items():
        assert message in error_of(run(line), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "has no function get_config"),
        ("import os\ndef get_config(:\n", r"mine\.py, line 2: SyntaxError"),
        ("import absent_module\n", r"mine\.py, line 1: .*absent_module"),
        ("def get_config():\n    return {}['a']\n", r"mine\.py, line 2: KeyError"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(content, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        builtin.made(str(path))


def test_a_policy_or_a_run_that_is_not_there_is_one_line(tmp_path):
    python, *_ = command("train", None)
    wrong = {
        "--workdir": ["evaluate"],
        "config.pretrained": ["evaluate", "--config=configs/quickstart.py"],
        "is not the workdir of a run": ["report", f"--workdir={tmp_path}/none"],
    }
    for message, (name, *flags) in wrong.items():
        assert message in error_of(run([python, "-m", f"experiments.{name}", *flags]), 2)


def test_a_file_that_can_not_be_written_is_refused_before_any_work(tmp_path):
    assert file_to_write("output", None) is None
    assert file_to_write("output", f"{tmp_path}/new.json") == tmp_path / "new.json"
    for path, reason in {tmp_path: "is a folder", tmp_path / "no" / "file": f"no folder {tmp_path}/no"}.items():
        with pytest.raises(ConfigError, match=rf"^--out={path}\b.*{reason}"):
            file_to_write("out", path)


def test_a_file_of_a_run_or_one_that_is_read_is_never_overwritten(tmp_path):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text("{}")
    for name in ("config.json", "metrics.jsonl", "metrics.json"):  # the last one's rows would be the metrics
        with pytest.raises(ConfigError, match=rf"^--output would overwrite {tmp_path}/\w+\.json.*of the run"):
            file_to_write("output", tmp_path / name, (".jsonl",))
    (tmp_path / "link").symlink_to(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, of the run"):
        file_to_write("output", tmp_path / "link")
    (tmp_path / "link.json").symlink_to(tmp_path / "read.jsonl")
    for name in ("read.jsonl", "link.json", "read.json"):
        with pytest.raises(ConfigError, match=r"read\.jsonl|link\.json"):
            file_to_write("output", tmp_path / name, (".jsonl",), [tmp_path / "read.jsonl"])
    assert file_to_write("output", tmp_path / "samples.json", (".jsonl",)) == tmp_path / "samples.json"


def test_results_of_a_full_disk_are_kept_elsewhere_and_the_others_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lost, page = tmp_path / "removed" / "numbers.json", tmp_path / "page.html"
    with pytest.raises(RunError, match=r"/dev/full: No space left.*numbers\.json: No such file") as error:
        write_files({Path("/dev/full"): b"rows", lost: b"numbers", page: b"page"})
    kept = [Path(path).read_bytes() for path in re.findall(r"its content is in (\S+?)(?:\. |$)", str(error.value))]
    assert kept == [b"rows", b"numbers"]
    assert page.read_bytes() == b"page"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "removed"))
    with pytest.raises(RunError, match=r"numbers\.json.*stdout"):
        write_files({lost: b"numbers"})
    assert capsys.readouterr().out == "numbers\n"


def test_memory_that_does_not_suffice_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlvr keys"])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for name in ("keep_freed_memory", "same_kernels_each_time"):  # of the process
        monkeypatch.setattr(common, name, lambda: None)
    with pytest.raises(SystemExit) as stopped:
        common.run(lambda: [None] * 10**18, required=())
    assert stopped.value.code == 1
    assert re.fullmatch(r"error: .*memory.*test_command\.py, line \d+\); .*slots.*\n", capsys.readouterr().err)


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.replace(pipe, b"result")
    assert os.read(reader, 99) == b"result"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()


def test_help_is_short_and_names_every_flag_and_what_may_be_overridden():
    expected = {
        "train": ("--workdir", "--config.seed=1", "quickstart", "countdown"),
        "prefer": ("--workdir", "--config.preferences.loss=", "quickstart"),
        "verify": ("--kind", "--input"),
    }
    python, *_ = command("train", None)
    for name, words in expected.items():
        status, stdout, stderr = run([python, "-m", f"experiments.{name}", "--help"])
        assert (status, stderr) == (0, "")
        assert stdout.startswith(f"usage: python -m experiments.{name} [flags]\n")
        assert "absl" not in stdout
        assert len(stdout.splitlines()) < 70
        assert all(word in stdout for word in words)


def test_every_command_with_a_config_proposes_overrides_that_are_of_it():
    with_config = {
        path.stem
        for path in (ROOT / "experiments").glob("*.py")
        if re.search(r"command\.define\((?!config=False)|DEFINE_config_file\(.config.", path.read_text())
    } - {"command"}
    assert OVERRIDES.keys() == with_config
    for name, overrides in OVERRIDES.items():
        words = [word for override in overrides for word in shlex.split(f"--config.{override}")]
        assert len(words) == len(overrides)
        load("quickstart", *words)
        if name in ("train", "sft", "prefer"):  # what another kind of run alone reads
            others = {"train": "training|rollout", "sft": "sft", "prefer": "preferences"}
            others = "|".join(sections for other, sections in others.items() if other != name)
            assert not [word for word in words if re.match(rf"--config\.({others})\.", word)]


@pytest.mark.parametrize(
    ("argument", "file"),
    [
        ("--config=quickstart", "quickstart.py"),
        ("-config=countdown:big", "countdown.py:big"),
        ("--config=countdown:big.json", "countdown.py:big.json"),
        ("--config=./mine.py:problems.json", None),
        ("--config=./quickstart.py", None),
        ("--config=folder/quickstart", None),
        ("--config.seed=quickstart", None),
        ("quickstart", None),
    ],
)
def test_a_built_in_config_is_found_by_its_name_and_a_path_is_left_alone(argument, file):
    flag = argument.partition("=")[0]
    assert builtin.resolve(argument) == (f"{flag}={ROOT / 'configs' / file}" if file else argument)


def test_of_flags_that_are_repeated_the_last_one_counts():
    python, *_ = command("keys", None)
    keys = {"seed": "2", "evaluation.ks": "(4,)", "reward": "(('format', 1.0),)", "reward_models": "{'b': 'y'}"}
    earlier = {"seed": "1", "evaluation.ks": "(1, 2)", "reward": "(('score', 1.0),)", "reward_models": "{'a': 'x'}"}
    first = [f"--config.{key}={value}" for key, value in earlier.items()]
    last = [word for key, value in keys.items() for word in (f"--config.{key}", value)]
    line = [python, "-m", "experiments.keys", "--config=quickstart", *first, "--config", "countdown", *last]
    status, stdout, _ = run([*line, *keys, "tasks.countdown.weight"])
    assert status == 0
    assert all(re.search(rf"^{re.escape(f'{key} = {value}')}( |$)", stdout, re.M) for key, value in keys.items())


def test_a_config_comes_from_the_record_of_a_run(tmp_path):
    config = builtin.load("countdown")
    config = dataclasses.replace(config, algorithm=dataclasses.replace(config.algorithm, clip_high=0.5))
    (tmp_path / "config.json").write_text(json.dumps({"run": "rl"} | to_dict(config)))
    assert builtin.load(tmp_path / "config.json") == config
    with pytest.raises(ValueError, match=f"--config={tmp_path}/config.json"):
        builtin.resolve(f"--config={tmp_path}")
    record = builtin.made(builtin.resolve(f"--config={tmp_path}/config.json").partition("=")[2])
    record.algorithm.preset = "gspo"
    found = from_dict(record.to_dict()).algorithm
    kept = {key: getattr(config.algorithm, key) for key in ("clip_high", "kl_coef", "reference", "minibatches")}
    assert found == dataclasses.replace(preset("gspo"), **kept)
    line = [sys.executable, "-m", "experiments.train", f"--config={tmp_path}/config.json", f"--workdir={tmp_path}/run"]
    assert "config.rollout.group_size" in error_of(run([*line, "--config.rollout.group_size=1"]), 2)
    assert builtin.name_of(builtin.resolve(f"--config={tmp_path}/config.json").partition("=")[2]) == tmp_path.name
    assert builtin.name_of("configs/countdown.py:problems.json") == "countdown"
    dotted = to_dict(config) | {"tasks": {"countdown.v2": to_dict(config)["tasks"]["countdown"]}}
    (tmp_path / "config.json").write_text(json.dumps(dotted))
    assert builtin.load(tmp_path / "config.json") == from_dict(dotted)
    (tmp_path / "config.json").write_text("{")
    for name in ("config", "other"):
        with pytest.raises(ConfigError, match=f"{name}.json"):
            builtin.load(tmp_path / f"{name}.json")


def test_a_name_that_no_config_has_is_an_error_with_a_proposal():
    with pytest.raises(ValueError, match="Did you mean 'countdown'"):
        builtin.resolve("--config=countdwon")


def test_every_config_with_something_to_run_is_listed_with_a_summary_of_its_own():
    summaries = builtin.summaries()
    assert set(summaries) == set(FILES)
    assert all(10 < len(text) < 160 for text in summaries.values())
    assert len(set(summaries.values())) == len(summaries)


def test_the_reader_of_a_page_may_leave_before_its_end():
    page = "from experiments import cli; cli.show('x' * (1 << 20))"
    script = 'set -o pipefail; "$0" -c "$1" | true'
    ended = subprocess.run(["bash", "-c", script, sys.executable, page], cwd=ROOT, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
