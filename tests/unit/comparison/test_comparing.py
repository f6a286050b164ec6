import json
import re
from dataclasses import replace

import numpy as np
import pytest

from guard_plugin.cli import cli
from guard_plugin.comparison import compare, comparison_json, comparison_page, comparison_text, read_benchmark
from guard_plugin.comparison.beard import beard_scores
from guard_plugin.comparison.caveats import notes
from guard_plugin.comparison.verdicts import points, verdicts
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip
from tests.unit.comparison.folders import GONE, attacks_at, flags, shaken, write_benchmark


def benchmark(folder, clean=0.9, fgsm=0.5, pgd=0.3, students=3, **options):
    correct = {"clean": clean, "fgsm": fgsm, "pgd10": pgd}
    return read_benchmark(
        write_benchmark(folder, {name: flags(*[share] * students) for name, share in correct.items()}, **options)
    )


def headline(tmp_path, **other):
    compared = compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", **other)])
    return verdicts(compared)["ours"].headline


def test_a_difference_is_the_other_minus_the_first(tmp_path):
    compared = compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", clean=0.85, pgd=0.5)])
    one = compared.differences["pgd10"]["ours"]
    assert one.value == pytest.approx(0.2) and 0.1 < one.low < 0.2 < one.high < 0.3 and one.sign == 1
    assert one.is_judged and one.limited_by == "examples" and one.shares["examples"] == 1
    assert compared.differences["clean"]["ours"].sign == -1
    assert compared.differences["fgsm"]["ours"].sign == 0
    assert compared.accuracy["pgd10"]["ours"]["mean"] == pytest.approx(0.5)


def test_a_difference_is_paired_by_example(tmp_path):
    """One more of the same examples is right for every student: unpaired, noise over examples would hide it."""
    before = shaken(0.5, 0, students=1, examples=400).repeat(3, axis=0)
    after = before | (np.arange(400) % 20 == 0)
    one, other = (
        read_benchmark(write_benchmark(tmp_path / name, {"clean": flags, "fgsm": flags, "pgd10": flags}))
        for name, flags in (("before", before), ("after", after))
    )
    assert compare([one, other]).differences["clean"]["after"].sign == 1
    low, high = (compare([one, other]).accuracy["clean"][name]["ci95"] for name in ("before", "after"))
    assert low[1] > high[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "ConvNet"}, r"arch \(plain: MLP; ours: ConvNet\).*other's --arch"),
        ({"recipe": {"name": "dc", "epochs": 4}}, r"recipe.epochs \(plain: 3; ours: 4\)"),
        ({"attacks": attacks_at("0.0314")}, r"attacks\[0\].eps \(plain: 8/255; ours: 0.0314\)"),
        ({"attacks": attacks_at("4/255")}, r"attacks\[0\].eps \(plain: 8/255; ours: 4/255\).*--attacks and --eps"),
    ],
)
def test_other_protocols_are_refused_by_name(tmp_path, change, words):
    with pytest.raises(UnusableInput, match=words):
        compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", **change)])


def test_results_that_do_not_tell_their_number_of_classes_are_compared_but_hide_no_difference(tmp_path):
    old, older = (benchmark(tmp_path / name) for name in ("old", "older"))
    ten, twelve = (benchmark(tmp_path / f"new{n}", num_classes=n) for n in (10, 12))
    for pair in ([old, older], [old, ten], [ten, old]):
        compare(pair)
    with pytest.raises(UnusableInput, match=r"num_classes \(new10: 10; new12: 12\).*other's --num-classes"):
        compare([old, ten, twelve])


