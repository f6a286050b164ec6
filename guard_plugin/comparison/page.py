"""The comparison as one HTML page that needs nothing but itself: no network, no scripts."""

import re
from pathlib import Path
from typing import Any

from guard_plugin import __version__
from guard_plugin.comparison import charts, settings
from guard_plugin.comparison.beard import beard_scores
from guard_plugin.comparison.caveats import measured_on, notes
from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.images import image_sheet
from guard_plugin.comparison.verdicts import points, verdicts
from guard_plugin.evaluation.tables import percent
from guard_plugin.files import atomic_file, explain_write_errors
from guard_plugin.foreign_text import printable
from guard_plugin.optional import require

__all__ = ["comparison_page", "typeset", "write_page"]

_MOST_NAMED = 2


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page.

    Raises:
        UnusableInput: If the file cannot be written, or jinja2 is not installed.
    """
    content = comparison_page(comparison).encode()
    with explain_write_errors(file, "Name another file"), atomic_file(file) as opened:
        opened.write(content)


def comparison_page(comparison: Comparison) -> str:
    """Return the page's HTML.

    Raises:
        UnusableInput: If jinja2 is not installed.
    """
    others = comparison.others
    compared = " and ".join(others) if len(others) <= _MOST_NAMED else f"{len(others)} others"
    differences = [one for by_label in comparison.differences.values() for one in by_label.values()]
    page: str = _template().render(
        version=__version__,
        title=f"Robustness of {compared} against {comparison.first}",
        comparison=comparison,
        benchmarks=list(comparison.benchmarks.values()),
        measured_on=measured_on(comparison),
        judged=any(one.is_judged for one in differences),
        verdicts=verdicts(comparison),
        notes=notes(comparison),
        limit=max(max(abs(one.low), abs(one.high)) for one in differences),
        eps_charts=charts.eps_charts(comparison),
        images={label: image_sheet(benchmark) for label, benchmark in comparison.benchmarks.items()},
        ledger_settings=settings.ledger_settings(comparison),
        own_settings=settings.own_settings(comparison),
        shared_settings=settings.shared_settings(comparison),
        beard_scores=beard_scores(comparison),
    )
    return printable(page)


def _template() -> Any:
    """Load the template; whatever it is given is escaped, and a name that it is not given is an error."""
    jinja2 = require("jinja2", needed_by="guard compare --html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "points": points, "typeset": typeset, "shown": settings.shown}
    environment.globals |= {"charts": charts, "settings": settings}
    return environment.get_template("page.html.j2")


def typeset(text: str) -> str:
    """Put true minus signs before numbers, and keep percent signs on the line of their number."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)
