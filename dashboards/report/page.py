r"""From a document to a page: one HTML file with its style, its script and its data, and nothing fetched.

Names, reasons and notes come from users. They are in the page twice: as JSON in a data block, where ``<``, ``>`` and
``&`` are written as ``\u003c`` and so on, so that nothing in it ends the block; and, where a browser runs no scripts,
as escaped text. The script puts text into the page as text and never as markup, and the page's own policy lets the
browser run that one script, which it knows by its hash, and fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from core.files import writing
from dashboards.report.document import make_document
from dashboards.report.source import Source

SCRIPTS = ("basics", "scale", "state", "front", "panel", "lines", "parallel", "sections", "page")
"""Parts of the script, in the order in which they run."""
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_page(sources: Sequence[Source], path: str | Path) -> Path:
    """Write the report of one sweep, or of several side by side.

    Raises:
        UsageError: the file cannot be written.
    """
    page = make_page(sources)
    with writing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def make_page(sources: Sequence[Source]) -> str:
    """The page's text."""
    document = make_document(sources)
    script = _script()
    headlines = next(iter(document["headlines"].values()), ["No trial has finished with a result."])
    return Template(_file("page.html")).substitute(
        title=escape(document["title"]),
        words=escape(" ".join(map(str, headlines))),
        style=_file("page.css"),
        script=script,
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=as_data(document),
    )


def as_data(document: Any) -> str:
    """JSON that can stand in a page's data block whatever text is in it; what is not finite is null."""
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, written in UNSAFE.items():
        text = text.replace(character, written)
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair can be in a name, and in no file


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _script() -> str:
    parts = "\n".join(_file(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


@cache
def _file(name: str) -> str:
    return files("dashboards.report").joinpath(name).read_text(encoding="utf-8")
