"""The pages about learning from samples, Tulu 3 in small and a real model: their commands run as written, smaller."""

import dataclasses
import json
import re
import shlex
import shutil
import signal
import sys

import pytest

from rlvr_jax.config import from_dict
from rlvr_jax.experiments.benchmarks import character
from rlvr_jax.judges.judge import Sample, make_judge
from rlvr_jax.judges.own import own
from rlvr_jax.judges.rubrics import rubric_of_lines
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.reporting import jsonl
from tests.experiments.calls import complete
from tests.experiments.runs import ROOT, SMALL, interrupt, lines_of
from tests.hf.checkpoints import write_model
from tests.text.pretrained import EOS, WRITES_ITS_OWN, tokenizer

(LOOP,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "self_training.md").read_text(), re.DOTALL)
TULU = (ROOT / "docs" / "tulu.md").read_text()
CHAIN, CHARACTER = re.findall(r"```bash\n(.*?)```", TULU, re.DOTALL)
((SPEC, JUDGES),) = re.findall(r"```text\n(.*?)```.*?```json\n(.*?)```", TULU, re.DOTALL)
REAL = (ROOT / "docs" / "real_model.md").read_text()
# Of a policy that has hardly been trained nothing is right.
REWARDED = SMALL | {"reward": "(('score',1.0),('length',0.1))"}
FEWER = {"--problems": 16, "--samples": 2}  # samples of a problem as in training


def run(commands: str, script: str, folder, small=REWARDED) -> None:
    """Each command of a script without loops, the smaller numbers last, which count."""
    (folder / "runs").mkdir(exist_ok=True)
    for line in script.replace("\\\n", " ").strip().splitlines():
        _, name, *arguments = shlex.split(line)
        given = (x.partition("=") for x in arguments)
        arguments = [f"{key}{is_}{min(int(x), FEWER[key]) if key in FEWER else x}" for key, is_, x in given]
        if any(x.startswith("--config=") for x in arguments):
            arguments += [f"--config.{key}={value}" for key, value in small.items()]
        complete([sys.executable, "-m", f"experiments.{name}", *arguments], folder, commands)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


def test_a_round_of_the_loop_samples_and_learns(folder, commands):
    before, body = LOOP.split("for round in 1 2 3; do\n")
    body = body.split("done")[0].replace("$((round - 1))", "0").replace("$round", "1")
    run(commands, before + body.replace("--most=4", "--least=0 --most=4"), folder)
    records = [json.loads(line) for line in (folder / "runs" / "right_1.jsonl").read_text().splitlines()]
    assert records
    assert jsonl.read(folder / "runs" / "round_1" / "metrics.jsonl")[0]["data/right/rows"] == len(records)


JUDGE = """
import pathlib, time
from rlvr_jax.judges.prompts import shown

def judge(question):
    here = pathlib.Path(__file__).parent
    while (here / "killed.jsonl.part").exists() and not (here / "go").exists():
        time.sleep(0.01)
    return f"Score: {1 + len(shown(question)['Response'].strip()) % 10}"
"""


