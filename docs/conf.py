"""The site: Sphinx, MyST and furo. `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from docstrings import argument_names, to_rst  # noqa: E402

import pass_loader  # noqa: E402

project = "pass-loader"
author = "the authors of pass-loader"
version = release = pass_loader.__version__
html_title = f"pass-loader {version}"
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["recipes/*"]
default_role = "code"
highlight_language = "none"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 120
add_module_names = False
python_use_unqualified_type_names = True

LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)]*)?\)")
# A page that is one link to a file outside docs/, for readers on GitHub, shows that file on the site.
SHOWN = {page: re.fullmatch(r"\[.*\]\((\.\./.*)\)\n", page.read_text()) for page in HERE.glob("*.md")}
PAGE_OF = {(HERE / link[1]).resolve(): page for page, link in SHOWN.items() if link}


def site_text(app: Any, name: str, source: list[str]) -> None:
    """Read the file that a page shows; lead links to such files to the pages that show them."""
    page = HERE / f"{name}.md"
    file = page
    for shown, its_page in PAGE_OF.items():
        if its_page == page:
            file = shown
            app.env.note_dependency(str(file))
            source[0] = file.read_text()

    def led(link: re.Match[str]) -> str:
        target = (file.parent / link[1]).resolve()
        relative = os.path.relpath(PAGE_OF.get(target, target), page.parent)
        return f"]({relative}{link[2] or ''})"

    source[0] = LINK.sub(led, source[0])


def short_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> Any:
    """A default that a dataclass makes is no Python, which Sphinx would not break into lines."""
    return (signature.replace("<factory>", "..."), returns) if signature else None


def docstring_to_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines, argument_names(thing))


def setup(app: Any) -> None:
    app.connect("source-read", site_text)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-process-docstring", docstring_to_rst)
