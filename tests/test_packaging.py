"""Top-level folders are installed below `rlvr_jax` and stay out of the way of packages of their names."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]


def python(code: str, directory: Path) -> str:
    """What a fresh interpreter, started in `directory`, prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_transformers_is_importable_beside_the_folder_kernels():
    # Its fast tokenizers come from modules that probe for the package `kernels`.
    code = "from transformers import PreTrainedTokenizerFast; print(PreTrainedTokenizerFast.__module__)"
    assert (ROOT / "kernels").is_dir()
    assert python(code, ROOT).startswith("transformers.")


@pytest.mark.parametrize("module", ["kernels.attention", "configs.base", "experiments.builtin"])
def test_top_level_folders_are_importable_from_any_directory(module, tmp_path):
    code = f"import rlvr_jax.{module} as module; print(module.__name__, module.__file__)"
    name, file = python(code, tmp_path).split(" ", 1)
    assert name == f"rlvr_jax.{module}"
    assert Path(file).samefile(ROOT / f"{module.replace('.', '/')}.py")


def test_their_bare_names_are_not_ours_outside_the_repository(tmp_path):
    names = ("kernels", "configs", "experiments")
    assert python(f"import importlib.util as u; print({{u.find_spec(name) for name in {names}}})", tmp_path) == "{None}"


@pytest.mark.parametrize("folder", ["configs", "experiments", "kernels", "rlvr_jax"])
def test_no_module_imports_them_by_their_bare_names(folder):
    """It would work in the repository only."""
    bare = re.compile(r"^\s*(from|import) (configs|experiments|kernels)\b", re.MULTILINE)
    assert [path.name for path in (ROOT / folder).rglob("*.py") if bare.search(path.read_text())] == []


@pytest.fixture
def arguments(monkeypatch):
    """What setup.py passes to setuptools."""
    passed = {}
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: passed.update(kwargs))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return passed


def test_every_folder_with_code_of_the_library_is_a_package_of_the_distribution(arguments):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "rlvr_jax").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    moved = {
        f"rlvr_jax.{folder}": folder.replace(".", "/")
        for folder in ("configs", "experiments", "experiments.benchmarks", "kernels")
    }
    assert set(arguments["packages"]) == names | moved.keys()
    assert arguments["package_dir"] == moved
    assert not any((ROOT / "rlvr_jax" / folder).exists() for folder in moved.values())


def test_data_files_that_the_packages_name_exist(arguments):
    for package, patterns in arguments["package_data"].items():
        folder = ROOT / arguments["package_dir"].get(package, package.replace(".", "/"))
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"setup.py names {pattern} in {package}, which has none"
