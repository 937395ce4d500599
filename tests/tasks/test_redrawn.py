"""A task without end of which some prompts are too long."""

import dataclasses

import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks import modsum
from rlvr_jax.tasks.finite import redrawn


def growing():
    """The prompt is its index, so that few of the problems that are drawn are short."""
    plain = modsum(digits=3)
    example = lambda split, i: dataclasses.replace(plain.example(split, i), prompt=str(i))  # noqa: E731
    return dataclasses.replace(plain, example=example)


def test_another_problem_stands_in_for_one_that_is_too_long():
    task = growing()
    some = redrawn(task, lambda prompt: int(prompt) % 3 == 0)
    found = [some.example("train", i) for i in range(40)]
    assert all(int(example.prompt) % 3 == 0 for example in found)
    assert [example.id for example in found[:40:3]] == [task.example("train", i).id for i in range(0, 40, 3)]
    assert len({example.prompt for example in found}) == 40
    assert found == [some.example("train", i) for i in range(40)]
    for example in found:
        assert task.example(*("train", int(example.prompt))).id == example.id


def test_where_none_fits_the_problem_is_named():
    with pytest.raises(ConfigError, match=r"the prompt of modsum/train/7 is too long.*max_prompt_length"):
        redrawn(growing(), lambda _: False).example("train", 7)
