"""The launch scripts and the Dockerfile: checked by linters, and dry runs of the commands of docs/hosts.md."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.runs import ROOT

LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh") if path.name != "common.sh")
BLOCKS = re.findall(r"^ *```bash\n(.*?)```", (ROOT / "docs" / "hosts.md").read_text(), re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.replace("\\\n", "").splitlines() if line.strip()]
TRAIN = ["rlvr", "train", "--config=quickstart", "--config.reward=(('score', 1.0),)", "--workdir=/mnt/a b"]
FLAGS = {
    "gke_xpk.sh": ["--cluster=c", "--project=p", "--zone=z", "--type=v5litepod-16", "--image=i"],
    "local.sh": ["--processes=2"],
    "skypilot.sh": ["--accelerators=H100:8", "--bucket=gs://b"],
    "slurm.sh": ["--nodes=2", "--gpus=8"],
    "tpu_vm.sh": ["--zone=z", "--type=v5litepod-16", "--version=v", "--nfs=a:/b"],
}


def bash(*line: str, **options: object) -> tuple[int, str, str]:
    ended = subprocess.run(["bash", *line], cwd=ROOT, capture_output=True, text=True, timeout=600, **options)
    return ended.returncode, ended.stdout, ended.stderr


def dry_run(script: str, *flags: str, command: list[str] = TRAIN) -> list[list[str]]:
    """The words of each command that the script would run."""
    status, stdout, stderr = bash(str(LAUNCH / script), *flags, "--dry_run", "--", *command)
    assert (status, stderr) == (0, "")
    return [bash("-c", f"printf '%s\\0' {line}")[1].split("\0")[:-1] for line in stdout.splitlines()]


def flags_of(script: str) -> list[str]:
    return FLAGS[script] if script == "local.sh" else ["--name=n", *FLAGS[script]]


def linter(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_the_linters_find_nothing():
    files = [str(LAUNCH / name) for name in (*SCRIPTS, "common.sh")]
    for line in ([linter("shellcheck"), "--external-sources", *files], [linter("hadolint"), str(ROOT / "Dockerfile")]):
        ended = subprocess.run(line, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_the_command_of_the_run_and_help_the_flags(script):
    words = [word for line in dry_run(script, *flags_of(script)) for word in line]
    if script == "local.sh":
        assert words[3 : 3 + len(TRAIN)] == TRAIN
    else:  # a word of a command, for another shell
        (word,) = (word for word in words if "rlvr' 'train" in word)
        line = re.search(r"'rlvr'.*", word).group()
        assert shlex.split(line)[: len(TRAIN)] == TRAIN
    assert any("--coordinator=" in word for word in words) == (script != "skypilot.sh")  # which has it in its YAML file
    status, page, _ = bash(str(LAUNCH / script), "--help")
    assert status == 0
    for flag in (*flags_of(script), "--dry_run"):
        assert flag.partition("=")[0] in page


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_that_are_missing_or_unknown(script):
    for flags, name in (([], flags_of(script)[0].partition("=")[0]), ([*flags_of(script), "--colour=red"], "--colour")):
        status, stdout, stderr = bash(str(LAUNCH / script), *flags, "--dry_run", "--", *TRAIN)
        assert (status, stdout) == (2, "")
        assert stderr.startswith("error: ")
        assert name in stderr
    status, _, stderr = bash(str(LAUNCH / script), *flags_of(script), "--dry_run")
    assert status == 2
    assert "--" in stderr


def test_the_commands_of_the_page_are_there_with_all_launchers():
    assert sorted({Path(command[0]).name for command in COMMANDS}) == SCRIPTS
    for command in COMMANDS:
        place = command.index("--")
        assert dry_run(Path(command[0]).name, *command[1:place], command=command[place + 1 :])


def test_a_tpu_slice_is_made_and_every_host_runs_the_command():
    lines = dry_run("tpu_vm.sh", "--name=n", *FLAGS["tpu_vm.sh"], "--spot")
    words = [" ".join(line[:5]) for line in lines]
    assert words[0] == "gcloud compute tpus tpu-vm create"
    assert "--spot" in lines[0]
    assert words[-1] == "gcloud compute tpus tpu-vm ssh"
    assert all("--worker=all" in line for line in lines if line[4] in ("ssh", "scp"))


@pytest.mark.parametrize(("status", "tries"), [(1, 3), (143, 3), (2, 1), (0, 1)])
def test_a_supervisor_starts_a_run_again_but_not_one_with_a_bad_config(status, tries, tmp_path):
    script = tmp_path / "run.sh"
    script.write_text(f'echo "$@" >> {tmp_path}/tries; exit {status}\n')
    ended, _, _ = bash(str(LAUNCH / "local.sh"), "--processes=1", "--restarts=2", "--", "bash", str(script))
    assert ended == status
    assert (tmp_path / "tries").read_text().splitlines() == [
        "--coordinator=127.0.0.1:8476 --num_processes=1 --process_id=0"
    ] * tries