def test_a_set_whose_command_was_killed_is_that_of_one_that_was_not(folder, commands):
    (folder / "slow.py").write_text(JUDGE)
    (folder / "judges.json").write_text(json.dumps({"slow": {"model": f"{folder / 'slow.py'}:judge"}}))
    flags = [f"--workdir={folder / 'runs' / 'round_0'}", f"--judges={folder / 'judges.json'}", "--by=slow"]
    flags += ["--problems=6", "--samples=512", "--keep=pairs"]
    line = lambda name: [sys.executable, "-m", "experiments.sample", *flags, f"--output={folder / name}.jsonl"]  # noqa: E731
    complete(line("whole"), folder, commands)
    shutil.rmtree(folder / "runs" / "round_0" / "judges")
    part = folder / "killed.jsonl.part"
    status, *_ = interrupt(line("killed"), lambda: lines_of(part) > 0, signal.SIGKILL)
    assert status != 0
    assert lines_of(part) == 2
    assert not (folder / "killed.jsonl").exists()
    (folder / "go").touch()
    complete(line("killed"), folder, commands)
    assert (folder / "killed.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert not part.exists()


def test_a_smaller_policy_learns_from_a_teachers_distributions_and_samples(tmp_path, commands):
    (section,) = re.findall(r"## A smaller policy\n(.*)", (ROOT / "docs" / "self_training.md").read_text(), re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    student, sweep, (sample, from_teacher) = blocks[0], blocks[1], blocks[2].split("\n", 1)
    run(commands, "rlvr train --config=quickstart --workdir=runs/quickstart --config.teacher=''", tmp_path)
    run(commands, student, tmp_path)
    rows = jsonl.read(tmp_path / "runs" / "student" / "metrics.jsonl")
    assert ["train/teacher_divergence" in row for row in rows] == [False, True, True]
    run(commands, sample.replace("--most", "--least=0 --most"), tmp_path)
    assert jsonl.read(tmp_path / "runs" / "teacher.jsonl")
    run(commands, f"{from_teacher.rstrip()} --dry_run\n{sweep.rstrip()} --dry_run", tmp_path, {"rollout.group_size": 8})


def test_the_chain_of_tulu_3_goes_from_demonstrations_to_an_evaluation(tmp_path, commands):
    run(commands, CHAIN, tmp_path)
    found = json.loads((tmp_path / "runs" / "tulu" / "rlvr" / "evaluation.json").read_text())
    assert {f"task/{name}/pass@1" for name in ("copy", "reverse", "sort", "next", "pairs")} <= found.keys()


def test_the_chain_of_a_pretrained_model_ends_in_one_suite_for_all_three_policies(tmp_path, commands):
    (suite,), (script,) = (re.findall(rf"```{kind}\n(.*?)```", REAL, re.DOTALL) for kind in ("json", "bash"))
    first, second, *lines = script.splitlines()
    assert (first, second) == ("model=$(rlvr fetch)", "mkdir -p runs/chain")
    (tmp_path / "runs" / "chain").mkdir(parents=True)
    shape = PolicyConfig(vocab_size=300, width=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_width=16, num_layers=1)
    model = write_model(tmp_path / "model", tokenizer("bytes", template=WRITES_ITS_OWN), shape, eos_token_id=[EOS])
    lengths = {
        "policy.vocab_size": 300,
        "policy.max_length": 264,
        "rollout.max_prompt_length": 256,
        "rollout.max_response_length": 8,
    }
    suite = json.loads(suite)
    (tmp_path / "chain.json").write_text(json.dumps(suite | {"changes": suite["changes"] | lengths}))
    text = "\n".join(lines).replace("$model", str(model)).replace("--most=", "--least=0 --most=")
    run(commands, text, tmp_path, REWARDED | lengths)
    base, sft, rlvr = (
        json.loads((tmp_path / "runs" / "chain" / name).read_text())
        for name in ("base.json", "sft/evaluation_chain.json", "rlvr/evaluation_chain.json")
    )
    assert base["values"].keys() == {"greedy_accuracy"}
    assert {x.split(":")[0] for x in base["values"]["greedy_accuracy"]} == suite["tasks"].keys()
    assert [x["step"] for x in (base, sft, rlvr)] == [0, 20, 2]
    assert len({tuple(x["values"]["greedy_accuracy"]) for x in (base, sft, rlvr)}) == 1
    records = jsonl.read(tmp_path / "runs" / "chain" / "right.jsonl")
    assert jsonl.read(tmp_path / "runs" / "chain" / "sft" / "metrics.jsonl")[0]["data/right/rows"] == len(records)


BY_CHANCE = """
import zlib
from rlvr_jax.judges.prompts import shown

def judge(question):
    parts = shown(question)
    met = zlib.crc32(repr(parts).encode()) % 2
    return f"Evidence: none\\nMet: {'yes' if met else 'no'}"
"""


def test_character_training_goes_from_a_spec_to_the_drift_of_capability(tmp_path, commands):
    (tmp_path / "spec.txt").write_text(SPEC)
    (tmp_path / "chance.py").write_text(BY_CHANCE)
    judges = json.loads(JUDGES)
    judges["spec"] |= {"model": f"{tmp_path / 'chance.py'}:judge"}  # hardly trained, the policy has no manners
    (tmp_path / "judges.json").write_text(json.dumps(judges))
    (tmp_path / "runs" / "character").mkdir(parents=True)
    run(commands, CHARACTER, tmp_path)
    found = json.loads((tmp_path / "runs" / "character" / "dpo" / "evaluation.json").read_text())
    assert {"eval/judge/spec", "eval/greedy_accuracy", "task/copy/judge/spec"} <= found.keys()
    pairs = [json.loads(line) for line in (tmp_path / "runs" / "character" / "pairs.jsonl").read_text().splitlines()]
    assert all(pair["scores"]["chosen"] > pair["scores"]["rejected"] for pair in pairs)


def test_the_judge_of_the_page_grades_its_statements_and_the_verifier_what_is_between():
    config = from_dict({"judges": json.loads(JUDGES), "pretrained": "x"}).judges["spec"]
    items = rubric_of_lines(SPEC)
    assert [statement for statement, _ in items] == list(character.STATEMENTS)
    judge = make_judge(dataclasses.replace(config, rubric="reference"), own(config.model))
    texts = ["hi ab.", "ab.", "ab", "hi ab!", "ab!"]
    rubric = [{"criterion": statement, "weight": weight} for statement, weight in items]
    assert [x.score for x in judge([Sample("?", text, rubric) for text in texts])] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert [character.right(text, "ab") for text in (*texts, "hi  ab", "a.b")] == [1.0] * 5 + [0.0] * 2
    task = character.asked("reverse")
    example = task.example("train", 3)
    said = [task.demonstration(example, i) for i in range(200)]
    assert all(character.right(text, example.reference) for text in said)
    for met in character.STATEMENTS.values():
        assert 0.15 < sum(map(met, said)) / 200 < 0.45
    assert set("".join(said) + example.prompt) <= set(task.alphabet)
