"""An environment of two turns through a whole run: sampling, masks, judging, training, continuing, the report."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.training import functions
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.experiments.runs import ROOT
from tests.pages import Page
from tests.training.test_loop import TINY, changed, equal, params_of, rows_of

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def guess(tmp_path_factory):
    """The file of the page about extensions."""
    page = (ROOT / "docs" / "extending.md").read_text()
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def guessing" in block)
    file = tmp_path_factory.mktemp("guess") / "guess.py"
    file.write_text(program.replace('"guess.py:found"', f'"{file}:found"'))
    return file


def config_of(file, **task):
    task = TaskConfig(name=f"{file}:numbers", environment=f"{file}:guessing", **task)
    return changed(
        dataclasses.replace(TINY, tasks={"numbers": task}, reward=(("score", 1.0), ("turns_left", 0.5))),
        policy={"max_length": 16},
        rollout={"max_response_length": 8, "max_turn_length": 2, "max_prompt_length": 4},
        training={"num_steps": 3},
        evaluation={"problems": 3, "pass_problems": 3, "shown": 3},
    )


@pytest.fixture(scope="module")
def pool():
    with Pool(0) as pool:
        yield pool


@pytest.fixture(scope="module")
def run(guess, pool, tmp_path_factory):
    """A run, and the batches that it trained on."""
    workdir, batches = tmp_path_factory.mktemp("run"), []
    make_update = functions.make_update

    def recorded(*arguments):
        update = make_update(*arguments)
        return lambda states, batch: batches.append(batch) or update(states, batch)

    functions.make_update = recorded
    try:
        train(config_of(guess), workdir, pool)
    finally:
        functions.make_update = make_update
    return workdir, batches


def test_episodes_have_two_turns_unless_the_first_guess_is_right(run):
    workdir, _ = run
    rows = [row for row in rows_of(workdir, "samples.jsonl") if row["split"] == "train"]
    assert {row["turns"] for row in rows} <= {1, 2}
    for row in rows:
        first = row["completion"].split("\n")[0]
        if row["turns"] == 1:
            assert first == str(row["reference"]) or row["finish_reason"] == "length"
        else:
            assert first != str(row["reference"])
            said = "+" if not first.isdigit() or int(first) < row["reference"] else "-"
            assert f"\n[[{said}]]\n" in row["completion"]
        right = row["completion"].split("\n")[-1] == str(row["reference"])
        assert row["score"] == right
        at_once = right and row["turns"] == 1 and row["finish_reason"] == "stop"  # the environment was done
        assert row["reward"] == right + 0.5 * at_once
    assert {row["turns"] for row in rows} == {1, 2}  # so that the test has something to look at
    assert all(1 < row["train/turns"] < 2 for row in rows_of(workdir)[1:])


def test_what_the_environment_says_is_read_and_never_trained_on(run):
    _, batches = run
    heard = 0
    for batch in batches:
        actions, segments = batch.action_mask > 0, batch.segment_ids[:, -8:] > 0
        told = segments & ~actions
        heard += told.sum()
        plus, minus = 12, 13  # the last but one of the alphabet "0123456789-+:" after two special tokens
        assert set(np.unique(batch.tokens[:, -8:][told])) <= {plus, minus}
        assert (batch.columns["behaviour"][actions] < 0).all()
        assert not batch.columns["behaviour"][~actions].any()
        assert not batch.columns["advantages"][~actions].any()
    assert heard > 5


def test_sampler_and_trainer_agree_over_all_turns(run):
    workdir, _ = run
    assert all(row["train/logprob_gap"] < 2e-5 for row in rows_of(workdir)[1:])


def test_the_run_goes_on_to_the_bit_and_has_a_report(run, guess, pool, tmp_path):
    workdir, _ = run
    shutil.copytree(workdir, tmp_path / "again")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / str(step))
    report = train(config_of(guess), tmp_path / "again", pool)
    assert equal(params_of(config_of(guess), tmp_path / "again", 3), params_of(config_of(guess), workdir, 3))
    assert rows_of(tmp_path / "again", "samples.jsonl") == rows_of(workdir, "samples.jsonl")
    assert any("[[+]]" in x["completion"] or "[[-]]" in x["completion"] for x in Page(report.read_text()).samples)


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ("guess", {}, "no environment 'guess'"),
        ("{file}:guesing", {}, r"guess\.py has no 'guesing'"),
        ("{file}:found", {}, r"guess\.py, line \d+: .*option.*reference"),
        ("{file}:numbers", {}, r"guess\.py, line \d+: .*returned Task"),
        ("{file}:guessing", {"turn": 2}, "turn"),
        ("{file}:raises", {}, r"guess\.py, line \d+: RuntimeError: never"),
        ("{file}:silent", {}, "it returned None"),
        ("{file}:starts", {}, r"guess\.py, line \d+: ZeroDivisionError"),
        ("{file}:leaves", {}, r"guess\.py, line \d+: SystemExit"),
        ("{file}:steps_of_one", {}, r"guess\.py, line \d+: .*Env\.step takes \(state\), and gets 2 arguments"),
        ("{file}:part", {}, r"guess\.py, line \d+: .*Env\.parts is 'luck', not a tuple"),
        ("{file}:calls", {}, "Env.receive is None"),
        ("{file}:calls", {"receive": 5}, r"Env\.receive is 5, not a function"),
        ("{file}:calls", {"receive": max}, r"nothing\.py"),
        ("propose", {"verifier": "modsum"}, "its verifier 'modsum' can't judge numbers/train/0: .*one digit"),
    ],
)
def test_an_environment_that_can_not_be_used_is_named_before_the_run(guess, environment, options, message):
    more = guess.read_text() + (
        "\n\ndef _raise(*_):\n    raise RuntimeError('never')\n\n"
        "def raises():\n    return Env(lambda example: (0, example.prompt), _raise)\n\n"
        "def silent():\n    return Env(lambda example: (0, example.prompt), lambda state, text: (state, None))\n\n"
        "def starts():\n    return Env(lambda example: 1 / 0, _raise)\n\n"
        "def leaves():\n    return Env(lambda example: (_ for _ in ()).throw(SystemExit), _raise)\n\n"
        "def steps_of_one():\n    return Env(lambda example: (0, ''), lambda state: (state, Done()))\n\n"
        "def part():\n    return Env(lambda example: (0, ''), lambda *_: (0, Done()), parts='luck')\n\n"
        "def calls(receive=None):\n"
        "    from rlvr_jax.envs import Call, ToolCall\n"
        "    call = Call((ToolCall('nothing.py:search'),))\n"
        "    return Env(lambda example: (0, ''), lambda *_: (0, call), receive)\n"
    )
    file = guess.parent / "more" / "guess.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(more)
    config = config_of(guess)
    task = dataclasses.replace(
        config.tasks["numbers"], environment=environment.format(file=file), environment_options=options
    )
    with pytest.raises(ConfigError, match=r"^config\.tasks\.numbers\.environment: .*" + message):
        make_setup(dataclasses.replace(config, tasks={"numbers": task}))


@pytest.mark.parametrize(
    ("options", "prompt", "sequences", "message"),
    [
        ({}, 400, 1, r"config\.tasks\.modsum\.environment .*config\.rollout\.max_sequences = 1"),
        ({"reserve": 8}, 400, 2, r"max_response_length = 6 .*modsum reserves 8"),
        ({"reserve": 4, "summary_tokens": 2}, 40, 2, r"has 4 tokens, .*max_prompt_length = 40, less the \d+ "),
    ],
)
def test_windows_without_room_are_named_before_the_run(options, prompt, sequences, message):
    rollout = {"max_response_length": 6, "max_prompt_length": prompt, "max_sequences": sequences}
    config = changed(TINY, rollout=rollout, policy={"max_length": 500})
    task = dataclasses.replace(config.tasks["modsum"], environment="compaction", environment_options=options)
    with pytest.raises(ConfigError, match=message):
        make_setup(dataclasses.replace(config, tasks={"modsum": task}, tokenizer="bytes"))
