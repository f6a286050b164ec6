import json
from dataclasses import replace

import numpy as np
import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.leaderboard import leaderboard_json, leaderboard_text, rank, read_entries
from tests.unit.leaderboard.boards import alone, edit, folder, outcomes

RECIPE = {"name": "dc", "epochs": 3, "learning_rate": 0.01, "learning_rate_source": "recipe"}
SIX = tuple(range(6))


def ranked(*paths):
    return rank(read_entries(paths))


def labels(ranking):
    return [row.entry.label for row in ranking.rows]


def test_entries_are_ranked_by_what_survives_every_attack(tmp_path):
    """Not by an attack alone, and not by their order."""
    shares = {"low": 0.2, "high": 0.6, "middle": 0.4}
    made = [folder(tmp_path / name, share, seed=i) for i, (name, share) in enumerate(shares.items())]
    (ranking,) = ranked(*made)
    assert labels(ranking) == ["high", "middle", "low"] and [row.rank for row in ranking.rows] == [1, 2, 3]
    for row in ranking.rows:
        seed = list(shares).index(row.entry.label)
        share = shares[row.entry.label]
        survives = outcomes(0.9, seed)
        for i, part in enumerate((share + 0.1, share)):
            survives = survives & outcomes(part / 0.9, 1 + i + 10 * seed)
        assert row.worst["mean"] == pytest.approx(survives.mean(), abs=1e-12)


def test_an_entry_that_would_stand_in_no_ranking_is_an_error(tmp_path):
    one, other = read_entries([folder(tmp_path / "one"), folder(tmp_path / "other", seed=1)])
    attacked = replace(other, reported=replace(other.reported, columns=other.reported.columns[:-1]))
    with pytest.raises(UnusableInput, match="expected a worst case in .*other, by which it is ranked, got none"):
        rank([one, attacked])


def test_equal_accuracies_share_a_rank(tmp_path):
    first, last = folder(tmp_path / "a", 0.4), folder(tmp_path / "z", 0.1, seed=1)
    second = folder(tmp_path / "b", 0.4, subject={"sha256": "f" * 64})
    (ranking,) = ranked(last, second, first)
    assert labels(ranking) == ["a", "b", "z"] and [row.rank for row in ranking.rows] == [1, 1, 3]


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"data_sha256": "e" * 64}, "data_sha256 (" + "e" * 64 + " instead of " + "d" * 64 + ")"),
        ({"arch": "ConvNet"}, "arch (ConvNet instead of MLP)"),
        ({"recipe": {**RECIPE, "epochs": 300}}, "recipe.epochs (300 instead of 3)"),
        ({"recipe": {**RECIPE, "learning_rate": 1.0}}, "recipe.learning_rate (1.0 instead of 0.01)"),
        ({"split": "val"}, "split (val instead of test)"),
        ({"names": ("fgsm", "pgd20")}, "attacks[1].name (pgd20 instead of pgd10); attacks[1].steps (20 instead of 10)"),
    ],
)
def test_other_protocols_are_not_ranked_together(tmp_path, change, differing):
    one, other = ranked(folder(tmp_path / "a"), folder(tmp_path / "b", 0.6, seed=1, **change))
    assert [labels(one), labels(other)] == [["a"], ["b"]] and [one.rows[0].rank, other.rows[0].rank] == [1, 1]
    assert (one.number, one.apart, other.number) == (1, "", 2) and differing in other.apart
    assert other.title == f"{one.title}, protocol 2"


def test_a_radius_is_the_same_in_other_words(tmp_path):
    """The words are those of the first, in all that is told."""
    made = [
        folder(tmp_path / "a", eps=("16/510", "4/255")),
        folder(tmp_path / "b", 0.6, seed=1),
        folder(tmp_path / "c", 0.2, seed=2, eps=("0.03137254901960784",)),
    ]
    at_4, at_8 = ranked(*made)
    assert (labels(at_4), labels(at_8)) == (["a"], ["b", "a", "c"])
    assert (at_8.number, at_8.worst.eps, at_8.protocol["attacks"][0]["eps"]) == (1, "8/255", "8/255")


