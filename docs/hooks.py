"""Pages of the site that lie elsewhere in the repository: mkdocs calls these functions by their names.

README.md is the first page, notebooks are shown with their outputs, packages get a page of their docstrings, and a file
that a page links to gets a page with its text.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
INDEX, NOTEBOOKS, FILES, API = "index.md", "notebooks", "files", "api"
GROUPS: Mapping[str, Sequence[str]] = {  # pages that are no guides
    "Rewards and verifiers": ("rewards.md", "verifiers.md", "verifier_measurements.md"),
    "Reference": ("algorithms.md", "metrics.md"),
    "Scale": ("scale.md", "hosts.md", "performance.md"),
    "Design": ("architecture.md",),
}
_FIRST = ("start.md", "real_model.md", "runs.md", "own_task.md", "extending.md")  # of the guides
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)?(#[^)\s]+)?\)")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".json": "json", ".sh": "bash", ".yaml": "yaml", "": "docker"}
_LONGEST = 200_000  # characters of a file that is shown


def on_config(config: Any) -> Any:
    """Makes the navigation; a page in no group is a guide."""
    pages = sorted(path.name for path in (REPOSITORY / "docs").glob("*.md"))
    others = {name for group in GROUPS.values() for name in group}
    guides = sorted(set(pages) - others, key=lambda x: (_FIRST.index(x) if x in _FIRST else len(_FIRST), x))
    groups = {"Guides": guides, **{title: list(names) for title, names in GROUPS.items()}}
    notebooks = [f"{NOTEBOOKS}/{path.stem}.md" for path in sorted((REPOSITORY / "colabs").glob("*.ipynb"))]
    groups |= {"Notebooks": notebooks, "API": [f"{API}/{name}.md" for name, _ in packages()]}
    config.nav = [INDEX, *({title: names} for title, names in groups.items())]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages."""
    from mkdocs.structure.files import File

    made: dict[str, str | bytes] = {INDEX: linked((REPOSITORY / "README.md").read_text(), "README.md", INDEX)}
    for path in sorted((REPOSITORY / "colabs").glob("*.ipynb")):
        made |= notebook(path)
    made |= {f"{API}/{name}.md": text for name, text in packages()}
    sources = {f"docs/{path.name}": path.read_text() for path in (REPOSITORY / "docs").glob("*.md")}
    sources |= {f"colabs/{path.name}": path.read_text() for path in (REPOSITORY / "colabs").glob("*.ipynb")}
    sources["README.md"] = (REPOSITORY / "README.md").read_text()
    for source, text in sources.items():
        for name in targets(text, source):
            if site_path(name).startswith(f"{FILES}/"):
                made[site_path(name)] = shown(REPOSITORY / name)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page to files of the repository become links to their pages."""
    if page.file.generated_by:
        return markdown
    return linked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def targets(text: str, source: str) -> Iterator[str]:
    """Paths in the repository to which the Markdown of a file links, without code."""
    for match in _LINK.finditer(_CODE.sub("", text)):
        if match[2] and ":" not in match[2]:
            yield posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))


def site_path(name: str) -> str:
    """The page, or picture, of a file of the repository."""
    if name == "README.md":
        return INDEX
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name == "colabs":
        return f"{NOTEBOOKS}/{min(path.stem for path in (REPOSITORY / 'colabs').glob('*.ipynb'))}.md"
    if name.startswith("colabs/") and name.endswith(".ipynb"):
        return f"{NOTEBOOKS}/{Path(name).stem}.md"
    return f"{FILES}/{name}.md"


def linked(text: str, source: str, page: str) -> str:
    """The Markdown of a file with links that hold on a page of the site."""

    def replaced(match: re.Match[str]) -> str:
        start, target, anchor = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        name = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (REPOSITORY / name).exists():  # a picture of the page, or mkdocs says that it leads nowhere
            return match[0]
        return f"{start}{posixpath.relpath(site_path(name), posixpath.dirname(page) or '.')}{anchor})"

    parts = _CODE.split(text)  # every other one is code
    return "".join(part if i % 2 else _LINK.sub(replaced, part) for i, part in enumerate(parts))


def notebook(path: Path) -> dict[str, str | bytes]:
    """The page of a notebook, with its pictures."""
    import nbformat
    from nbconvert import MarkdownExporter

    book = nbformat.read(path, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(book)
    page = f"{NOTEBOOKS}/{path.stem}.md"
    pictures = {f"{NOTEBOOKS}/{path.stem}_{name}": data for name, data in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"]({name})", f"]({path.stem}_{name})")
    return {page: linked(text, f"colabs/{path.name}", page), **pictures}


def packages() -> Iterator[tuple[str, str]]:
    """(name, page) of each package: the docstrings of its modules."""
    folders = [path.parent for path in sorted((REPOSITORY / "rlvr_jax").glob("*/__init__.py"))]
    for folder in (REPOSITORY / "rlvr_jax", REPOSITORY / "kernels", *folders):
        inside = folder.glob("*.py") if folder.name == "rlvr_jax" else folder.rglob("*.py")
        names = sorted(".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in inside)
        modules = sorted(name.removesuffix(".__init__") for name in names)
        title = "rlvr_jax" if folder.name == "rlvr_jax" else f"rlvr_jax.{folder.name}"
        yield title, "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)])


def shown(path: Path) -> str:
    """A page with the text of a file, or the names in a folder."""
    title = f"# {path.relative_to(REPOSITORY)}\n\n"
    if path.is_dir():
        names = sorted(x.name for x in path.iterdir() if not x.name.startswith(("_", ".")))
        return title + "\n".join(f"- `{name}`" for name in names)
    text = path.read_text(encoding="utf-8")[:_LONGEST]
    if path.suffix == ".md":
        return re.sub(r"^# .*\n", "", re.sub(_LINK, lambda m: m[1].lstrip("!").strip("[]("), text))
    return f"{title}````{_LANGUAGES.get(path.suffix, '')}\n{text}\n````\n"
