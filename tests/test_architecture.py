"""The order of the packages: docs/architecture.md lists them, and imports go up in that list only."""

import ast
import functools
import re
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"rlvr_jax": "rlvr_jax", "kernels": "rlvr_jax.kernels", "experiments": "rlvr_jax.experiments"}


def packages() -> list[str]:
    """The first column of the table, in its order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Packages")[1].split("\n## ")[0]
    return [name for row in re.findall(r"^\| (`[^|]*) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)]


@functools.cache
def modules() -> dict[str, set[str]]:
    """The modules of the library, each with those it imports, functions' imports included."""
    files = {}
    for folder, name in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [name, *path.relative_to(ROOT / folder).with_suffix("").parts]
            files[".".join(parts).removesuffix(".__init__")] = path
    return {module: imported(module, path, files.keys()) - {module} for module, path in files.items()}


def imported(module: str, path: Path, known: Collection[str]) -> set[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            base = ".".join(filter(None, [base, node.module or ""]))
            names = [f"{base}.{alias.name}" for alias in node.names]
            found += [name if name in known else base for name in names]
    return {name for name in found if name in known}


def package_of(module: str) -> str:
    return [*module.split("."), "rlvr_jax"][1]


def test_every_package_is_in_the_table():
    there = {package_of(module) for module in modules()} - {"rlvr_jax"}
    assert sorted(packages()) == sorted(there)


def test_imports_go_up_in_the_table():
    order = {name: place for place, name in enumerate(packages())}
    down = [
        f"{module} imports {other}"
        for module, others in modules().items()
        for other in others
        if "rlvr_jax" not in (package_of(module), package_of(other))
        and order[package_of(other)] > order[package_of(module)]
    ]
    assert down == []


def test_no_modules_import_each_other():
    TopologicalSorter(modules()).prepare()  # raises CycleError, which names the circle
