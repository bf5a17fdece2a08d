"""Formulas as MathML, which browsers draw without a script from elsewhere."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer, as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_display, None))
    return {"parallel_read_safe": True}


def write_inline(writer: object, node: nodes.math) -> None:
    """Writes a formula within a line."""
    writer.body.append(convert(node.astext()))  # type: ignore[attr-defined]
    raise nodes.SkipNode


def write_display(writer: object, node: nodes.math_block) -> None:
    """Writes a formula on lines of its own."""
    writer.body.append(convert(node.astext(), display="block"))  # type: ignore[attr-defined]
    raise nodes.SkipNode
