"""The page about long contexts: its commands train, and its environments can be made."""

import re

import pytest

from rlvr_jax.envs import ENVS, WRAPPERS, make_env
from rlvr_jax.reporting import jsonl
from tests.experiments.calls import run_script
from tests.experiments.runs import ROOT, SMALL, overrides
from tests.pages import Page

PAGE = (ROOT / "docs" / "long_contexts.md").read_text()
COMMANDS = dict(zip(("compaction", "plans"), re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL), strict=True))
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_page_train(name, tmp_path, commands):
    lengths = {"rollout.max_response_length": 4, "rollout.chunk": 3} if name == "compaction" else {}
    small = overrides(SMALL | lengths)
    run_script(COMMANDS[name].replace(f"--config={name}", f"--config={name} {small}"), tmp_path, commands)
    _, first, second = jsonl.read(tmp_path / "runs" / name / "metrics.jsonl")
    for row in (first, second):
        assert row["verify/errors"] == 0
        assert row["train/logprob_gap"] < 2e-5
        assert {"compaction": "part/held", "plans": "part/plan_tokens"}[name] in row
        assert (row["train/sequences"] > 1) == (name == "compaction")
    if name == "compaction":
        samples = Page((tmp_path / "runs" / name / "report.html").read_text()).samples
        assert {"policy", "prompt"} <= {span["author"] for sample in samples for span in sample.get("spans", ())}


class Anything:
    """A config that has every key."""

    def __getattr__(self, name):
        self.__dict__[name] = Anything()
        return self.__dict__[name]


def test_the_environments_of_the_page_are_made():
    made = []
    for block in PYTHON:
        names = {"config": Anything()}
        exec(block, names)
        if "relay" in names:
            made.append(names["relay"]())
        elif "judge" in names:
            assert names["judge"]("2+2?", "4 ", {"steps": {"2+2?": "4"}}) == 1
        else:
            task = names["config"].tasks.math
            made.append(make_env(task.environment, task.environment_options))
    assert [env.one_sequence for env in made] == [False, False, True]


def test_the_page_has_all_options():
    for name, make in WRAPPERS.items():
        (table,) = re.findall(rf"\| option of `{name}` \|.*?\n\n", PAGE, re.DOTALL)
        named = {option for row in re.findall(r"^\| (`.*?) \|", table, re.M) for option in re.findall(r"`(\w+)`", row)}
        assert named == {*make.__annotations__} - {"inner", "return"}
    assert "stream" in ENVS
