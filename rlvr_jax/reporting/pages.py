"""Self-contained HTML pages from templates that extend `page.html`."""

import functools
import io
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_MAX_CHARACTERS = 2000  # of a completion or prompt that are shown


def page(template: Path, /, **values: Any) -> bytes:
    """A page; all its text is escaped."""
    rendered = _templates(template.parent).get_template(template.name).render(**values)
    return rendered.encode("utf-8", errors="replace")


@functools.lru_cache  # to compile a template takes longer than to render it
def _templates(folder: Path) -> "jinja2.Environment":
    import jinja2

    folders = jinja2.FileSystemLoader([folder, Path(__file__).parent])
    return jinja2.Environment(loader=folders, autoescape=True, undefined=jinja2.StrictUndefined)


def shown(text: str) -> str:
    """Model text with visible control characters, truncated to a readable length."""
    cut = text[:_MAX_CHARACTERS]
    visible = "".join(
        f"\\x{ord(c):02x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t" else c for c in cut
    )
    return visible + (f"\n… {len(text) - len(cut):,} more characters" if len(cut) < len(text) else "")


def svg_of(figure: Any) -> bytes:
    """A figure of matplotlib as an SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def inline_svg(svg: bytes, index: int) -> str:
    """An SVG to embed in a page: without XML header, with ids unique in the page."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    for mark in ('id="', 'href="#', "url(#"):
        text = text.replace(mark, f"{mark}p{index}-")
    return text
