"""Sets of a policy's own samples: what is chosen, what is left out and counted, and that a run learns from them."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.rewards import reward
from rlvr_jax.learner.supervised import SourceConfig
from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks import Example
from rlvr_jax.training import selection
from rlvr_jax.training.drawing import Draws, sample
from rlvr_jax.training.preferences import pair_rows
from rlvr_jax.training.selection import select, selected
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import chat_rows, sft
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.text.pretrained import tokenizer
from tests.text.test_chats import CHATML
from tests.training.test_loop import TINY, changed

pytestmark = pytest.mark.usefixtures("one_device")

# Of each problem: text, score, and why the episode ended.
PROBLEMS = [
    [("12", 1.0, "stop"), ("12", 1.0, "stop"), ("3", 0.0, "stop"), ("4", 1.0, "stop"), ("999999", 1.0, "length")],
    [("5", 0.0, "stop"), ("", 0.0, "stop"), ("6", 0.5, "stop"), ("7", None, "stop"), ("8", 0.5, "stop")],
]


def groups_of(problems=PROBLEMS):
    found = []
    for number, samples in enumerate(problems):
        example = Example(f"modsum/train/{number}", f"{number}1=", "2", "modsum", problem=f"{number}1=")
        episodes = [episode(3, text, finish, example, sample=i) for i, (text, _, finish) in enumerate(samples)]
        verdicts = [Verdict(0.0, error="it died") if x is None else Verdict(x) for _, x, _ in samples]
        found.append(Group(example, tuple(episodes), tuple(verdicts)))
    return found


def chosen(setup, keep, **options):
    groups = groups_of()
    return selected(setup, groups, reward((("score", 2.0),), groups), keep, **options)


@pytest.fixture(scope="module")
def setup():
    return make_setup(TINY)


def test_right_samples_are_chats_of_their_problems_once_each(setup):
    found = chosen(setup, "right")
    assert [(x["prompt"], x["completion"]) for x in found.records] == [("01=", "12"), ("01=", "4")]
    assert [x["reward"] for x in found.records] == [2.0, 2.0]
    assert found.counts == {
        "problems": 2, "samples": 10, "unjudged": 1, "cut off": 1, "empty": 1, "wrong": 4, "right": 3,
        "duplicates of right samples": 1,
        "problems without a right sample": 1, "more than the most of a problem": 0, "written": 2,
    }  # fmt: skip
    found = chosen(setup, "right", most=1)
    assert ([x["completion"] for x in found.records], found.counts["more than the most of a problem"]) == (["12"], 1)
    assert [x["completion"] for x in chosen(setup, "right", least=1.0).records] == ["12", "4", "6", "8"]


def test_the_best_of_a_problem_and_its_pair_are_chosen_by_reward(setup):
    assert [x["completion"] for x in chosen(setup, "best").records] == ["12", "6"]
    found = chosen(setup, "pairs")
    assert [(x["chosen"], x["rejected"], x["margin"]) for x in found.records] == [("12", "3", 2.0), ("6", "5", 1.0)]


def test_with_a_chat_template_records_are_messages_with_the_system_prompt(tmp_path):
    tokenizer("bytes", template=CHATML).save_pretrained(tmp_path)
    task = TaskConfig(options={"digits": 3}, system="Add.")
    config = dataclasses.replace(changed(TINY, policy={"max_length": 200}, rollout={"max_prompt_length": 90}))
    config = dataclasses.replace(config, tasks={"modsum": task}, tokenizer=str(tmp_path))
    found = chosen(make_setup(changed(config, prompt={"format": "chat"})), "right", most=1)
    roles = [(message["role"], message["content"]) for message in found.records[0]["messages"]]
    assert roles == [("system", "Add."), ("user", "01="), ("assistant", "12")]


def test_a_policy_learns_from_its_own_samples_and_another_set_has_other_problems(tmp_path):
    sft(TINY, tmp_path / "start")
    config = dataclasses.replace(TINY, init_from=str(tmp_path / "start"))
    with Pool(0) as pool:
        setup, groups, rewards = sample(config, None, pool, problems=6, samples=4)
        again, others = (
            sample(config, tmp_path / "start", pool, problems=6, samples=4, number=number)[1] for number in (0, 1)
        )
        found = select(config, None, pool, problems=6, samples=4, least=1.5)
        hinted = select(config, None, pool, problems=6, samples=4, least=1e9, hint="{question}")
    texts = lambda groups: [[x.text for x in group.episodes] for group in groups]  # noqa: E731
    assert texts(groups) == texts(again)
    assert {x.example.prompt for x in groups}.isdisjoint({x.example.prompt for x in others})
    assert (hinted.counts["problems with a hint"], hinted.counts["written"]) == (6, 0)
    assert found.counts["samples"] == 24 == len(rewards.values)
    assert found.counts["written"] == len(found.records) > 0
    assert found.counts["written"] == found.counts["right"] - found.counts["duplicates of right samples"]
    assert all(x["reward"] >= 1.5 for x in found.records)
    path, pairs = tmp_path / "own.jsonl", tmp_path / "pairs.jsonl"
    for file, keep in ((path, "best"), (pairs, "pairs")):
        records = selected(setup, groups, rewards, keep).records
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        assert records
    learning = changed(config, sft={"sources": {"own": SourceConfig(str(path))}})
    rows = chat_rows(make_setup(learning, problems=False, run="sft"))
    assert rows.facts["data/own/left_out"] == 0
    prompts = {tuple(x.episodes[0].sequences[0].prompt.tolist()) for x in groups}
    row = rows.of["own"][0]
    assert tuple(row.tokens[: int(np.argmax(row.trained))].tolist()) in prompts  # the policy's own prompt, to the token
    preferring = changed(config, preferences={"sources": {"own": SourceConfig(str(pairs))}, "heldout_share": 0.0})
    assert pair_rows(make_setup(preferring, problems=False, run="preferences"))[0].facts["data/own/left_out"] == 0


def test_tasks_of_several_turns_and_prompts_that_a_set_does_not_have_are_told(monkeypatch):
    task = TaskConfig(options={"digits": 3}, environment="tests.training.keys:again")
    with pytest.raises(ConfigError, match=r"config\.tasks\.modsum\.environment"), Pool(0) as pool:
        select(dataclasses.replace(TINY, tasks={"modsum": task}), None, pool, problems=1, samples=1)
    shots = dataclasses.replace(TINY, tasks={"modsum": TaskConfig(options={"digits": 3}, shots=2)})
    shots = changed(shots, tokenizer="bytes", rollout={"max_prompt_length": 40}, policy={"max_length": 60})
    with by_hand(monkeypatch, make_setup(shots)), Pool(0) as pool:
        assert "2 shots" in select(shots, None, pool, problems=2).notes[0]


@contextlib.contextmanager
def by_hand(monkeypatch, setup, hinted=(), drawn=None, parts=((0, 1),), dies_at=None):
    """`select` gets the groups of `PROBLEMS`, or with a hint those of `hinted`, and `drawn` what it asks for."""
    plain, drawn = groups_of(), [] if drawn is None else drawn

    def draw(indices, change):
        if dies_at in indices:
            raise KeyboardInterrupt
        drawn.append((list(indices), None if change is None else change(plain[indices[0]].example)))
        groups = groups_of(PROBLEMS if change is None else hinted)
        groups = [groups[i] for i in indices]
        return groups, reward((("score", 2.0),), groups)

    @contextlib.contextmanager
    def opened(*_, **__):
        yield Draws(setup, 3, [group.example for group in plain], [list(part) for part in parts], draw)

    with monkeypatch.context() as patched:
        patched.setattr(selection, "opened_draws", opened)
        yield


def test_problems_without_a_right_sample_are_asked_again_with_a_hint_and_kept_without(setup, monkeypatch):
    hinted, drawn = [[], [("5", 0.0, "stop"), ("2", 1.0, "stop"), ("12", 1.0, "stop"), ("2", 1.0, "stop")]], []
    long = changed(TINY, rollout={"max_prompt_length": 9})
    setup = dataclasses.replace(setup, config=long)
    with by_hand(monkeypatch, setup, hinted, drawn), Pool(0) as pool:
        found = select(long, None, pool, problems=2, hint="{answer}={question}", most=1)
        assert select(long, None, pool, problems=2, most=1).counts.keys() == found.counts.keys() - {
            "problems with a hint", "right with a hint",
        }  # fmt: skip
        for wrong in ("{answer}", "{question}{question}{question}{question}", "{question}é"):
            with pytest.raises(ConfigError, match="hint"):
                select(long, None, pool, problems=2, hint=wrong)
        with pytest.raises(ConfigError, match="'best'"):
            select(long, None, pool, problems=2, hint="{question}", keep="best")
    (_, plain), (indices, example) = drawn[:2]
    assert plain is None
    assert (indices, example.prompt, example.problem) == ([1], "2=11=", "11=")
    assert [(x["prompt"], x["completion"], x.get("hint")) for x in found.records] == [
        ("01=", "12", None), ("11=", "2", True),
    ]  # fmt: skip
    counts = found.counts
    assert (counts["problems with a hint"], counts["right with a hint"], counts["written"]) == (1, 2, 2)
    assert counts["problems without a right sample"] == 1


def test_a_set_goes_on_behind_the_problems_that_an_earlier_process_has_finished(setup, tmp_path, monkeypatch):
    part, parts, drawn = tmp_path / "set.part", ((0,), (1,)), []
    with by_hand(monkeypatch, setup, parts=parts), Pool(0) as pool:
        whole = select(TINY, None, pool, problems=2, least=1.0)
    with by_hand(monkeypatch, setup, parts=parts, dies_at=1), Pool(0) as pool, pytest.raises(KeyboardInterrupt):
        select(TINY, None, pool, problems=2, least=1.0, part=part)
    with by_hand(monkeypatch, setup, drawn=drawn, parts=parts), Pool(0) as pool:
        found = select(TINY, None, pool, problems=2, least=1.0, part=part)
        assert [indices for indices, _ in drawn] == [[1]]
        assert found == whole
        select(TINY, None, pool, problems=2, least=0.5, part=part)  # another set
    assert [indices for indices, _ in drawn] == [[1], [0], [1]]
    part.write_text('{"records": []}\n')
    with by_hand(monkeypatch, setup), Pool(0) as pool, pytest.raises(ConfigError, match=str(part)):
        select(TINY, None, pool, problems=2, part=part)
