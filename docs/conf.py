"""The site: Sphinx, MyST and furo. `make docs` builds it into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from docstrings import to_rst  # noqa: E402

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
html_show_sphinx = False

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

# Files outside docs/, as its pages link to them for readers on GitHub: the page of the site that includes each.
INCLUDED = {
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "../csrc/README.md": "native.md",
    "../benchmarks/README.md": "measuring.md",
}


def link_to_included(app: Any, name: str, source: list[str]) -> None:
    """On the site, links to files outside docs/ go to the pages that include them."""
    for file, page in INCLUDED.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def short_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> Any:
    """A default that a dataclass makes is no Python, which Sphinx would not break into lines."""
    return (signature.replace("<factory>", "..."), returns) if signature else None


def docstring_to_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def setup(app: Any) -> None:
    app.connect("source-read", link_to_included)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-process-docstring", docstring_to_rst)
