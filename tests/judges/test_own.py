"""A function of the user as a judge's model."""

import json
import re
from pathlib import Path

import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.judge import Sample, make_judge
from rlvr_jax.training.judging import make_ask
from rlvr_jax.verifiers.judge import JudgeConfig

ROOT = Path(__file__).parents[2]
SOURCE = """
from rlvr_jax.judges.prompts import shown

def judge(question):
    text = shown(question)["Response"]
    if text == "none":
        return None
    if text == "exit":
        raise SystemExit(0)
    while text == "hang":
        pass
    return f"Score: {{int(text) + {more}}}"
"""


def test_a_function_judges_and_is_asked_again_once_its_file_has_changed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.format(more=1))
    config = JudgeConfig(model=f"{file}:judge", timeout=0.2)
    judge = make_judge(config, make_ask("j", config, tmp_path))
    good, broken, silent, gone, late = judge([Sample("?", text) for text in ("9", "nine", "none", "exit", "hang")])
    assert (good.score, good.error) == (1.0, None)
    assert f"{file}, line 12: ValueError" in broken.error
    assert "no text" in silent.error
    assert "SystemExit" in gone.error
    assert "TimeoutError" in late.error
    versions = {json.loads(line)["version"] for line in (tmp_path / "j.jsonl").read_text().splitlines()}
    file.write_text(SOURCE.format(more=10))
    make_ask("j", config, tmp_path)([({"role": "user", "content": "Response:\n| 9"},)])
    told = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert len({row["version"] for row in told}) == len(versions) + 1 == 2


def test_the_function_of_the_page_judges(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "judges.md").read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(block)
    config = JudgeConfig(model=f"{tmp_path / 'mine.py'}:judge")
    verdicts = make_judge(config, make_ask("j", config, None))([Sample("?", x) for x in ("short", "long" * 30)])
    assert [(x.score, x.error) for x in verdicts] == [(1.0, None), (0.0, None)]


@pytest.mark.parametrize("name", ["absent_module:judge", "json:absent", "rlvr_jax.named:check_options"])
def test_a_function_that_is_none_is_named(name):
    with pytest.raises(ConfigError, match=r"config\.judges\.j\.model.*" + name):
        make_ask("j", JudgeConfig(model=name), None)
