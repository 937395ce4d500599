"""The grid of a sweep: keys of the config and the values that they take.

As text, for the command line:

    algorithm.preset=grpo,dr_grpo; seed=0..4
    optimizer.learning_rate=1e-4,3e-4,1e-3
    reward=(('score',1.0),),(('score',1.0),('format',0.1))
    algorithm={'scale':'none','aggregation':'constant'},{'scale':'group_std'}
    prompt.template='a, b; c',"{prompt}"

Semicolons separate keys, commas separate values; neither does inside of brackets or quotes. `a..b` stands for all
integers from a to b. Values are Python literals, or else text; a key that holds text takes the value as it stands,
without the quotes around it. A dictionary for a group of keys changes those that it names, together; `tasks` and the
`options` of a task are replaced as a whole.
"""

import ast
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_jax.config import Config, from_dict, overridden, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.presets import preset

Grid = Mapping[str, Sequence[Any]]  # key of the config -> its values

BASE = "base"  # the name of the config without changes
_SEED = "seed"
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "\"'"
_MOST_VALUES = 10_000  # of one range


@dataclass(frozen=True)
class Variant:
    """A config of a sweep, without its seed.

    Attributes:
      name: made of all its changes, unique in the sweep, and the name of its folder.
      label: for readers: those in which the variants differ, with keys as short as they can be.
      changes: the keys that the grid sets, with their values.
    """

    name: str
    label: str
    changes: Mapping[str, Any]


def parse(text: str, config: Config) -> dict[str, list[Any]]:
    """The grid of a text.

    Args:
      text: see the module.
      config: gives the types of the values.

    Raises:
      ConfigError: the text has another form; with the part that is wrong.
    """
    found: dict[str, list[Any]] = {}
    for part in _split(text, ";", text):
        if not part.strip():
            continue
        key, equals, values = part.partition("=")
        key = key.strip().removeprefix("config.")
        if not equals or not key:
            raise ConfigError(f"--grid: {part.strip()!r} is not of the form key=value,value")
        if key in found:
            raise ConfigError(f"--grid names config.{key} twice; give it all values at once")
        current = _lookup(config, key)
        texts = [value.strip() for value in _split(values, ",", part)]
        texts = texts[:-1] if len(texts) > 1 and not texts[-1] else texts  # a comma at the end
        if not isinstance(current, str) and not all(texts):
            raise ConfigError(f"--grid: config.{key} has an empty value in {part.strip()!r}")
        found[key] = [value for text in texts for value in _values(key, text, isinstance(current, str))]
    return found


