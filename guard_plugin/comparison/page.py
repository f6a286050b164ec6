"""The comparison as one HTML page that needs nothing but itself: no network, no scripts."""

from pathlib import Path

from guard_plugin.comparison import charts, settings
from guard_plugin.comparison.beard import beard_scores
from guard_plugin.comparison.caveats import measured_on, notes
from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.images import image_sheet
from guard_plugin.comparison.templates import rendered, write_html
from guard_plugin.comparison.verdicts import verdicts

__all__ = ["comparison_page", "write_page"]

_MOST_NAMED = 2


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page.

    Raises:
        UnusableInput: If the file cannot be written, or jinja2 is not installed.
    """
    write_html(comparison_page(comparison), file)


def comparison_page(comparison: Comparison) -> str:
    """Return the page's HTML.

    Raises:
        UnusableInput: If jinja2 is not installed.
    """
    others = comparison.others
    compared = " and ".join(others) if len(others) <= _MOST_NAMED else f"{len(others)} others"
    differences = comparison.every_difference
    return rendered(
        Path(__file__).parent / "page.html.j2",
        needed_by="guard compare --html",
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
        own_settings={label: settings.own_settings(one) for label, one in comparison.benchmarks.items()},
        shared_settings=settings.shared_settings(comparison.protocol),
        beard_scores=beard_scores(comparison),
        charts=charts,
    )