def test_a_radius_is_the_same_in_other_words(tmp_path):
    """All that is told of a column is under the first folder's name of it."""

    def one(name, *eps):
        names = ["clean", *(f"{attack}@{radius}" for radius in eps for attack in ("fgsm", "pgd10"))]
        correct = dict(strict_zip(names, (flags(share, share) for share in (0.9, 0.7, 0.6, 0.4, 0.3))))
        flagged = [{"column": names[1], "reason": "doubt"}, {"column": "elsewhere", "reason": "doubt"}]
        return read_benchmark(
            write_benchmark(tmp_path / name, correct, attacks=attacks_at(*eps), flagged=flagged, sets=[0, 1])
        )

    plain, zebra = one("plain", "4/255", "8/255"), one("zebra", "8/510", "0.03137254901960784")
    compared, same = compare([plain, zebra]), compare([plain, one("tiger", "4/255", "8/255")])
    assert [column.name for column in compared.columns] == list(compared.accuracy) == list(plain.correct)
    assert compared.benchmarks["zebra"].columns == compared.columns
    assert [flag for label, *flag in compared.flags if label == "zebra"] == [
        ["fgsm@4/255", "doubt"],
        ["elsewhere", "doubt"],
    ]
    for told in (comparison_page, comparison_text):
        assert told(compared).replace("zebra", "tiger") == told(same)
    assert comparison_json(compared)["columns"]["worst_case@8/255"]["eps"] == "8/255"
    assert beard_scores(compared)["zebra"] == beard_scores(same)["tiger"]


def test_worst_cases_of_other_attacks_are_refused(tmp_path):
    plain, ours = benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours")
    alone = replace(ours, columns=(*ours.columns[:-1], replace(ours.columns[-1], members=("pgd10",))))
    with pytest.raises(UnusableInput, match="plain and ours unite other attacks in their worst cases"):
        compare([plain, alone])


def test_a_learning_rate_that_came_with_the_images_may_differ(tmp_path):
    def learned(name, rate, source):
        recipe = {"name": "mtt", "learning_rate": rate, "learning_rate_source": source}
        return benchmark(tmp_path / name, recipe=recipe)

    compare([learned("plain", 0.01, "distilled set"), learned("ours", 0.02, "distilled set")])
    with pytest.raises(UnusableInput, match=r"recipe.learning_rate \("):
        compare([learned("given", 0.01, "given"), learned("other", 0.02, "given")])


def test_one_folder_alone_or_twice_is_refused(tmp_path):
    one = benchmark(tmp_path / "plain")
    for folders in ([one], [one, one]):
        with pytest.raises(UnusableInput, match="expected two or more different folders"):
            compare(folders)


def test_labels_are_as_long_as_it_takes(tmp_path):
    folders = [tmp_path / "a" / "out", tmp_path / "b" / "out", tmp_path / "b" / "ours"]
    compared = compare([benchmark(folder) for folder in folders])
    assert list(compared.benchmarks) == ["a/out", "b/out", "b/ours"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"pgd": 0.5}, "ours is more robust than plain at eps 8/255 (Linf)."),
        ({"pgd": 0.1}, "ours is less robust than plain at eps 8/255 (Linf)."),
        ({"pgd": 0.31}, "No difference in robustness between ours and plain could be shown at eps 8/255 (Linf)."),
    ],
)
def test_the_headline_claims_what_the_interval_shows(tmp_path, other, expected):
    assert headline(tmp_path, **other) == expected


def test_the_headline_tells_where_a_difference_was_shown_and_where_not(tmp_path):
    attacks = attacks_at("2/255", "4/255", "8/255", names=("pgd10",))

    def one(name, *shares):
        columns = ["clean", "pgd10@2/255", "pgd10@4/255", "pgd10@8/255"]
        correct = {column: flags(*[share] * 3) for column, share in strict_zip(columns, shares)}
        return read_benchmark(write_benchmark(tmp_path / name, correct, attacks=attacks))

    compared = compare([one("plain", 0.9, 0.8, 0.4, 0.0), one("ours", 0.9, 0.6, 0.6, 0.0)])
    (verdict,) = verdicts(compared).values()
    assert verdict.headline == (
        "ours is more robust than plain at eps 4/255 (Linf) and less robust than plain at eps 2/255 (Linf); "
        "at eps 8/255 (Linf) no difference could be shown."
    )
    assert [("Both fail altogether" in line) for line in verdict.details] == [False, False, True, False]


