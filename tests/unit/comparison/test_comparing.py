import numpy as np
import pytest

from guard_plugin.comparison import compare, comparison_json, comparison_page, comparison_text, read_benchmark
from guard_plugin.comparison.verdicts import notes, points, verdicts
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip
from tests.unit.comparison.folders import attacks_at, flags, shaken, write_benchmark


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
        ({"students": 2}, r"seeds \(plain: 3; ours: 2\).*other's --seeds"),
        ({"recipe": {"name": "dc", "epochs": 4}}, r"recipe.epochs \(plain: 3; ours: 4\)"),
        ({"attacks": attacks_at("4/255")}, r"attacks\[0\].eps \(plain: 8/255; ours: 4/255\).*--attacks and --eps"),
    ],
)
def test_other_protocols_are_refused_by_name(tmp_path, change, words):
    with pytest.raises(UnusableInput, match=words):
        compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", **change)])


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
    subject = {"kind": "distilled", "path": "x", "sha256": "0", "adapter": "dc", "experiments": 1}
    pair = [benchmark(tmp_path / name, students=1, subject=subject) for name in ("a", "b")]
    told = " ".join(notes(compare(pair)))
    assert "the spread between students is not seen at all" in told
    assert "One distilled set only: a and b" in told
    assert "between 1 student and between 100 examples" in told
    many = [benchmark(tmp_path / name, students=5) for name in ("c", "d", "e")]
    told = " ".join(notes(compare(many)))
    assert "hardly known" not in told and "not seen" not in told and "distilled" not in told
    assert "8 differences" in told and "about 0.4 of them" in told  # 4 columns, 2 others, 1 in 20


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


def test_json_has_fractions_per_column(tmp_path):
    told = comparison_json(compare([benchmark(tmp_path / "plain"), benchmark(tmp_path / "ours", pgd=0.5)]))
    column = told["columns"]["pgd10"]
    assert column["eps"] == "8/255" and column["eps_value"] == pytest.approx(8 / 255)
    assert column["accuracy"]["ours"]["mean"] == pytest.approx(0.5)
    difference = column["differences"]["ours"]
    assert difference["difference"] == pytest.approx(0.2) and difference["excludes_0"] is True
    assert difference["ci95"][0] < 0.2 < difference["ci95"][1]
    assert told["first"] == "plain" and list(told["folders"]) == ["plain", "ours"]


def test_checkpoints_are_networks_without_a_recipe(tmp_path):
    subject = {"kind": "checkpoint", "path": "net.pt", "sha256": "0", "adapter": None, "ipc": None}
    compared = compare([benchmark(tmp_path / name, subject=subject, recipe=None) for name in ("a", "b")])
    assert "between 3 networks and between 100 examples" in notes(compared)[0]
    page = comparison_page(compared)
    assert "3 networks per folder" in page and "benchmark of a checkpoint" in page


def test_another_source_of_transferred_examples_is_refused(tmp_path):
    pair = [benchmark(tmp_path / sha256, source={"sha256": sha256}) for sha256 in ("0", "1")]
    with pytest.raises(UnusableInput, match=r"source.sha256 \(0: 0; 1: 1\).*other's --source"):
        compare(pair)


def test_points_have_no_sign_at_zero():
    assert [points(value) for value in (0.0271, -0.005, -0.0001)] == ["+2.7", "-0.5", "0.0"]
