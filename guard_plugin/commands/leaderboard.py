"""``guard leaderboard``."""

from __future__ import annotations

from pathlib import Path

import click

from guard_plugin.commands.options import Command, any_file, any_path, json_option, show

__all__ = ["leaderboard"]


@click.command(cls=Command)
@click.option("--html", type=any_file, help="Write one sortable page that needs no network to this file.")
@json_option
@click.argument("entries", metavar="DIR|FILE...", nargs=-1, required=True, type=any_path)
def leaderboard(entries: tuple[Path, ...], html: Path | None, as_json: bool) -> None:
    """Rank finished benchmarks of distilled images, per data set, images per class and threat model.

    Each DIR was an --out of guard benchmark, whose records are read; each FILE is the results.json of anybody, which is
    checked, and shown as reported. Only entries of one protocol are ranked together. If one of them cannot be used,
    nothing is written.
    """
    from guard_plugin import leaderboard as board
    from guard_plugin.comparison import check_outputs

    check_outputs(entries, html=html)
    rankings = board.rank(board.read_entries(entries))
    if html:
        board.write_leaderboard(rankings, html)
    files = f"\n\nfiles: {html}" if html else ""
    show(board.leaderboard_json(rankings), f"{board.leaderboard_text(rankings)}{files}", as_json)