def variants(config: Config, grid: Grid, one_at_a_time: bool = False) -> tuple[tuple[Variant, ...], tuple[int, ...]]:
    """The variants of a grid, the base first, and the seeds.

    Args:
      config: of the sweep.
      grid: the key `seed` is no change, but repeats every variant; without it the seed is the config's.
      one_at_a_time: the base is the config, and each other variant has one value of one key changed. Otherwise the
        variants are all combinations, and the first one is the base.

    Raises:
      ConfigError: a key does not exist, has no values or one twice, or a value is of a wrong type; by its name.
    """
    axes = {key: [_plain(value) for value in values] for key, values in grid.items()}
    for key, values in axes.items():
        if not values:
            raise ConfigError(f"the grid gives config.{key} no values")
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise ConfigError(f"the grid gives config.{key} the value {twice[0]!r} twice")
    for key, values in axes.items():
        for value in values:
            changed(config, {key: value})  # raises for a bad one
    seeds = tuple(axes.pop(_SEED, [config.seed]))
    if one_at_a_time:
        sets = [{}, *(_flat(config, key, value) for key, values in axes.items() for value in values)]
        sets = [x for x in sets if not x or changed(config, x) != config]  # without those that are the base
    else:
        of_axes = [[_flat(config, key, value) for value in values] for key, values in axes.items()]
        sets = [_joined(parts) for parts in itertools.product(*of_axes)]
    keys = list(dict.fromkeys(key for changes in sets for key in changes))
    short = _short_keys([key for key in keys if len(sets) == 1 or any(x.get(key) != sets[0].get(key) for x in sets)])
    found = []
    for changes in sets:
        name = ",".join(f"{key}={_text(value)}" for key, value in changes.items()) or BASE
        label = ", ".join(f"{short[key]}={_as_typed(value)}" for key, value in changes.items() if key in short) or BASE
        found.append(Variant(file_name(name), label, changes))
    return tuple(found), seeds


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other values of some keys.

    Raises:
      ConfigError: a key does not exist, or a value is of a wrong type; by its name.
    """
    flat = _joined([_flat(config, key, value) for key, value in changes.items()])
    return from_dict(overridden(to_dict(config), flat))


def difference(config: Config) -> dict[str, Any]:
    """Nested dictionaries of the values that differ from the defaults, those of the preset if there is one: the inverse
    of `from_dict`."""
    name = config.algorithm.preset
    found = _difference(dataclasses.replace(Config(), algorithm=preset(name)), config)
    return found | ({"algorithm": {"preset": name} | found.get("algorithm", {})} if name else {})


def file_name(text: str) -> str:
    """The text as the name of a file: other characters replaced, and a digest appended if that loses something."""
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", text)[:100]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _difference(default: Any, config: Any) -> dict[str, Any]:
    found = {}
    for item in dataclasses.fields(config):
        old, new = getattr(default, item.name), getattr(config, item.name)
        if old == new:
            continue
        if dataclasses.is_dataclass(new):
            found[item.name] = _difference(old, new)
        elif isinstance(new, Mapping):
            records = {key: dataclasses.is_dataclass(x) for key, x in new.items()}
            found[item.name] = {key: _difference(type(x)(), x) if records[key] else x for key, x in new.items()}
        else:
            found[item.name] = new
    return found


def _flat(config: Config, key: str, value: Any) -> dict[str, Any]:
    """The changes of single keys that a value of a key stands for: several, if it is a dictionary for a group."""
    if not isinstance(value, Mapping) or not dataclasses.is_dataclass(_lookup(config, key)):
        return {key: value}
    return _joined([_flat(config, f"{key}.{name}", x) for name, x in value.items()])


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All changes together. Raises ConfigError if two set the same key, or a key and a part of it."""
    keys = [key for part in parts for key in part]
    for i, key in enumerate(keys):
        for other in keys[:i]:
            if key == other or f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                raise ConfigError(f"the grid changes config.{other} and config.{key} at once; name one of them")
    return {key: value for part in parts for key, value in part.items()}


def _lookup(config: Config, key: str) -> Any:
    """The value of a key, None for one that does not exist."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _split(text: str, separator: str, whole: str) -> list[str]:
    """The parts between separators outside of brackets and quotes."""
    parts, open_brackets, quote = [""], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        elif character in _OPENING:
            open_brackets += _CLOSING[_OPENING.index(character)]
        elif character in _CLOSING:
            if not open_brackets.endswith(character):
                raise ConfigError(f"--grid: a {character!r} closes nothing in {whole.strip()!r}")
            open_brackets = open_brackets[:-1]
        elif character == separator and not open_brackets:
            parts.append("")
            continue
        parts[-1] += character
    if quote or open_brackets:
        missing = quote or open_brackets[-1]
        raise ConfigError(f"--grid: a {missing!r} is missing in {whole.strip()!r}")
    return parts


def _values(key: str, text: str, is_text: bool) -> list[Any]:
    """The values of one part between commas."""
    if is_text:
        quoted = len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]
        return [text[1:-1] if quoted else text]
    if span := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text):
        first, last = int(span[1]), int(span[2])
        if not first <= last < first + _MOST_VALUES:
            raise ConfigError(f"--grid: {key}={text} must go from a number to one that is not below it, e.g. 0..4")
        return list(range(first, last + 1))
    if text in ("true", "false"):
        return [text == "true"]
    try:
        return [ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return [text]


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each key that no other one has."""
    endings = {key: [".".join(key.split(".")[-i:]) for i in range(1, key.count(".") + 2)] for key in keys}
    others = {key: {x for other in keys if other != key for x in endings[other]} for key in keys}
    return {key: next((x for x in endings[key] if x not in others[key]), key) for key in keys}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _as_typed(value: Any) -> str:
    """A value as in the text of a grid; its lists stand for tuples."""
    if isinstance(value, str):
        return value
    part = lambda x: repr(x) if isinstance(x, str) else _as_typed(x)  # noqa: E731
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key!r}:{part(x)}' for key, x in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"({','.join(map(part, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _plain(value: Any) -> Any:
    """A value of a notebook, as one of the config: without NumPy, and with tuples as the lists that a file has."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value.item() if hasattr(value, "item") else value
