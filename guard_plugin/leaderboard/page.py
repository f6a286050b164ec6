"""A leaderboard as one HTML page that needs nothing but itself: no network, and no script but the one that sorts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guard_plugin.comparison import settings
from guard_plugin.comparison.templates import rendered, write_html
from guard_plugin.evaluation.tables import number
from guard_plugin.leaderboard import words
from guard_plugin.leaderboard.ranking import Ranking

__all__ = ["leaderboard_page", "write_leaderboard"]

_HERE = Path(__file__).parent


def write_leaderboard(rankings: Sequence[Ranking], file: Path) -> None:
    """Write the page.

    Raises:
        UnusableInput: If the file cannot be written, or jinja2 is not installed.
    """
    write_html(leaderboard_page(rankings), file)


def leaderboard_page(rankings: Sequence[Ranking]) -> str:
    """Return the page's HTML.

    Raises:
        UnusableInput: If jinja2 is not installed.
    """
    entries = {row.entry.label: row.entry for ranking in rankings for row in ranking.rows}
    reported = sum(entry.measured is None for entry in entries.values())
    counted = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
    return rendered(
        _HERE / "leaderboard.html.j2",
        needed_by="guard leaderboard --html",
        script=_HERE / "sort.js",
        title="Robustness of distilled data",
        summary=f"{counted} in {number(len(rankings), 'ranking')}; "
        f"{len(entries) - reported} verified from their records, {reported} as reported",
        rankings=rankings,
        words=words,
        notes=words.notes(rankings),
        own_settings={label: settings.own_settings(entry.reported) for label, entry in entries.items()},
        versions={label: entry.reported.results["versions"] for label, entry in entries.items()},
        files={label: {"path": str(entry.path), "results.json": entry.sha256} for label, entry in entries.items()},
    )
