"""Pages from jinja2 templates: they need nothing but themselves, and whatever they are given stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from guard_plugin import __version__
from guard_plugin.comparison import settings
from guard_plugin.comparison.verdicts import points
from guard_plugin.evaluation.tables import percent
from guard_plugin.files import atomic_file, explain_write_errors
from guard_plugin.foreign_text import printable
from guard_plugin.optional import require

__all__ = ["is_page", "rendered", "typeset", "write_html"]

_SHARED = Path(__file__).parent
_BEGINS = b"<!doctype html>"
_GENERATOR = b'<meta name="generator" content="guard-plugin '  # In layout.html.j2, before all that a file can say.


def rendered(template: Path, *, needed_by: str, script: Path | None = None, **values: Any) -> str:
    """Return a page.

    Whatever the template is given is escaped, and a name that it is not given is an error. It finds the templates
    beside it, and those of this folder.

    Args:
        template: The template's file, which extends layout.html.j2.
        needed_by: The command that needs jinja2, for the message where it is not installed.
        script: The file of the only script that a browser runs in the page; by default, it runs none.
        values: What the template shows.

    Raises:
        UnusableInput: If jinja2 is not installed.
    """
    jinja2 = require("jinja2", needed_by=needed_by)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "points": points, "typeset": typeset, "shown": settings.shown}
    environment.globals |= {"settings": settings}
    source = script.read_text(encoding="utf-8") if script else ""
    page: str = environment.get_template(template.name).render(
        version=__version__,
        script=source,
        script_sha256=base64.b64encode(hashlib.sha256(source.encode()).digest()).decode(),
        **values,
    )
    return printable(page)


def typeset(text: str) -> str:
    """Put true minus signs before numbers, and keep percent signs on the line of their number."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def is_page(head: bytes) -> bool:
    """Tell from the first 1,024 bytes of a file whether it is a page that ``rendered`` returned."""
    return head.startswith(_BEGINS) and _GENERATOR in head


def write_html(page: str, file: Path) -> None:
    """Write a page; raise UnusableInput if the file cannot be written."""
    content = page.encode()
    with explain_write_errors(file, "Name another file"), atomic_file(file) as opened:
        opened.write(content)
