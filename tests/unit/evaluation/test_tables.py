import numpy as np

from guard_plugin.evaluation import FinishedBenchmark, results_table
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.evaluation.tables import counted, percent


def test_results_table_has_a_row_per_column_in_percent():
    """Two students that are right on the first so many of 100 examples, per column."""
    shares = {"clean": 0.9, "pgd10": 0.3, "worst_case": 0.2}
    correct = {column: np.tile(np.arange(100) < 100 * share, (2, 1)) for column, share in shares.items()}
    results = {"accuracy": {column: accuracy_entry(flags, [0, 1]) for column, flags in correct.items()}}
    header, rule, *rows = results_table(FinishedBenchmark(results, correct)).splitlines()
    assert header.split("  ")[0] == "accuracy (%)" and header.endswith("limited by")
    assert set(rule) == {"-"} and len({len(line) for line in (header, rule, *rows)}) == 1
    assert rows[0].split()[:3] == ["clean", "90.0", "0.0"]
    assert rows[1].split()[:3] == ["pgd10", "30.0", "0.0"]
    assert rows[2].startswith("worst case") and rows[2].endswith(" examples")


def test_one_student_has_no_standard_deviation():
    correct = {"clean": np.ones((1, 100), dtype=bool)}
    results = {"accuracy": {"clean": accuracy_entry(correct["clean"], [0])}}
    row = results_table(FinishedBenchmark(results, correct)).splitlines()[-1]
    assert row.split()[:3] == ["clean", "100.0", "\N{EN DASH}"]


def told(seeds, **subject):
    return counted({"subject": subject, "protocol": {"seeds": seeds, "n_examples": 100}})


def test_the_counts_say_what_the_intervals_hold_for():
    several = told(6, kind="distilled", experiments=3, set_of_student=[0, 1, 2] * 2)
    assert several.startswith("3 distilled sets, 6 students, 100 examples: the intervals are for other distilled sets")
    one = told(5, kind="distilled", experiments=1, set_of_student=[0] * 5)
    assert one.startswith("1 distilled set, 5 students, 100 examples: the intervals hold for this distilled set alone")
    assert "more students" in one and "--distilled" in one
    assert told(2, kind="distilled", experiments=5, set_of_student=[0, 1]).startswith(
        "2 distilled sets (3 more unused, for want of --seeds), 2 students"
    )
    assert told(1, kind="checkpoint").startswith("1 network, 100 examples: the intervals hold for this network alone")
    assert told(3, kind="checkpoint").startswith("3 networks, 100 examples: the intervals are for other networks")


def test_percent_has_one_decimal():
    assert [percent(value) for value in (0.7678, 1.0, 0.0)] == ["76.8", "100.0", "0.0"]