def test_notes_tell_what_the_intervals_do_not_cover(tmp_path):
    pair = [benchmark(tmp_path / name, students=4, sets=[0] * 4) for name in ("a", "b")]
    told = " ".join(notes(compare(pair)))
    assert "One distilled set only: a and b." in told and "More students do not show" in told
    assert "1 distilled set and 4 students per folder, and 100 examples" in told and "exclude 0" not in told
    of_few = compare([benchmark(tmp_path / "f"), benchmark(tmp_path / "g", students=4, sets=[0, 0, 1, 1])])
    few = " ".join(notes(of_few))
    assert "Few distilled sets: f (3) and g (2). Their spread is hardly known" in few and "set only" not in few
    assert "f: 3 distilled sets and 3 students; g: 2 distilled sets and 4 students" in few
    assert "paired by example." in few and not comparison_json(of_few)["paired_sets"]
    many = [benchmark(tmp_path / name, students=5) for name in ("c", "d", "e")]
    told = " ".join(notes(compare(many)))
    assert "hardly known" not in told and "not seen" not in told and "set only" not in told
    assert "5 distilled sets and 5 students per folder" in told and "paired by distilled set and example." in told
    assert "8 differences" in told and "about 0.4 of them" in told  # 4 columns, 2 others, 1 in 20


@pytest.mark.parametrize("alone", [("plain", "ours"), ("plain",), ("ours",)])
def test_one_set_gives_figures_and_no_verdict(tmp_path, alone):
    """However many students it has: no word, no star and no colour says which is better."""
    pair = []
    for name, pgd in (("plain", 0.3), ("ours", 0.5)):
        sets = [0] * 6 if name in alone else [0, 0, 1, 1, 2, 2]
        pair.append(benchmark(tmp_path / name, pgd=pgd, clean=pgd + 0.3, students=6, sets=sets))
    compared = compare(pair)
    one = compared.differences["pgd10"]["ours"]
    assert one.value == pytest.approx(0.2) and one.low > 0.1 and one.sign == 0 and one.limited_by == "sets"
    (verdict,) = verdicts(compared).values()
    of = " and ".join(sorted(alone))
    assert verdict.headline == (
        f"No verdict on ours against plain: of {of} there is one distilled set only, and what another would give is "
        f"not seen."
    )
    assert (
        verdict.details[0].endswith(" for one distilled set alone).") and "50.0 % against 30.0 %" in verdict.details[0]
    )
    text, told = comparison_text(compared), comparison_json(compared)["columns"]["pgd10"]["differences"]["ours"]
    assert "*" not in text and not re.search("robust than|is higher|is lower|no clear difference|exclude", text)
    assert "no difference is marked" in text and f"One distilled set only: {' and '.join(alone)}." in text
    assert told["excludes_0"] is None and told["limited_by"] == "sets"
    page = comparison_page(compared)
    assert 'class="number difference clear"' not in page and 'class="dot open"' in page and 'class="dot"' not in page
    assert "No difference is marked" in page and "Bold differences" not in page


def test_a_folder_with_one_set_gets_no_verdict_beside_one_with_several(tmp_path):
    pair = benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", pgd=0.6)
    one = benchmark(tmp_path / "alone", pgd=0.6, sets=[0] * 3)
    compared = compare([*pair, one])
    found = verdicts(compared)
    assert found["ours"].headline.startswith("ours is more robust") and found["alone"].headline.startswith("No verdict")
    rows = [line for line in comparison_text(compared).splitlines() if line.startswith("pgd10")]
    assert rows[1].count("*") == 1
    assert "4 differences are shown" in " ".join(notes(compared))


def test_numbers_of_sets_and_students_may_differ(tmp_path):
    """Then nothing but examples is paired."""
    one = benchmark(tmp_path / "plain", students=6, sets=[0, 0, 1, 1, 2, 2])
    other = benchmark(tmp_path / "ours", pgd=0.5, students=4)
    compared = compare([one, other])
    assert compared.differences["pgd10"]["ours"].sign == 1
    page = comparison_page(compared)
    assert "plain: 3 distilled sets and 6 students; ours: 4 distilled sets and 4 students; attacked with" in page


def test_results_that_do_not_say_whose_students_there_are_count_as_of_one_set(tmp_path):
    pair = [benchmark(tmp_path / name, subject=GONE) for name in ("a", "b")]
    compared = compare(pair)
    assert compared.differences["clean"]["b"].is_judged is False
    assert "Not told is which student is of which distilled set in a and b: all count as of one set." in notes(compared)


