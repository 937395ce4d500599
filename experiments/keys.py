"""The keys of a config: their values, with the default where it is another, and their meaning.

    rlvr keys
    rlvr keys --config=quickstart
    rlvr keys --config=quickstart --config.rollout.slots=32 rollout optimizer.learning_rate
    rlvr keys algorithm.baseline

Arguments are keys, or groups of them; of a key that is named, its values, too, where these have names. Without
--config the values are the defaults. Any key is set on the command line by --config.KEY=VALUE.
"""

import dataclasses
import difflib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from rlvr_jax.algorithm_rules import CHOICES
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError

from . import command

_WIDTH = 100


def main(*names: str) -> None:
    config = command.config() if command.FLAGS.config is not None else Config()
    keys = list(keys_of(config, Config()))
    known = {".".join(parts[:i]) for parts in (key.split(".") for key, *_ in keys) for i in range(1, len(parts) + 1)}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"config.{name}: there is no such key" + (f"; did you mean {close[0]!r}?" if close else "")
            )
    lines = []
    for key, value, default, meaning in keys:
        if not names or any(f"{key}.".startswith(f"{name}.") for name in names):
            lines.append(f"{key} = {value!r}" + ("" if value == default else f"  (default {default!r})"))
            lines.append(_indented(meaning, 4))
            lines += [_indented(line, 8) for line in choices_of(key) if key in names]
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:  # its reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # avoids an error at the interpreter's exit


def choices_of(key: str) -> list[str]:
    """The named values of a key of the algorithm, each with the first paragraph about it; none for other keys."""
    group, _, name = key.partition(".")
    table = CHOICES.get(name, {}) if group == "algorithm" else {}
    texts = [" ".join((inspect.getdoc(x) or "").partition("\n\n")[0].split()) for x in table.values()]
    return [f"{choice!r}: {text}" if text else repr(choice) for choice, text in zip(table, texts, strict=True)]


def _indented(text: str, spaces: int) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=" " * spaces, subsequent_indent=" " * spaces)


def keys_of(config: Any, default: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(name, value, default, meaning) of every key of a config or a part of it, in order."""
    meanings = meanings_of(type(config))
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        name, parts = prefix + field.name, list(value.items()) if isinstance(value, Mapping) else []
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, usual, f"{name}.")
        elif parts and all(dataclasses.is_dataclass(part) for _, part in parts):
            for label, part in parts:
                yield from keys_of(part, type(part)(), f"{name}.{label}.")
        else:
            yield name, value, usual, meanings.get(field.name, "")


def meanings_of(record: type) -> dict[str, str]:
    """The meanings of a dataclass's fields in its docstring, by name."""
    _, _, section = (inspect.getdoc(record) or "").partition("Attributes:\n")
    found = {}
    for names, text in re.findall(r"^  (\w+(?:, \w+)*): (.*(?:\n(?:    .*)?$)*)", section, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


if __name__ == "__main__":
    command.define(workdir="")
    command.run(main, required=(), arguments="[KEY ...]")
