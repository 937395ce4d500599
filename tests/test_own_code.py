"""The files of the user's functions, and how their versions are told apart."""

import sys
from pathlib import Path

from rlvr_jax import own_code
from rlvr_jax.config import Config, TaskConfig
from rlvr_jax.own_code import changed, checksums, recorded, versions


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def config_of(verifier, *terms):
    tasks = {"mine": TaskConfig(verifier=verifier, template="Note: {question}", options={"at": "none:where"})}
    return Config(tasks=tasks, reward=(("score", 1.0), *((term, 0.5) for term in terms)))


def test_the_files_of_a_function_are_its_module_and_the_users_modules_that_it_imports(tmp_path):
    files = {
        "top_of_mine.py": "import json, numpy, rlvr_jax\nfrom helper_of_mine import size\nraise SystemExit\n",
        "helper_of_mine.py": "def size():\n    import below_of_mine.deep\n",
        "below_of_mine/__init__.py": "from . import other\n",
        "below_of_mine/deep.py": "from .other import x\nfrom ..top_of_mine import y\n",
        "below_of_mine/other.py": "x = (\n",
        "unused.py": "",
    }
    write(tmp_path, files)
    config = config_of(
        f"{tmp_path}/top_of_mine.py:check", f"{tmp_path}/unused.py:term", "math:sqrt", f"{tmp_path}/no.py:f"
    )
    found = checksums(config)
    assert {key: sorted(of) for key, of in found.items()} == {
        "tasks.mine.verifier": sorted(files.keys() - {"unused.py"}),
        "reward": ["unused.py"],
    }
    options = {"tools": [{"call": f"{tmp_path}/unused.py:f"}]}
    of_option = checksums(Config(tasks={"mine": TaskConfig(options=options)}))
    assert of_option == {"tasks.mine.options.tools": found["reward"]}
    assert checksums(config, own_code.OF_TASKS).keys() == {"tasks.mine.verifier"}
    write(tmp_path, {"below_of_mine/other.py": "x = 1"})
    assert changed(found, checksums(config)) == ["below_of_mine/other.py (config.tasks.mine.verifier)"]


def test_a_module_is_found_on_the_path_and_in_the_working_directory_and_an_installed_one_is_one_file(
    tmp_path, monkeypatch
):
    write(tmp_path, {"path/of_path/rules.py": "from of_path import more", "path/of_path/more.py": "", "here_.py": ""})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*(x for x in sys.path if x), f"{tmp_path}/path"])
    assert sorted(checksums(config_of("of_path.rules:check"))["tasks.mine.verifier"]) == ["more.py", "rules.py"]
    assert [*checksums(config_of("here_:check"))["tasks.mine.verifier"]] == ["here_.py"]
    assert [*checksums(config_of("absl.flags:check"))["tasks.mine.verifier"]] == ["../__init__.py", "__init__.py"]
    assert checksums(config_of("of_path.none:check")) == checksums(config_of("modsum")) == {}


def test_versions_are_told_by_file_keys_and_those_that_have_them(tmp_path):
    old, new = {"a": {"x.py": "1", "y.py": "1"}, "b": {"x.py": "1"}}, {"a": {"x.py": "2"}, "b": {"x.py": "2"}, "c": {}}
    assert changed(old, new) == ["x.py (config.a, config.b)"]
    assert changed(old, {"a": {"z.py": "3"}}) == []  # another function, which the config says
    labels = [f"run {i}" for i in range(6)]
    assert versions(dict.fromkeys(labels, old) | {"last": new}) == [
        "x.py (config.a, config.b): one version in run 0, run 1, run 2 and 3 more; another in last"
    ]
    assert versions(dict.fromkeys(labels, old)) == []
    for number, text in enumerate(("torn", "[]", "{}", '{"code": {"a": "1f"}}', '{"code": 3}')):
        write(tmp_path, {f"{number}.json": text})
        assert recorded(tmp_path / f"{number}.json") == {}
    assert recorded(tmp_path / "none.json") == {}


def test_a_file_that_can_not_be_read_is_left_to_the_function_that_needs_it(tmp_path, monkeypatch):
    write(tmp_path, {"mine.py": "import lost_of_mine", "lost_of_mine.py": ""})
    read = Path.read_bytes

    def unreadable(path):
        if path.name == "lost_of_mine.py":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    found = checksums(config_of(f"{tmp_path}/mine.py:check"))
    assert found["tasks.mine.verifier"].keys() == {"mine.py", "lost_of_mine.py"}
