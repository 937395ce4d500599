"""Checksums of the user's functions that a config names, so that results of different versions are told apart.

Those of a run are in its environment.json, those of an evaluation in its file, under "code":
`{"tasks.mine.verifier": {"rewards.py": "5f…", "helpers.py": "09…"}}`. The files of a function are that of its module
and those of the user's modules that it imports, directly or by way of others. They are read, and not executed.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from rlvr_jax.config import Config, flatten, to_dict

Code = Mapping[str, Mapping[str, str]]  # key of the config -> file -> checksum

OF_RL, OF_TASKS = ("tasks", "reward", "algorithm"), ("tasks",)
_NAME = re.compile(r"(?P<place>[^:]+\.py|[\w.]+):[\w.]+")
_INSTALLED = tuple(os.path.realpath(sysconfig.get_path(x)) for x in ("stdlib", "platstdlib", "purelib", "platlib"))
_LISTED = 3  # labels of a group


def checksums(config: Config, sections: Sequence[str] = OF_RL) -> Code:
    """The checksum of each file of the functions that these sections of a config name.

    Files are named by their path from the folder of the function's module.
    """
    values = to_dict(config)
    found: dict[str, dict[str, str]] = {}
    for key, value in flatten({section: values[section] for section in sections}).items():
        for place in _places(value):
            roots = _roots(place)
            for path in _with_imports(roots):
                name = os.path.relpath(path, roots[-1][1].parent)
                digest = hashlib.sha256(_read(path)).hexdigest()[:16]
                files = found.setdefault(key, {})
                files[name if files.get(name, digest) == digest else str(path)] = digest
    return found


def recorded(path: Path) -> Code:
    """The checksums in a JSON file of a run or an evaluation; none if it has none, or can't be read."""
    try:
        code = json.loads(path.read_text(encoding="utf-8"))["code"]
        return {key: dict(files) for key, files in code.items()}
    except (AttributeError, KeyError, OSError, TypeError, ValueError):  # also those of an earlier version
        return {}


def changed(before: Code, after: Code) -> list[str]:
    """`rewards.py (config.tasks.mine.verifier, config.reward)`: the files that both have and that differ."""
    keys: dict[str, list[str]] = {}
    for key in before.keys() & after.keys():
        for file in before[key].keys() & after[key].keys():
            if before[key][file] != after[key][file]:
                keys.setdefault(file, []).append(f"config.{key}")
    return [f"{file} ({', '.join(sorted(keys[file]))})" for file in sorted(keys)]


def versions(codes: Mapping[str, Code]) -> list[str]:
    """`rewards.py (config.reward): one version in a, b; another in c`: the files that differ between labels."""
    labels: dict[tuple[str, str], dict[str, list[str]]] = {}
    for label, code in codes.items():
        for key, files in code.items():
            for file, digest in files.items():
                labels.setdefault((file, key), {}).setdefault(digest, []).append(label)
    keys: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (file, key), of_digest in labels.items():
        if len(of_digest) > 1:
            keys.setdefault((file, tuple(map(_listed, of_digest.values()))), []).append(f"config.{key}")
    return [
        f"{file} ({', '.join(of)}): one version in {'; another in '.join(groups)}"
        for (file, groups), of in keys.items()
    ]


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - _LISTED
    return ", ".join(labels) if more < 2 else f"{', '.join(labels[:_LISTED])} and {more} more"


def _places(value: Any) -> Iterator[str]:
    """The modules and files of the functions that a value of a config names."""
    if isinstance(value, str) and (found := _NAME.fullmatch(value)):
        yield found["place"]
    elif isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _places(item)


def _roots(place: str) -> list[tuple[str, Path]]:
    """Name and file of a function's module, after those of its packages; none if it has no file."""
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        return [(path.stem, path)] if path.is_file() else []
    roots = [] if place.partition(".")[0] in sys.stdlib_module_names else _resolved(place, "")
    return roots if roots and roots[-1][0] == place else []


def _with_imports(roots: Sequence[tuple[str, Path]]) -> list[Path]:
    """The files of a function's modules, and of the user's modules that they import."""
    todo, found, folder = list(roots), [], str(roots[-1][1].parent) if roots else ""
    while todo:
        module, path = todo.pop(0)
        if path in found:
            continue
        found.append(path)
        if not _is_installed(path):
            others = [x for name in _imported(module, path) for x in _resolved(name, folder)]
            todo += [(name, file) for name, file in others if not _is_installed(file)]
    return found


def _read(path: Path) -> bytes:
    """The content of a file; nothing of one that can't be read, which the function itself will find out."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_installed(path: Path) -> bool:
    return str(path).startswith(_INSTALLED)


def _imported(module: str, path: Path) -> list[str]:
    """Names of the modules that a file imports, anywhere; those of `from a import b` may be functions."""
    try:
        nodes = list(ast.walk(ast.parse(_read(path))))
    except (SyntaxError, ValueError, RecursionError):
        return []
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            names += [".".join([*base, alias.name]) for alias in node.names]
    return [name for name in names if name.partition(".")[0] not in {"rlvr_jax", *sys.stdlib_module_names}]


def _resolved(name: str, folder: str) -> list[tuple[str, Path]]:
    """Names and files of the modules of a dotted name, from its package on, as far as there are any.

    Args:
      name: of a module, or of something in one.
      folder: where modules are searched for besides Python's path; empty for the working directory.
    """
    found, parts, within = [], name.split("."), [folder]
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        try:
            spec = importlib.util.find_spec(part) if end == 1 else None  # does not execute a module without a package
        except (ImportError, ValueError):
            spec = None
        spec = spec or PathFinder.find_spec(part, within)
        if spec is None:
            break
        if spec.has_location and spec.origin.endswith(".py"):
            found.append((part, Path(spec.origin).resolve()))
        if not spec.submodule_search_locations:
            break
        within = list(spec.submodule_search_locations)
    return found
