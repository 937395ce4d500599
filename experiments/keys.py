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
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rlvr_jax.algorithm_rules import CHOICES
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.objectives import LOSSES
from rlvr_jax.learner.presets import PRESETS
from rlvr_jax.learner.rewards import term_names

from . import command
from .cli import show

_WIDTH = 100
_MOST_HINTS = 4  # keys that are proposed for an unknown one


def main(*names: str) -> None:
    config = command.config() if command.FLAGS.config is not None else Config()
    keys = list(keys_of(config, Config()))
    known = {".".join(parts[:i]) for parts in (key.split(".") for key, *_ in keys) for i in range(1, len(parts) + 1)}
    for name in names:
        if name not in known:
            raise ConfigError(f"config.{name}: there is no such key; {hint_for(name, known)}")
    lines = []
    for key, value, default, meaning in keys:
        if not names or any(f"{key}.".startswith(f"{name}.") for name in names):
            lines.append(f"{key} = {value!r}" + ("" if value == default else f"  (default {default!r})"))
            lines.append(_indented(meaning, 4))
            lines += [_indented(line, 8) for line in choices_of(key) if key in names]
    show("\n".join(lines))


def hint_for(name: str, known: Collection[str]) -> str:
    """Words on the keys that may have been meant: those of that last part in other groups, or of a similar name."""
    last = {key: key.rpartition(".")[2] for key in sorted(known)}
    own = name.rpartition(".")[2]
    found = [key for key, part in last.items() if part == own] or difflib.get_close_matches(name, known, 1, 0.75)
    similar = difflib.get_close_matches(own, set(last.values()), 1, 0.75)
    found = found or [key for key, part in last.items() if part in similar]
    shown = ", ".join(map(repr, found[:_MOST_HINTS]))
    return f"did you mean {shown}?" if found else "`rlvr keys` lists all"


def choices_of(key: str) -> list[str]:
    """The named values of a key with what is known of each, after the symbols of their formulas; none for other keys.

    What is known of a function is the first paragraph of its docstring, with the formula that it may end in.
    """
    group, _, name = key.partition(".")
    if key == "reward":
        return [*map(repr, term_names()), "'module:function'", "and the parts of the verifier, see docs/rewards.md"]
    if key == "algorithm.preset":
        return [f"{choice!r}: {chosen.source}" for choice, chosen in PRESETS.items()]
    table = (CHOICES | {"loss": LOSSES}).get(name, {}) if group == "algorithm" else {}
    documented = [function for function in table.values() if inspect.getdoc(function)]
    of_module = inspect.getdoc(inspect.getmodule(documented[0])) or "" if documented else ""
    lines = [" ".join(text.split()) for text in of_module.split("\n\n")[1:]]
    for choice, function in table.items():
        text = _first_paragraph(function)
        lines.append(f"{choice!r}: {text}" if text else repr(choice))
    return lines


def _first_paragraph(function: Any) -> str:
    if function is None:
        return "no such term"
    first, *others = (inspect.getdoc(function) or "").split("\n\n")
    return " ".join((first + " " + others[0] if first.endswith(":") and others else first).split())


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
