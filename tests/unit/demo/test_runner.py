import pytest

from guard_plugin.comparison import compare, read_benchmark
from guard_plugin.comparison.report import legend
from guard_plugin.demo import run_demo, settings_for
from guard_plugin.demo.runner import summarise
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.folder import locked
from tests.unit.comparison.folders import flags, write_benchmark


@pytest.fixture
def comparison(tmp_path):
    """Two students that are right on the first so many of 100 examples, per column."""
    shares = {"baseline": (0.9, 0.6, 0.3), "guard": (0.85, 0.6, 0.5)}
    return compare(
        [
            read_benchmark(
                write_benchmark(
                    tmp_path / arm, {"clean": flags(*[c] * 2), "fgsm": flags(*[f] * 2), "pgd10": flags(*[p] * 2)}
                )
            )
            for arm, (c, f, p) in shares.items()
        ]
    )


def test_the_values_are_fractions_of_guard_minus_baseline(comparison):
    values, _ = summarise(comparison)
    assert list(values) == ["clean", "fgsm", "pgd10", "worst_case"]
    assert list(values["pgd10"]) == ["baseline", "guard", "difference", "ci95", "limited_by"]
    assert values["pgd10"]["baseline"] == pytest.approx(0.3) and values["pgd10"]["guard"] == pytest.approx(0.5)
    assert values["pgd10"]["difference"] == pytest.approx(0.2)
    low, high = values["pgd10"]["ci95"]
    assert 0.1 < low < 0.2 < high < 0.3
    assert values["clean"]["difference"] == pytest.approx(-0.05)


@pytest.mark.parametrize("name", ["baseline", "guard", "comparison.json", "distilled.png"])
def test_a_folder_with_files_of_such_names_is_refused_before_anything_is_distilled(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UnusableInput, match=f"holds {name} of another origin"):
        run_demo(settings_for("digits"), tmp_path, pytest.fail)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ("fgsm,pgd10-transfer", "source"),
        ("fgsm,fgsm@16/255", "fgsm"),
        ("nosuch", "unknown attack"),
    ],
)
def test_attacks_that_the_benchmark_would_refuse_are_refused_before_anything_is_distilled(tmp_path, attacks, message):
    with pytest.raises(UnusableInput, match=message):
        run_demo(settings_for("digits", attacks=attacks), tmp_path / "out", pytest.fail)
    assert not (tmp_path / "out").exists()


def test_two_demos_in_one_folder_do_not_meet(tmp_path):
    with locked(tmp_path), pytest.raises(UnusableInput, match="another process is working in"):
        run_demo(settings_for("digits"), tmp_path, pytest.fail)


def test_the_table_is_in_percent_points(comparison):
    _, table = summarise(comparison)
    header, rule, *rows = table.splitlines()
    assert header.split("  ")[0] == "accuracy (%)" and "  baseline  GUARD  " in header
    assert header.endswith("  difference [95 % CI]")
    assert set(rule) == {"-"} and len({len(line) for line in (header, rule, *rows)}) == 1
    assert [row.split()[0] for row in rows] == ["clean", "fgsm", "pgd10", "worst"]
    assert rows[1].split()[1:4] == ["60.0", "60.0", "+0.0"]
    assert rows[2].split()[1:4] == ["30.0", "50.0", "+20.0"]
    assert (rows[1][-1], rows[2][-1], legend(comparison)) == (" ", "*", "* the interval excludes 0")
