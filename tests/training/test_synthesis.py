"""Synthetic problems: what is written, what is left out and counted, and what confirms an answer."""

import dataclasses
import json
import sys

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.asking import Answer
from rlvr_jax.judges.writing import Written, written_of
from rlvr_jax.tasks import make_task
from rlvr_jax.training import synthesis
from rlvr_jax.training.synthesis import by_code, by_samples, synthesise
from rlvr_jax.verifiers.pool import Pool
from tests.experiments.runs import complete, error_of, run
from tests.training.test_loop import TINY

pytestmark = pytest.mark.usefixtures("one_device")
TASK = make_task("modsum", {"digits": 3})


def line(problem, answer):
    return json.dumps({"problem": problem, "answer": answer})


def sums(problem, answer):
    return sum(map(int, problem.rstrip("="))) % 10 == int(answer)


def small(completion, _reference):
    return completion[:1] < "5"


def test_an_answer_is_lines_of_problems():
    said = [
        "<think>",
        line("0", "0"),
        "</think>",
        "```json",
        line("1", [2]),
        "no",
        '{"problem": 3, "answer": 1}',
        "[1]",
    ]
    said += [line("x", ""), line(" ", "1"), "```", line("2", 0)]
    assert written_of("\n".join(said)) == ([Written("1", [2]), Written("2", 0)], 5)
    unstorable = [line("\ud800", "1"), line("x", {"a": "\udfff"}), line("x", float("nan")), line("x", " \n")]
    assert written_of("\n".join(unstorable)) == ([], 4)
    assert written_of("<think>" + line("1", "2")) == ([], 0)


def test_problems_are_kept_once_if_they_are_new_and_confirmed():
    asked = []

    def ask(chats):
        asked.extend(chat[-1]["content"] for chat in chats)
        shown = json.loads(asked[0].split("Examples:\n| ")[1].splitlines()[0])
        own = [line("111=", "3"), line("1 11=", "3"), line("112=", "5"), line("11é", "2"), line("113=", "33")]
        return [
            Answer("\n".join([line(shown["problem"], shown["answer"]), *own, line("777=", "1")])),
            Answer(line("111=", "3") + "\nhm"),
            Answer(error="it hangs"),
        ]

    with Pool(0) as pool:
        confirm = by_code(f"{__name__}:sums", pool)
        found = synthesise(TASK, ask, confirm, [("a", "777=")], problems=6, shown=2, each=2)
    assert len(asked) == 3
    assert "Write 2 new problems" in asked[0]
    assert asked[0].count('\n| {"problem"') == 2
    assert found.records == [{"prompt": "111=", "reference": "3", "agreement": 1.0}]
    assert found.counts == {
        "questions without an answer": 1, "lines that are no problem": 1, "problems": 8, "repeated": 2,
        "with other characters than the task's": 2, "with an answer that the verifier refuses": 1,
        "leaks of held-out problems": 1, "not confirmed": 1, "kept": 1,
    }  # fmt: skip


def test_answers_whose_check_fails_are_not_confirmed_and_counted(caplog):
    with Pool(0) as pool:
        confirm = by_code(f"{__name__}:sums", pool)
        assert confirm([Written("12=", "3"), Written("1+2=", "3"), Written("13=", "3")]) == [1.0, 0.0, 0.0]
        with pytest.raises(ConfigError, match=r"--check.*absent"):
            by_code(f"{__name__}:absent", pool)
    assert "1 of 3 answers" in caplog.text
    assert "ValueError" in caplog.text


def test_samples_of_a_policy_confirm_by_the_verifier_of_the_task(tmp_path, monkeypatch):
    problems = [Written(f"{a}{b}1=", str(a)) for a in range(3) for b in range(2)] + [Written("1" * 20, "0")]
    task = TaskConfig(options={"digits": 3}, verifier=f"{__name__}:small")
    config = dataclasses.replace(TINY, tasks={"modsum": task})
    drawn, sample = [], synthesis.sample

    def kept(*arguments, **options):
        drawn.append(sample(*arguments, **options))
        return drawn[0]

    monkeypatch.setattr(synthesis, "sample", kept)
    with Pool(0) as pool:
        shares = by_samples(config, "modsum", None, pool, tmp_path / "c.jsonl", samples=8)(problems)
    (_, groups, _), *_ = drawn
    assert sorted(group.example.prompt for group in groups) == sorted(x.problem for x in problems[:-1])
    expected = {group.example.prompt: sum(x.score for x in group.verdicts) / 8 for group in groups}
    assert shares == [*(expected[x.problem] for x in problems[:-1]), 0.0]
    assert 0 < sum(shares) < len(shares)


WRITER = """
import json
from rlvr_jax.judges.prompts import shown

def write(question):
    first = json.loads(shown(question)["Examples"].splitlines()[0])["problem"]
    new = [f"{i}{first[1:]}" for i in range(10)]
    return "\\n".join(json.dumps({"problem": x, "answer": str(sum(map(int, x[:-1])) % 10)}) for x in new)

def check(problem, answer):
    return int(problem[0]) < 5
"""


def test_the_command_writes_a_file_that_is_a_task(tmp_path):
    (tmp_path / "mine.py").write_text(WRITER)
    (tmp_path / "judges.json").write_text(json.dumps({"w": {"model": f"{tmp_path / 'mine.py'}:write"}}))
    line = [sys.executable, "-m", "experiments.synthesize", "--config=quickstart", "--problems=8"]
    line += ["--judges=judges.json"]
    line += ["--output=made.jsonl", "--config.verifier.workers=0", "--config.tasks.modsum.options.digits=6"]
    complete([*line, "--check=mine.py:check"], tmp_path)
    records = [json.loads(x) for x in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert records
    assert all(int(x["prompt"][0]) < 5 for x in records)
    task = make_task("modsum", {"digits": 6})
    heldout = {task.example("heldout", i).prompt for i in range(10_000)}
    assert heldout.isdisjoint(x["prompt"] for x in records)
    assert "--check" in error_of(run(line, cwd=tmp_path), 2)