@pytest.mark.parametrize("change", [{"subject": {"ipc": 10.0}}, {"dataset": "CIFAR10"}, {"eps": ("4/255",)}])
def test_other_data_sets_ipcs_and_radii_are_other_topics(tmp_path, change):
    one, other = ranked(folder(tmp_path / "a"), folder(tmp_path / "b", seed=1, **change))
    assert one.title != other.title and one.apart == other.apart == ""


@pytest.mark.parametrize(
    "change",
    [
        {"sets": (0, 1, 2, 3, 4, 5, 6)},
        {"normalization": {"name": "per channel", "mean": [0.5], "std": [0.5]}},
        {"preset": "quick"},
    ],
)
def test_what_changes_no_figure_keeps_nobody_apart(tmp_path, change):
    assert len(ranked(folder(tmp_path / "a"), folder(tmp_path / "b", seed=1, **change))) == 1


def test_learning_rates_that_came_with_the_images_may_differ(tmp_path):
    made = [
        folder(
            tmp_path / name,
            seed=seed,
            recipe={**RECIPE, "learning_rate": rate, "learning_rate_source": "distilled set"},
        )
        for seed, (name, rate) in enumerate({"a": 0.01, "b": 0.02}.items())
    ]
    assert len(ranked(*made)) == 1


def test_an_entry_that_does_not_tell_its_number_of_classes_brings_no_others_together(tmp_path):
    told = {"untold": {}, "ten": {"num_classes": 10}, "twelve": {"num_classes": 12}}
    made = [folder(tmp_path / name, seed=seed, **change) for seed, (name, change) in enumerate(told.items())]
    one, other = ranked(*made)
    assert (sorted(labels(one)), labels(other)) == (["ten", "untold"], ["twelve"])
    assert (other.number, other.apart) == (2, "num_classes (12 instead of 10)")


def test_a_ball_is_ranked_whatever_else_was_measured(tmp_path):
    """One entry has the ball alone, the other has two: their columns have other names."""
    both, alone_at_8 = folder(tmp_path / "both", 0.3, eps=("4/255", "8/255")), folder(tmp_path / "one", 0.5, seed=1)
    at_4, at_8 = ranked(both, alone_at_8)
    assert (at_4.worst.ball, labels(at_4)) == ("eps 4/255 (Linf)", ["both"])
    assert (at_8.worst.ball, labels(at_8)) == ("eps 8/255 (Linf)", ["one", "both"])
    assert [column.name for column in at_8.rows[1].columns] == [
        "clean",
        "fgsm@8/255",
        "pgd10@8/255",
        "worst_case@8/255",
    ]
    assert at_8.rows[1].against_first.verdict == "lower"


def test_a_clear_difference_is_told_and_none_is_not(tmp_path):
    """The estimate of the difference is that of the means."""
    made = [folder(tmp_path / name, share, seed=seed, sets=SIX) for seed, (name, share) in enumerate(SHARES.items())]
    (ranking,) = ranked(*made)
    told = {row.entry.label: row.against_first for row in ranking.rows}
    assert [told[name].verdict for name in ("first", "near", "far")] == ["first", "not told apart", "lower"]
    means = {row.entry.label: row.worst["mean"] for row in ranking.rows}
    for name in ("near", "far"):
        assert told[name].difference.value == pytest.approx(means[name] - means["first"])


def test_the_order_of_an_entrys_sets_changes_nothing(tmp_path):
    """Sets of two methods have no seed in common."""
    first, far = folder(tmp_path / "first", 0.6, sets=SIX), folder(tmp_path / "far", 0.3, seed=1, sets=SIX)
    turned = folder(tmp_path / "turned", 0.3, seed=1, sets=(*SIX[1:], 0), subject={"sha256": "f" * 64})
    (ranking,) = ranked(first, far, turned)
    one, other = (row.against_first.difference for row in ranking.rows[1:])
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


SHARES = {"first": 0.6, "near": 0.59, "far": 0.2}


