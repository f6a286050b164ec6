"""Finished benchmarks, ranked per data set, images per class and threat model, for ``guard leaderboard``."""

from guard_plugin.leaderboard.entries import Entry, read_entries
from guard_plugin.leaderboard.page import leaderboard_page, write_leaderboard
from guard_plugin.leaderboard.ranking import Ranking, Row, rank
from guard_plugin.leaderboard.report import leaderboard_json, leaderboard_text

__all__ = [
    "Entry",
    "Ranking",
    "Row",
    "leaderboard_json",
    "leaderboard_page",
    "leaderboard_text",
    "rank",
    "read_entries",
    "write_leaderboard",
]
