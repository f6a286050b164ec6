import numpy as np
import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import FinishedBenchmark, comparison, comparison_table, results_table
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.evaluation.tables import _SHARED


def finished(accuracies, **protocol):
    """Two students that are right on the first so many of 100 examples, per column."""
    correct = {column: np.tile(np.arange(100) < 100 * share, (2, 1)) for column, share in accuracies.items()}
    results = {
        "protocol": {**dict.fromkeys(_SHARED, "same"), **protocol},
        "accuracy": {column: accuracy_entry(flags) for column, flags in correct.items()},
    }
    return FinishedBenchmark(results, correct)


BASELINE = finished({"clean": 0.9, "pgd10": 0.3, "worst_case": 0.2})
GUARD = finished({"clean": 0.85, "pgd10": 0.5, "worst_case": 0.45})


def test_comparison_is_guard_minus_baseline():
    rows = comparison(BASELINE, GUARD)
    assert list(rows) == ["clean", "pgd10", "worst_case"]
    assert rows["pgd10"]["difference"] == pytest.approx(0.2)
    low, high = rows["pgd10"]["ci95"]
    assert 0.1 < low < 0.2 < high < 0.3
    assert rows["clean"]["difference"] == pytest.approx(-0.05)


def test_comparison_table_is_in_percent_points():
    header, rule, *rows = comparison_table(BASELINE, GUARD).splitlines()
    assert header.split("  ")[0] == "accuracy (%)" and "difference [95 % CI]" in header
    assert set(rule) == {"-"} and len({len(line) for line in (header, rule, *rows)}) == 1
    assert [row.split()[0] for row in rows] == ["clean", "pgd10", "worst"]
    assert rows[1].split()[1:4] == ["30.0", "50.0", "+20.0"]


def test_results_table_of_one_subject():
    rows = results_table(BASELINE).splitlines()[2:]
    assert rows[0].split()[:3] == ["clean", "90.0", "0.0"]
    assert rows[2].startswith("worst case")


def test_different_protocols_are_not_compared():
    with pytest.raises(UnusableInput, match="differ in arch, seeds"):
        comparison(BASELINE, finished({"clean": 1.0}, arch="MLP", seeds=9))