def test_without_records_overlapping_intervals_tell_nobody_apart(tmp_path):
    """Intervals that overlap, where the paired difference would tell the two apart."""

    def widened(results):
        for entry in results["accuracy"].values():
            entry["ci95"] = [0.0, 1.0]

    first = folder(tmp_path / "first", 0.6, sets=SIX)
    far = alone(tmp_path / "far.json", 0.2, seed=1, sets=SIX)
    assert ranked(first, far)[0].rows[1].against_first == ("lower", None)
    edit(far, widened)
    assert ranked(first, far)[0].rows[1].against_first == ("not told apart", None)


@pytest.mark.parametrize("first", [True, False])
def test_one_distilled_set_gets_no_verdict(tmp_path, first):
    one = folder(tmp_path / "one", 0.7 if first else 0.1, sets=(0,) * 6)
    many = folder(tmp_path / "many", 0.4, seed=1, sets=SIX)
    (ranking,) = ranked(one, many)
    assert [row.against_first.verdict for row in ranking.rows] == ["first", "no verdict"]
    assert "One distilled set only: one." in leaderboard_text([ranking])


def test_flags_of_other_balls_are_not_shown(tmp_path):
    flagged = [{"column": name, "reason": "doubt"} for name in ("clean", "pgd10@4/255", "pgd10@8/255")]
    at_4, at_8 = ranked(folder(tmp_path / "one", eps=("4/255", "8/255"), flagged=flagged))
    assert [column for column, _ in at_4.rows[0].flags] == ["clean", "pgd10@4/255"]
    assert [column for column, _ in at_8.rows[0].flags] == ["clean", "pgd10@8/255"]


def test_text_and_json_tell_what_is_verified_and_what_is_reported(tmp_path):
    flagged = [{"column": "pgd10", "reason": "masked\x1b[2J"}]
    rankings = ranked(folder(tmp_path / "ours", 0.6, flagged=flagged), alone(tmp_path / "alice.json", 0.2, seed=1))
    lines = leaderboard_text(rankings).splitlines()
    (ours,) = [line for line in lines if line.startswith("ours  ")]
    (alice,) = [line for line in lines if line.startswith("alice.json  ")]
    assert " records " in ours and " as reported " in alice and "FLAGGED ours, pgd10: masked" in "".join(lines)
    told = json.loads(json.dumps(leaderboard_json(rankings)))
    entries = told["rankings"][0]["entries"]
    assert [entry["has_records"] for entry in entries] == [True, False]
    assert entries[1]["accuracy"]["attacks"]["pgd10"]["mean"] == pytest.approx(
        np.mean(rankings[0].rows[1].entry.reported.results["accuracy"]["pgd10"]["per_set"])
    )


def test_no_text_of_a_file_passes_for_another_line(tmp_path):
    """Line breaks of several kinds, wherever a file may say what it likes."""
    lie = "\n\u2028ours  1  99.9"

    def change(results):
        results["protocol"]["recipe"]["name"] = lie
        results["versions"] = {"guard_plugin": lie, "torch": lie}
        results["flags"] = [{"column": "clean", "reason": lie}]
        run = {"adapter": lie, "script": lie, "commit": lie, "guarded": 1, "expected": 2}
        results["subject"]["made_under"] = {
            lie: {"penalty": lie, "reason": "", "settings": {"name": lie, "h": lie}, "runs": [run]},
            "x": {"penalty": lie, "reason": lie},
        }

    alice = edit(alone(tmp_path / "alice.json", 0.2, seed=1), change)
    lines = leaderboard_text(ranked(folder(tmp_path / "mine", 0.6), alice)).splitlines()
    assert "99.9" in "".join(lines) and not [line for line in lines if line.startswith("ours")]


def test_versions_that_differ_are_told(tmp_path):
    other = alone(tmp_path / "alice.json", seed=1)
    edit(other, lambda results: results["versions"].update(torch="1.11.0"))
    assert "computed with different versions: " in leaderboard_text(ranked(folder(tmp_path / "ours"), other))
