import numpy as np

from guard_plugin.evaluation import FinishedBenchmark, results_table
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.evaluation.tables import percent


def test_results_table_has_a_row_per_column_in_percent():
    """Two students that are right on the first so many of 100 examples, per column."""
    shares = {"clean": 0.9, "pgd10": 0.3, "worst_case": 0.2}
    correct = {column: np.tile(np.arange(100) < 100 * share, (2, 1)) for column, share in shares.items()}
    results = {"accuracy": {column: accuracy_entry(flags) for column, flags in correct.items()}}
    header, rule, *rows = results_table(FinishedBenchmark(results, correct)).splitlines()
    assert header.split("  ")[0] == "accuracy (%)" and header.endswith("95 % CI")
    assert set(rule) == {"-"} and len({len(line) for line in (header, rule, *rows)}) == 1
    assert rows[0].split()[:3] == ["clean", "90.0", "0.0"]
    assert rows[1].split()[:3] == ["pgd10", "30.0", "0.0"]
    assert rows[2].startswith("worst case")


def test_percent_has_one_decimal():
    assert [percent(value) for value in (0.7678, 1.0, 0.0)] == ["76.8", "100.0", "0.0"]
