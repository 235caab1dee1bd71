"""An executed notebook as a page: nbconvert's own HTML in our style, formulas as MathML, no script."""

import base64
import copy
import hashlib
import html
import io
import re

import nbformat
from nbconvert import HTMLExporter
from nbformat.v4.rwbase import rejoin_lines
from PIL import Image

from r1repro import paper
from r1repro.records import Refusal
from r1repro.site.mathml import MATH, math
from r1repro.site.style import NOTEBOOK, whole


def page(notebook: dict, name: str, pictures: dict[str, bytes] | None = None) -> str:
    """The page of a notebook that lies as ``<name>.ipynb`` beside it, below the folder of the report.

    Args:
        pictures: takes the page's pictures, by the names of the files in `PICTURES` that it leads to; without it they
            stand in the page itself.

    Where nbconvert would fetch MathJax from the network to show formulas, they are put in as MathML here.
    """
    formulas: dict[str, str] = {}
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, exclude_input_prompt=True)
    try:
        notebook = rejoin_lines(nbformat.from_dict(copy.deepcopy(notebook)))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _set_apart(cell.source, formulas)
        body, _ = exporter.from_notebook_node(notebook)
    except (nbformat.ValidationError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise Refusal(f"notebook {name} is damaged ({reason}): remove its executed copy and run it again") from error
    for mark, formula in formulas.items():
        body = body.replace(mark, formula)
    body = re.sub(r"data:image/png;base64,([\w+/=\s]+)", lambda found: _as_webp(found, pictures), body)
    said = html.escape(name)
    header = (
        f'<header><a href="../index.html">The report</a> \N{MIDDLE DOT} executed notebook <b>{said}</b> \N{MIDDLE DOT} '
        f'<a href="{said}.ipynb">as .ipynb</a></header>'
    )
    return whole(f"r1repro: {name}", NOTEBOOK, f"{header}\n<main>\n{body}\n</main>")


PICTURES = "pictures"
"""Folder beside the pages."""


def _as_webp(found: re.Match, pictures: dict[str, bytes] | None) -> str:
    """A picture of a page in a form that browsers read and code hosts need not: a quarter smaller, and the same."""
    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
            image.convert("RGBA").save(small, "WEBP", lossless=True, method=6)
    except OSError:  # no picture
        return found[0]
    if pictures is None:
        return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
    name = f"{hashlib.sha256(small.getvalue()).hexdigest()[:16]}.webp"
    pictures[name] = small.getvalue()
    return f"{PICTURES}/{name}"


def claims_shown(notebook: dict, name: str) -> tuple[str, set[str]]:
    """The address of the cell that shows claims, from the report's folder, and their ids: those of the notebook's
    sections and those that the cell names.  No ids where there is no such cell."""
    for cell in reversed(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "show.claims(" in source:
            ids = {id for section in paper.section_map() if section.notebook == name for id in section.claims}
            return f"notebooks/{name}.html#cell-id={cell['id']}", ids | set(re.findall(r'"(C\d\d)"', source))
    return "", set()


def _set_apart(source: str, formulas: dict[str, str]) -> str:
    """Markdown with a mark in the place of each formula, so that no underscore of TeX becomes emphasis."""

    def mark(found) -> str:
        if found["code"]:
            return found[0]
        name = f"R1FORMULA{len(formulas):04d}X"
        formulas[name] = math(found["block"] or found["line"], block=bool(found["block"]))
        return name

    return MATH.sub(mark, source)
