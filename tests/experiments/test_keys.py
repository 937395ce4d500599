"""The command `keys`."""

import re
import sys

from experiments.keys import choices_of, hint_for, keys_of, meanings_of
from rlvr_jax.algorithm_rules import CHOICES
from rlvr_jax.config import Config, JudgeConfig, flatten, from_dict, to_dict
from rlvr_jax.learner.lengths import LENGTHS
from tests.experiments.runs import error_of, run

LINE = [sys.executable, "-m", "experiments.keys"]


def test_every_key_has_a_meaning():
    config = from_dict({"judges": {"mine": {"model": "m"}}, "seed": 3})
    listed = {key: (value, default, meaning) for key, value, default, meaning in keys_of(config, Config())}
    empty = {"tasks.modsum.options", "tasks.modsum.verifier_options", "tasks.modsum.environment_options"}
    assert listed.keys() - empty >= flatten(to_dict(config)).keys() - empty
    assert [key for key, (_, _, meaning) in listed.items() if not meaning] == []
    assert listed["seed"][:2] == (3, 0)
    assert listed["judges.mine.model"][:2] == ("m", JudgeConfig().model)
    assert listed["training.profile"][2].endswith("Step 1 is mostly compilation.")


def test_names_that_share_a_line_share_its_meaning():
    class Record:
        """A record.

        Attributes:
          a, b: first
            line.

            After a gap.
          c: other.
        """

    assert meanings_of(Record) == {"a": "first line. After a gap.", "b": "first line. After a gap.", "c": "other."}


def test_an_unknown_key_is_answered_by_those_that_end_in_its_last_part_or_a_similar_one():
    known = {"algorithm", "algorithm.clip", "critic.clip", "optimizer", "rollout.temperature", "evaluation.every"}
    hints = {
        "clip": "'algorithm.clip', 'critic.clip'",
        "evaluation.temperature": "'rollout.temperature'",
        "temprature": "'rollout.temperature'",
        "optimiser": "'optimizer'",
    }
    assert {name: hint_for(name, known) for name in hints} == {x: f"did you mean {y}?" for x, y in hints.items()}
    assert "did you mean" not in hint_for("zzz", known)


def test_named_values_have_their_whole_formulas_after_the_symbols():
    first, *clips = choices_of("algorithm.clip")
    assert all(f"{symbol} " in first for symbol in ("u is", "A the", "sg[x] is"))
    assert "sqrt(1 + 4 e_high / q)" in next(line for line in clips if line.startswith("'dcpo'"))
    for key in (f"algorithm.{name}" for name in CHOICES):
        assert not [line for line in choices_of(key) if line.endswith(":") or " " not in line]
    assert next(line for line in choices_of("algorithm.preset") if line.startswith("'dapo'")).count("arXiv:2503.14476")
    assert "'score'" in choices_of("reward")
    assert choices_of("seed") == choices_of("critic.clip") == []


def test_the_command_lists_the_keys_that_are_named():
    named = ["optimizer.learning_rate", "tasks.modsum", "algorithm.length_reward"]
    status, stdout, stderr = run([*LINE, "--config=quickstart", *named])
    assert status == 0, stderr
    assert all(f"\n        {choice!r}: " in stdout for choice in LENGTHS)
    assert "'exact': r - coef |target - n|." in stdout
    assert "optimizer.learning_rate = 0.0003  (default 1e-06)\n    peak value." in stdout
    assert {key.split(".")[0] for key in re.findall(r"^(\S+) = ", stdout, re.MULTILINE)} == {
        "algorithm",
        "optimizer",
        "tasks",
    }
    assert "did you mean 'optimizer'" in error_of(run([*LINE, "optimiser"]), 2)
