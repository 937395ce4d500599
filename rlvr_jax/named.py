"""Functions that a config names: `module:function` or `path/to/file.py:function`.

This is how a config names tasks, verifiers, reward terms, environments, advantages and losses of the user.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from rlvr_jax.errors import error_text


def is_name(text: str) -> bool:
    """True if a text has the form of a function's name."""
    return ":" in text


@functools.cache
def load(name: str) -> Callable[..., Any]:
    """The function of a name.

    A module is searched for on Python's path and in the working directory; it is executed once per process.

    Raises:
      ValueError: the name has another form, its module can't be imported, or has no such function; with the reason, and
        the file and line of a failed import.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} is not of the form 'module:function' or 'file.py:function'")
    module = _module(name, place)
    function = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            found = ", ".join(sorted(x for x, value in vars(module).items() if inspect.isfunction(value))) or "none"
            raise ValueError(f"{name!r}: {module.__file__} has no {attribute!r}; its functions: {found}")
        function = getattr(function, part)
    if not callable(function):
        raise ValueError(f"{name!r}: {attribute!r} of {module.__file__} is {type(function).__name__}, not a function")
    return function


def check_arguments(name: str, *arguments: str, **options: Any) -> None:
    """Refuses a function that can't be called with such arguments.

    Args:
      name: of the function.
      *arguments: words for its arguments, for the message.
      **options: its keyword arguments.

    Raises:
      ValueError: it can't; the message shows file, line and signature. Or as `load`.
    """
    function = load(name)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError:
        wanted = ", ".join([*arguments, *options])
        raise ValueError(f"{where(name)}: {name!r} takes {signature}, and must take ({wanted})") from None


def check_options(
    function: Callable[..., Any], options: Any, typed: bool = False, also: Collection[str] = (), skip: int = 0
) -> None:
    """Refuses options that a function does not take.

    Args:
      function: that gets them as keyword arguments.
      options: by name.
      typed: their types are held against the function's type hints, too.
      also: other allowed names, for the message.
      skip: number of the function's first arguments, which are no options.

    Raises:
      ValueError: they are not by name, one is unknown or missing, or has another type; the message names it.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"options must be a dictionary by name, not {options!r:.100}")
    try:
        takes = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):  # some built-in functions have none
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes):
        return
    takes = [parameter for parameter in takes if parameter.kind is not inspect.Parameter.VAR_POSITIONAL]
    names = [parameter.name for parameter in takes]
    if unknown := [name for name in options if name not in names]:
        allowed = ", ".join(dict.fromkeys([*names, *also])) or "none"
        raise ValueError(f"there is no option {unknown[0]!r}; the options are {allowed}")
    needed = [parameter.name for parameter in takes if parameter.default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in options]:
        raise ValueError(f"without the options {', '.join(missing)}; it needs {', '.join(needed)}")
    hints = typing.get_type_hints(function) if typed else {}
    for name, value in options.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(f"{name} must be {_words(hints[name])}, not {value!r:.100}")


def where(name: str) -> str:
    """`file.py, line 3`: the definition of the function of a name."""
    code = getattr(inspect.unwrap(load(name)), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else name


def file_of(name: str) -> str:
    """The file that defines the function of a name; empty if there is none."""
    try:
        return getattr(getattr(inspect.unwrap(load(name)), "__code__", None), "co_filename", "")
    except ValueError:
        return ""


def line_of(error: BaseException, file: str) -> str:
    """`file.py, line 3`: the last line of `file` that an exception went through; the file alone if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}" if lines else file


def import_failure(error: BaseException, file: str, what: str = "") -> str:
    """`file.py, line 3: SyntaxError: invalid syntax`: an exception of the execution of a file."""
    reason = f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else error_text(error)
    return f"{line_of(error, file)}: {what}{reason}"


def raised_at(error: BaseException, name: str = "") -> str:
    """`file.py, line 3`: the last line of the user's code that an exception went through.

    If it went through none, the beginning of the function `name`, or where it was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = _of_user(frames)
    if name and not own:
        return where(name)
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"


def placed(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """`ZeroDivisionError: division by zero (file.py, line 3)`: an exception with the last line of the user's code.

    If it went through none, the line is the beginning of `function`, whose result was refused; without, if neither is
    the user's.
    """
    places = [(frame.filename, frame.lineno) for frame in _of_user(traceback.extract_tb(error.__traceback__))]
    code = getattr(function, "__code__", None)
    if code and not places and _is_of_user(code.co_filename):
        places = [(code.co_filename, code.co_firstlineno)]
    return f"{error_text(error)} ({places[-1][0]}, line {places[-1][1]})" if places else error_text(error)


def _of_user(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if _is_of_user(frame.filename)]


def _is_of_user(file: str) -> bool:
    return not file.startswith((*sysconfig.get_paths().values(), str(Path(__file__).parent), "<"))


def _module(name: str, place: str) -> Any:
    path = Path(place).expanduser()
    if not place.endswith(".py"):
        try:
            spec = importlib.util.find_spec(place)
        except ModuleNotFoundError:  # of the package that should hold it
            spec = None
        except (Exception, SystemExit) as error:  # raised by the package on import
            raise ValueError(f"{name!r} can't be imported: {error_text(error)}") from None
        if spec is not None:
            return _imported(name, spec.origin or place, lambda: importlib.import_module(place))
        path = Path.cwd() / (place.replace(".", "/") + ".py")
    if not path.is_file():
        what = (
            f"no such file: {path.absolute()}" if place.endswith(".py") else f"no module {place!r}, and no file {path}"
        )
        raise ValueError(f"{name!r}: {what}")
    path = path.resolve()
    return _imported(name, str(path), lambda: _from_file(path))


def _from_file(path: Path) -> Any:
    # The folder's name is a part of the module's, since two files may have the same name.
    module_name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    if str(path.parent) not in sys.path:  # as for a script: it may import its neighbours
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # needed by pickle and dataclasses
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _imported(name: str, file: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise ValueError(import_failure(error, file, f"{name!r} can't be imported: ")) from None


_PLAIN: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}


def _fits(value: Any, hint: Any) -> bool:
    """True for a value of a type hint. A text is no sequence, and True no number."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(x, inner[1]) for key, x in value.items()
        )
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(x, inner[0]) for x in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    return isinstance(value, hint) if hint in _PLAIN else True


def _words(hint: Any) -> str:
    """A type hint for a message."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is not None and issubclass(origin, Mapping):
        return f"a dictionary from {_words(inner[0])} to {_words(inner[1])}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list of {_words(inner[0])}"
    return "None" if hint is type(None) else _PLAIN.get(hint, "any value")
