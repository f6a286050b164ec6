"""Finished benchmarks side by side, for ``guard compare`` and ``guard demo``."""

from guard_plugin.comparison.caveats import notes
from guard_plugin.comparison.comparing import Comparison, compare
from guard_plugin.comparison.images import draw_distilled
from guard_plugin.comparison.outputs import check_outputs
from guard_plugin.comparison.page import comparison_page, write_page
from guard_plugin.comparison.reading import Measured, read_benchmark
from guard_plugin.comparison.report import comparison_json, comparison_text

__all__ = [
    "Comparison",
    "Measured",
    "check_outputs",
    "compare",
    "comparison_json",
    "comparison_page",
    "comparison_text",
    "draw_distilled",
    "notes",
    "read_benchmark",
    "write_page",
]
