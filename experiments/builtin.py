"""The built-in configs, by name; their folder is next to this one in the repository and in the wheel."""

import ast
import difflib
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr_jax.config import Config
    from rlvr_jax.evaluation.suites import Suite
    from rlvr_jax.sweeps.stored import Experiment

FOLDER = Path(__file__).parents[1] / "configs"
_OF_RUN = Path(__file__).with_name("of_run.py")
CURVES = Path(__file__).parent / "curves"


def summaries() -> dict[str, str]:
    """Name -> first sentence of the docstring, for every runnable config."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "get_config" in functions and path.stem != "base":
            found[path.stem] = _summary(ast.get_docstring(tree) or "")
    return found


def resolve(argument: str) -> str:
    """The command line argument, with a built-in `--config=NAME` replaced by its file, and a run's config.json by one
    that reads it.

    Raises:
      ValueError: it is neither the name of a config nor a path.
    """
    flag, equals, value = argument.partition("=")
    name, colon, options = value.partition(":")  # the text after a colon is the argument of `get_config`
    if flag.lstrip("-") != "config" or not equals or not value or name.endswith(".py"):
        return argument
    file = FOLDER / f"{name}.py"
    if value.endswith(".json") and not file.is_file():
        return f"{flag}={_OF_RUN}:{value}"
    if not file.is_file() and (of_run := Path(value, "config.json")).is_file():
        raise ValueError(f"--config={value} is the folder of a run, whose config is --config={of_run}")
    if "/" in name:
        return argument
    if file.is_file():
        return f"{flag}={file}{colon}{options}"
    known = summaries()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}."
    raise ValueError(
        f"--config={name}: no built-in config has this name; a file needs its path, as in ./mine.py. {hint}"
    )


def name_of(path: str) -> str:
    """The name of a config by its resolved path: that of its file, or of the run's folder."""
    file, _, options = path.partition(":")
    return Path(options).absolute().parent.name if Path(file) == _OF_RUN else Path(file).stem


def load(config: Any) -> "Config":
    """A config from its record, nested dictionaries, the name of a built-in one, or a file that defines `get_config`.

    Raises:
      ConfigError: it holds an unknown key or a wrong type.
      ValueError: there is no such config.
    """
    from rlvr_jax.config import Config, from_dict

    if isinstance(config, Config):
        return config
    if isinstance(config, str | Path):
        config = made(resolve(f"--config={config}").removeprefix("--config="))
    return from_dict(config.to_dict() if hasattr(config, "to_dict") else config)


def made(path: str) -> Any:
    """The result of `get_config` of a file; a text after a colon is its argument.

    Raises:
      ConfigError: there is no such file or function, or it fails, with the file and line.
    """
    from rlvr_jax import named
    from rlvr_jax.errors import ConfigError

    file, _, options = path.partition(":")
    if not Path(file).is_file():
        raise ConfigError(f"--config={path}: there is no file {Path(file).absolute()}")
    try:
        found = runpy.run_path(file)
        if "get_config" in found:
            return found["get_config"](options) if options else found["get_config"]()
    except (Exception, SystemExit) as error:
        if isinstance(error, ConfigError) and Path(file) == _OF_RUN:
            raise
        raise ConfigError(f"--config={path}: {named.import_failure(error, file)}") from error
    raise ConfigError(f"--config={path}: {file} has no function get_config, whose result is the config")


def suite(name: str | Mapping[str, Any]) -> "Suite":
    """A suite by the name of a built-in one, the path of a JSON file, or what is in such a file.

    Raises:
      ConfigError: there is none of that name, or it is wrong.
    """
    from rlvr_jax.errors import ConfigError
    from rlvr_jax.evaluation.suites import read_suite, suite_of

    if isinstance(name, Mapping):
        return suite_of(name, "the suite")
    if "/" in name or name.endswith(".json"):
        return read_suite(Path(name).expanduser())
    suites = runpy.run_path(str(FOLDER / "suites.py"))["SUITES"]
    if name not in suites:
        raise ConfigError(f"--suite={name}: there are {', '.join(suites)}; a file needs its path, as in ./mine.json")
    return suite_of(suites[name], f"--suite={name}")


def curves() -> list[str]:
    """The names of the stored curves."""
    return sorted(path.stem for path in CURVES.glob("*.json"))


def curve(name: str) -> "Experiment":
    """Stored curves by the name of built-in ones, or the path of a file.

    Raises:
      ConfigError: there are none of that name, or the file is damaged.
    """
    from rlvr_jax.errors import ConfigError
    from rlvr_jax.sweeps import stored

    path = curve_file(name)
    if not path.exists():
        raise ConfigError(f"there is no stored curve {name}; there are {', '.join(curves()) or 'none'}")
    return stored.read(path)


def curve_file(name: str) -> Path:
    """The file of stored curves, by their name or path."""
    return Path(name).expanduser() if name.endswith(".json") else CURVES / f"{name}.json"


def _summary(docstring: str) -> str:
    """The first sentence on one line."""
    text = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=\S{3})\.\s", text)[0].rstrip(".:")  # not after "Dr."
