"""A task, a verifier and a reward of one's own: what is wrong with them is named before anything is compiled."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.config_rules import check
from rlvr_jax.errors import ConfigError
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup, training_mixture
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import TINY

pytestmark = pytest.mark.usefixtures("one_device")

REWARD = """
def exact(completion, reference):
    return completion == reference

def parts(completion, reference, *, bonus=0.5):
    return {"score": completion == reference, "bonus": bonus}

def raises(completion, reference):
    return float(completion) == 1

def one(completion):
    return 1.0

def text(completion, reference):
    return "yes"

def large(completion, reference):
    return 10

def hangs(completion, reference):
    while completion:
        pass
    return 0.0

def brevity(verdict, trajectory):
    return 1 / (1 + len(trajectory.tokens))

def nan(verdict, trajectory):
    return float("nan")

def short():
    return 0.0

def alone(group):
    return 0.0
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A function that makes a config with one task of one's own, in a working directory that has its files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_reward.py").write_text(REWARD)
    records = [{"question": f"{i}{i + 1}=", "answer": str(i)} for i in range(9)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def config(reward=(("score", 1.0),), **task):
        task = {"file": "mine.jsonl", "prompt": "question", "reference": "answer"} | task
        return dataclasses.replace(TINY, tasks={"mine": TaskConfig(**task)}, reward=reward)

    return config


def test_options_that_the_verifier_of_a_task_does_not_take_are_named():
    task = TaskConfig(name="modsum", options={"digits": 3}, verifier_options={"nope": 1})
    config = dataclasses.replace(TINY, tasks={"t": task})
    with pytest.raises(ConfigError, match=r"config\.tasks\.t: .*'nope'"):
        make_setup(config)


def test_a_task_of_ones_own_is_a_task_like_any_other(mine):
    terms = (("score", 1.0), ("bonus", 0.1), ("own_reward:brevity", 0.2), ("format/length(high=3)", 0.1))
    setup = make_setup(mine(terms, verifier="own_reward:parts", verifier_options={"bonus": 0.25}, heldout_share=0.2))
    task = training_mixture(setup).tasks[0]
    assert (task.name, task.verifier, task.verifier_options) == ("mine", "own_reward:parts", {"bonus": 0.25})
    assert task.num_examples("train") + task.num_examples("heldout") == 9
    assert task.num_examples("heldout") >= 1
    example = task.example("train", 0)
    assert (example.task, example.id) == ("mine", "mine/train/0")
    assert set(setup.tokenizer.get_vocab()) == {"<pad>", "<eos>", *"0123456789="}


def test_a_template_may_name_the_field_of_the_prompt_and_has_characters_of_its_own(mine):
    for place in ("{question}", "{field}"):
        records = [{"field": f"{i}{i + 1}", "answer": "1"} for i in range(9)]
        Path("q.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        own = {"file": "q.jsonl", "prompt": "field", "verifier": "own_reward:exact", "template": f"[{place}]"}
        setup = make_setup(mine(**own))
        assert re.fullmatch(r"\[\d{2}\]", setup.tasks["mine"].example("train", 0).prompt)


def test_a_builtin_task_may_have_another_verifier_and_other_words(mine):
    task = TaskConfig(options={"digits": 2}, verifier="own_reward:exact", template="{question}")
    setup = make_setup(dataclasses.replace(mine(), tasks={"modsum": task}))
    assert setup.tasks["modsum"].verifier == "own_reward:exact"
    worded = dataclasses.replace(task, template=">{question}")
    setup = make_setup(dataclasses.replace(mine(), tasks={"modsum": worded}))
    assert re.fullmatch(">[0-9]{2}=", setup.tasks["modsum"].example("train", 0).prompt)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"verifier": "own_reward:absent"},
            r"tasks\.mine: .*own_reward\.py has no 'absent'; its functions: .*brev",
        ),
        ({"verifier": "nowhere:f"}, r"tasks\.mine: 'nowhere:f': no module 'nowhere'"),
        ({"verifier": "maths"}, r"tasks\.mine: there is no verifier 'maths'"),
        ({"verifier": "own_reward:one"}, r"mine\.verifier: .*own_reward\.py, line 11: 'own_reward:one' takes \(compl"),
        (
            {"verifier": "own_reward:raises"},
            r"own_reward:raises' on the completion '' of mine/train/0: ValueError.*/own_reward\.py, line 9\)",
        ),
        ({"verifier": "own_reward:text"}, r"returned str, not a number.*own_reward\.py, line 14\)"),
        ({"verifier": "own_reward:large"}, r"score 10\.0, which is not from 0 to 1 .*/own_reward\.py, line 17\)"),
        ({"verifier": "own_reward:exact", "verifier_options": {"x": 1}}, r"line 2: 'own_reward:exact' takes"),
        (
            {"verifier": "gsm8k", "reference": "question"},
            r"mine\.jsonl, line 1: the reference '01=' can't be used",
        ),
        (
            {"verifier": "own_reward:exact", "prompt": "q"},
            r"tasks\.mine: mine\.jsonl, line 1: no field 'q'",
        ),
        (
            {
                "verifier": "own_reward:exact",
                "environment": "propose",
                "environment_options": {"verifier": "own_reward:exact"},
            },
            r"mine\.environment_options: the tokenizer has no 'T' .*; set `wrong` to .*'bytes'",
        ),
        (
            {"verifier": "own_reward:exact", "template": "{q}="},
            r"mine\.template .*\{question\}, .*\{question\}, the field",
        ),
        ({"verifier": "own_reward:exact", "file": "absent.jsonl"}, r"tasks\.mine\.file: .*absent\.jsonl"),
        (
            {"verifier": "own_reward:exact", "heldout_file": "mine.jsonl"},
            r"mine\.jsonl, line 1: .* training prompt",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_named(task, message, mine):
    with pytest.raises(ConfigError, match=r"^config\." + ".*" + message):
        make_setup(mine(**task))


def test_a_verifier_that_hangs_is_named_when_its_time_is_up(mine, tmp_path):
    hangs = mine(verifier="own_reward:hangs")
    line = r"^config\.tasks\.mine\.verifier: .*own_reward\.py, line 20: .* of mine.*: timed out after 0\.5 s"
    with Pool(1, timeout=0.5) as pool, pytest.raises(ConfigError, match=line):
        train(hangs, tmp_path / "run", pool)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("own_reward:absent", r"own_reward\.py has no 'absent'"),
        ("own_reward:short", r"own_reward\.py, line 31: 'own_reward:short' takes \(\)"),
        ("own_reward:alone", "'own_reward:alone' raised TypeError: .*not 0.0"),
        ("own_reward:nan", r"the term 'own_reward:nan' is nan"),
        ("own_reward", r"there is no term 'own_reward'; .*: .*, module:function"),
    ],
)
def test_what_is_wrong_with_a_term_of_the_reward_is_named(term, message, mine):
    with pytest.raises(ConfigError, match=r"^config\.reward: .*" + message):
        make_setup(mine((("score", 1.0), (term, 1.0)), verifier="own_reward:exact"))


def test_a_prompt_that_is_too_long_is_named_with_its_line_and_the_keys(mine):
    config = mine(verifier="own_reward:exact", heldout_share=0.0)
    short = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, max_prompt_length=2))
    with pytest.raises(ConfigError, match=r"mine/train/0 \(.*jsonl, line 1\) .*max_prompt_length = 2.*max_length"):
        make_setup(short)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, r"mine\.file needs a config\.tasks\.mine\.verifier"),
        ({"verifier": "math", "name": "gsm8k"}, "has a file and the name or options of a built-in task"),
        ({"verifier": "math", "options": {"digits": 3}}, "has a file and the name or options of a built-in task"),
        ({"verifier": "math", "heldout_share": 1.0}, r"mine\.heldout_share must be in \[0, 1\), not 1\.0"),
        ({"verifier": "math", "template": "Q:"}, r"mine\.template lacks the place \{question\}"),
        ({"file": "", "heldout_file": "a.jsonl"}, r"mine\.heldout_file goes with a config\.tasks\.mine\.file"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(task, message, mine):
    with pytest.raises(ConfigError, match=message):
        check(mine(**task), 1)
