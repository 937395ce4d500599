"""Tasks: where problems come from. Pure functions from (task, split, index) to an `Example`."""

import inspect
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.countdown import countdown
from rlvr_jax.tasks.mixture import batch
from rlvr_jax.tasks.modsum import modsum
from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of, uniform
from rlvr_jax.tasks.tokenizers import (
    byte_tokenizer,
    character_tokenizer,
    decode,
    encode,
    encode_batch,
    make_tokenizer,
)

__all__ = [
    "Example",
    "Split",
    "Task",
    "batch",
    "byte_tokenizer",
    "character_tokenizer",
    "countdown",
    "decode",
    "draw",
    "encode",
    "encode_batch",
    "make_task",
    "make_tokenizer",
    "modsum",
    "place_of",
    "split_of",
    "uniform",
]


def make_task(name: str, options: Mapping[str, Any] | None = None, data_dir: str = "", manual_dir: str = "") -> Task:
    """The task of a config.

    Args:
      name: `modsum`, `countdown` or `gsm8k`.
      options: keyword arguments of the function of that name.
      data_dir: where file data sets are kept once they are prepared.
      manual_dir: a folder with the files of a data set, to prepare it without network.

    Raises:
      ValueError: the name is unknown, or an option is unknown or out of range.
    """
    if name == "modsum":
        make, places = modsum, {}
    elif name == "countdown":
        make, places = countdown, {}
    elif name == "gsm8k":
        from rlvr_jax.tasks.gsm8k import gsm8k  # imports tensorflow_datasets, which the other tasks don't need

        make, places = gsm8k, {"data_dir": data_dir, "manual_dir": manual_dir}
    else:
        raise ValueError(f"unknown task {name!r}; choose one of: countdown, gsm8k, modsum")
    options = dict(options or {})
    known = [option for option in inspect.signature(make).parameters if option not in places]
    for option in options:
        if option not in known:
            raise ValueError(f"task {name!r} has no option {option!r}; it has: {', '.join(known)}")
    return make(**options, **places)
