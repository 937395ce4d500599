"""Tasks: sources of problems. Pure functions from (task, split, index) to an `Example`."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from rlvr_jax import named
from rlvr_jax.tasks.countdown import countdown
from rlvr_jax.tasks.mixture import Mixture, Place, batch, counts, example_at, examples_of, places
from rlvr_jax.tasks.modsum import modsum
from rlvr_jax.tasks.own import file_task
from rlvr_jax.tasks.prompts import rendered, shots_of, worded
from rlvr_jax.tasks.reasoning_gym import reasoning_gym
from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of, uniform

__all__ = [
    "Example",
    "Mixture",
    "Place",
    "Split",
    "Task",
    "batch",
    "countdown",
    "counts",
    "draw",
    "example_at",
    "examples_of",
    "file_task",
    "make_task",
    "modsum",
    "place_of",
    "places",
    "reasoning_gym",
    "rendered",
    "shots_of",
    "split_of",
    "uniform",
    "worded",
]


# Each is a function in the module of the same name, imported on use: those that read files import
# tensorflow_datasets, which the others don't need.
TASKS = (
    "arc_agi",
    "bfcl",
    "chains",
    "countdown",
    "countdown_tinyzero",
    "digit_sums",
    "grid_world",
    "gsm8k",
    "humaneval",
    "ifeval",
    "key_value",
    "math",
    "mbpp",
    "modsum",
    "nim",
    "operations",
    "papers",
    "products",
    "programs",
    "reasoning_gym",
    "sentences",
    "stream",
    "sums",
    "tic_tac_toe",
    "verifiers_env",
)


def make_task(name: str, options: Mapping[str, Any] | None = None, data_dir: str = "", manual_dir: str = "") -> Task:
    """The task of a config.

    Args:
      name: one of `TASKS`, or the `module:function` or `file.py:function` that returns a `Task`.
      options: keyword arguments of the function of that name.
      data_dir: folder of prepared data sets.
      manual_dir: folder with the original files of data sets, for use without network.

    Raises:
      ValueError: the name is unknown, or an option is unknown or out of range.
      FileNotFoundError, ConnectionError, OSError: a data set was not found or could not be prepared.
    """
    if named.is_name(name):
        make = named.load(name)
    elif name in TASKS:
        make = getattr(importlib.import_module(f"rlvr_jax.tasks.{name}"), name)
    else:
        raise ValueError(f"unknown task {name!r}; choose one of: {', '.join(TASKS)}, or 'module:function'")
    parameters = inspect.signature(make).parameters
    places = {
        place: value for place, value in (("data_dir", data_dir), ("manual_dir", manual_dir)) if place in parameters
    }
    options = dict(options or {})
    known = [option for option in parameters if option not in places]
    any_option = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in known and not any_option:
            raise ValueError(f"task {name!r} has no option {option!r}; it has: {', '.join(known)}")
    for option, parameter in parameters.items():
        plain = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        if plain and parameter.default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"task {name!r} needs the option {option!r}")
    task = make(**options, **places)
    if not isinstance(task, Task):
        raise ValueError(f"{named.where(name)}: {name!r} returned {type(task).__name__}, not an rlvr_jax.tasks.Task")
    return task