def test_the_text_has_a_row_per_column_and_marks_what_excludes_0(tmp_path):
    one, other = benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", pgd=0.5)
    lines = comparison_text(compare([one, other])).splitlines()
    accuracies, differences = lines[2:6], lines[9:13]
    assert [line.split()[0] for line in accuracies] == ["clean", "fgsm", "pgd10", "worst"]
    assert accuracies[2].split()[1] == "30.0" and accuracies[2].split()[4] == "50.0"
    assert [line.endswith("*") for line in differences] == [False, False, True, True]
    assert differences[2].split()[1] == "+20.0"
    assert "\N{MINUS SIGN}" not in "".join(lines)


def test_flags_are_shown_before_the_verdict(tmp_path):
    flagged = [{"column": "pgd10", "reason": "gradients are zero"}]
    text = comparison_text(compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", flagged=flagged)]))
    assert text.index("FLAGGED ours, pgd10: gradients are zero") < text.index("On flagged figures: No difference")


def test_a_flag_cannot_pass_for_another_line(tmp_path):
    forged = [{"column": "pgd10", "reason": "zero\nours is more robust than plain"}]
    text = comparison_text(compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", flagged=forged)]))
    assert "FLAGGED ours, pgd10: zero ours is more robust than plain" in text.splitlines()


def test_json_has_fractions_per_column(tmp_path):
    told = comparison_json(compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", pgd=0.5)]))
    column = told["columns"]["pgd10"]
    assert column["eps"] == "8/255" and column["eps_value"] == pytest.approx(8 / 255)
    assert column["accuracy"]["ours"]["mean"] == pytest.approx(0.5)
    difference = column["differences"]["ours"]
    assert difference["difference"] == pytest.approx(0.2) and difference["excludes_0"] is True
    assert difference["ci95"][0] < 0.2 < difference["ci95"][1]
    assert told["first"] == "plain" and list(told["folders"]) == ["plain", "ours"] and told["paired_sets"]


def test_sets_without_a_seed_in_common_are_not_paired(tmp_path, capsys):
    pair = [benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", pgd=0.5)]
    compared = compare(pair, pair_sets=False)
    assert "Differences are paired by example." in " ".join(notes(compared))
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", "--unpaired-sets", "--json", *(str(one.folder) for one in pair)])
    told = json.loads(capsys.readouterr().out)
    assert not told["paired_sets"]
    for column, entry in told["columns"].items():
        one = compared.differences[column]["ours"]
        assert entry["differences"]["ours"]["ci95"] == [one.low, one.high]


def test_checkpoints_are_networks_without_a_recipe(tmp_path):
    subject = {"kind": "checkpoint", "path": "net.pt", "sha256": "0", "adapter": None, "ipc": None}
    compared = compare([benchmark(tmp_path / name, subject=subject, recipe=None) for name in ("a", "b")])
    assert "There are 3 networks per folder, and 100 examples." in notes(compared)[0]
    assert "were trained on one distilled set hang together" in notes(compared)[1]
    assert compared.differences["clean"]["b"].is_judged and "--checkpoint" not in " ".join(notes(compared))
    alone = compare([benchmark(tmp_path / name, students=1, subject=subject, recipe=None) for name in ("c", "d")])
    assert verdicts(alone)["d"].headline.startswith("No verdict on d against c: of d and c there is one network only")
    assert "networks of 5 or more seeds (--checkpoint, repeated)" in " ".join(notes(alone))
    page = comparison_page(compared)
    assert "3 networks per folder" in page and "benchmark of a checkpoint" in page


def test_another_source_of_transferred_examples_is_refused(tmp_path):
    pair = [benchmark(tmp_path / sha256, source={"sha256": sha256}) for sha256 in ("0", "1")]
    with pytest.raises(UnusableInput, match=r"source.sha256 \(0: 0; 1: 1\).*other's --source"):
        compare(pair)


def test_points_have_no_sign_at_zero():
    assert [points(value) for value in (0.0271, -0.005, -0.0001)] == ["+2.7", "-0.5", "0.0"]
