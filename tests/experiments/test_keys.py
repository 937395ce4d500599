"""The command `keys`."""

import re
import sys

from experiments.keys import keys_of, meanings_of
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
