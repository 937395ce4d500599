"""The page about environments: its commands train, and its configs can be made."""

import re

import pytest

from rlvr_jax.envs import Call, Say, make_env
from rlvr_jax.reporting import jsonl
from rlvr_jax.tasks import make_task
from tests.data.read import lines_of
from tests.experiments.calls import run_script
from tests.experiments.runs import ROOT, TURNS, overrides

PAGE = (ROOT / "docs" / "environments.md").read_text()
COMMANDS = dict(
    zip(("kv_search", "grid_world", "self_play"), re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL), strict=True)
)
MOVES, PROPOSALS, OF_VERIFIERS, TOOLS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_page_train(name, tmp_path, commands):
    run_script(COMMANDS[name].replace(f"--config={name}", f"--config={name} {overrides(TURNS)}"), tmp_path, commands)
    _, first, second = jsonl.read(tmp_path / "runs" / name / "metrics.jsonl")
    for row in (first, second):
        assert row["verify/errors"] == 0
        part = {
            "kv_search": "train/reward_calls",
            "grid_world": "train/reward_moves",
            "self_play": "task/self_play/second/reward",
        }
        assert part[name] in row
        assert ("tool/search/calls" in row) == (name == "kv_search")
    tasks = {"kv_search": ("one_hop", "two_hops"), "grid_world": ("grid_world",)}.get(name, ("self_play",))
    assert any(f"task/{task}/turns" in row for task in tasks for row in (first, second))


class Anything:
    """An object that has every attribute."""

    def __getattr__(self, name):
        self.__dict__[name] = Anything()
        return self.__dict__[name]


def configured(program):
    config = Anything()
    exec(program, {"config": config})
    return config


@pytest.mark.parametrize(("program", "name"), [(MOVES, "sokoban"), (PROPOSALS, "sudoku"), (OF_VERIFIERS, "wordle")])
def test_the_games_of_the_page_begin_and_their_parts_are_rewards(program, name):
    config = configured(program)
    options = vars(getattr(config.tasks, name))
    if name == "wordle":
        options["options"] = {"environment": "tests.envs.guessing:guessing"}
    task = make_task(options["name"], options["options"])
    env = make_env(options["environment"], options.get("environment_options"))
    state, prompt = env.start(task.example("train", 0))
    assert prompt
    _, action = env.step(state, "1")
    assert isinstance(action, Call if name == "sudoku" else Say)
    known = {"score", "solved", "reward", *env.parts}
    assert {term for term, _ in config.reward} <= known


def test_the_tools_of_the_page_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines = lines_of(ROOT / "tests" / "data" / "corpus" / "acl_anthology_2016_2020.jsonl")
    (tmp_path / "papers.jsonl").write_bytes(b"\n".join(lines[:5]))

    config = configured(TOOLS)
    task = config.tasks.papers
    env = make_env(task.environment, task.environment_options)
    assert {"search_calls", "open_calls"} <= set(env.parts)
    assert [path.name for path in (tmp_path / "rlvr_jax").iterdir()] == ["corpora"]
