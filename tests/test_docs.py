"""The pages: links and anchors lead somewhere, commands exist, blocks of Python parse; the pages of the site."""

import ast
import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.builtin import summaries
from experiments.cli import COMMANDS
from tests.experiments.runs import ROOT

PAGES = [ROOT / "README.md", ROOT / "tests" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    """The Markdown of a page, or of a notebook's cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def anchors(path: Path) -> set[str]:
    """Names of the headings, as sites make them."""
    titles = re.findall(
        r"^#+ (.*)$", CODE.sub(lambda m: m[0].strip("`").replace("\n", " "), text_of(path)), re.MULTILINE
    )
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text_of(page))):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page if not name else page.parent / name
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(target)
    assert wrong == []


def lines_of_commands():
    """(page, command line) of all commands on the pages, with continued lines joined."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found = re.findall(r"^ *((?:[A-Z_]+=\S+ )*(?:rlvr|python -m experiments\.)[ \w].*)$", text, re.MULTILINE)
        for line in [*found, *re.findall(r"`((?:rlvr|python -m experiments\.)[^`\n]*)`", text)]:
            yield page.name, re.sub(r"\s+", " ", line)


def test_every_command_and_config_on_the_pages_exists():
    def problems(line):
        commands = re.findall(r"(?:^|[|;(] ?)rlvr ([a-z]+)\b", line)
        yield from (name for name in commands if name not in COMMANDS)
        modules = re.findall(r"python -m (experiments\.[\w.]+)", line)
        yield from (name for name in modules if importlib.util.find_spec(name) is None)
        configs = [name for name in re.findall(r"--config=([\w/]+)(?![\w/.])", line) if not name.isupper()]
        yield from (name for name in configs if name not in summaries() and not (ROOT / name).exists())

    lines = list(lines_of_commands())
    wrong = [(page, line, name) for page, line in lines for name in problems(line)]
    assert wrong == []
    assert len(lines) > 60


def test_every_block_of_python_parses():
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            ast.parse(block)


def test_commands_that_are_shown_whole_are_lines_of_a_shell():
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            shlex.split(block, comments=True)


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_navigation_has_every_page_notebook_and_package(hooks):
    _, *groups = hooks.on_config(SimpleNamespace(nav=None)).nav
    listed = [name for group in groups for names in group.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {name for name in listed if "/" not in name} == {path.name for path in (ROOT / "docs").glob("*.md")}
    assert [name for name in listed if "notebooks/" in name] == [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]
    api = dict(hooks.packages())
    assert "::: rlvr_jax.learner.losses" in api["rlvr_jax.learner"]
    assert "::: kernels.attention" in api["rlvr_jax.kernels"]


def test_links_of_pages_become_links_of_the_site(hooks):
    text = "[a](docs/runs.md#the-report) ![p](docs/quickstart.png) [c](rlvr_jax/config.py) `[x](y)` [n](colabs) [w](https://x.y/z)"
    assert hooks.linked(text, "README.md", "index.md") == (
        "[a](runs.md#the-report) ![p](quickstart.png) [c](files/rlvr_jax/config.py.md) `[x](y)` "
        "[n](notebooks/00_quickstart.md) [w](https://x.y/z)"
    )
    assert hooks.linked("[c](../configs/base.py)", "docs/start.md", "start.md") == "[c](files/configs/base.py.md)"
    assert (
        hooks.linked("[r](../docs/runs.md)", "colabs/00_quickstart.ipynb", "notebooks/00_quickstart.md")
        == "[r](../runs.md)"
    )


def test_the_readme_is_a_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert text.count("![") == 1
