import base64
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from guard_plugin.comparison import charts, compare, comparison_page, draw_distilled, read_benchmark, write_page
from guard_plugin.comparison.templates import typeset
from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.errors import UnusableInput
from guard_plugin.plugins import Plugins
from guard_plugin.versions import strict_zip
from tests.unit.comparison.folders import attacks_at, flags, write_benchmark
from tests.unit.comparison.html_checks import contrast, custom_properties, parsed

HOSTILE = "<script>alert(1)<"
LEDGER = {
    "summary": "dc main.py: 30 loss calls seen, 20 of 20 expected guarded",
    "penalty": {"name": "curvature", "strength": 100.0, "h": 0.5, "form": "gradient"},
    "loss_calls": {"seen": 30, "guarded": 20, "expected": 20, "skipped": {"suspended: utils.epoch": 10}},
}


def one(folder, pgd=0.3, attacks=None, **options):
    correct = {"clean": flags(0.9, 0.9), "fgsm": flags(0.5, 0.5), "pgd10": flags(pgd, pgd)}
    return read_benchmark(write_benchmark(folder, correct, attacks=attacks, **options))


def two(tmp_path, **options):
    return compare([one(tmp_path / "plain"), one(tmp_path / "ours", pgd=0.5, **options)])


def several_eps(folder, *shares):
    eps = ("2/255", "4/255", "8/255")
    columns = ["clean", *(f"pgd10@{value}" for value in eps)]
    correct = {column: flags(share, share) for column, share in strict_zip(columns, shares)}
    return read_benchmark(write_benchmark(folder, correct, attacks=attacks_at(*eps, names=("pgd10",))))


def texts(tree):
    return " ".join(" ".join(tree.itertext()).split())


def test_the_page_needs_nothing_but_itself(tmp_path):
    page = comparison_page(two(tmp_path))
    tree = parsed(page)
    assert {element.tag for element in tree.iter()}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for element in tree.iter():
        assert not {"href", "srcset", "action", "background", "style"} & set(element.attrib)
        assert element.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    style = tree.find("head/style").text
    assert not re.search(r"url\(|@import|@font-face|expression", style)
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_a_folder_is_named_as_it_was_given(tmp_path):
    """The page is handed on: where on this machine its folders were concerns nobody."""
    page = comparison_page(two(Path()))
    assert ">plain</span>" in page and ">ours</span>" in page
    assert str(tmp_path) not in page


def test_text_from_files_stays_text(tmp_path):
    attack = "</script></style></title><img src=x onerror=alert(1)>\"'& {{ 7 * 7 }} {% raw %}"
    ledger = {**LEDGER, "summary": attack, "script": attack, "penalty": {attack: attack}}
    subject = {"kind": attack, attack: attack}
    folder = tmp_path / HOSTILE
    compared = compare(
        [
            one(tmp_path / '"onload="x'),
            one(folder, ledger=ledger, subject=subject, flagged=[{"column": attack, "reason": attack}]),
        ]
    )
    tree = parsed(comparison_page(compared))
    tags = {element.tag for element in tree.iter()}
    assert "script" not in tags and "img" not in tags
    assert not [key for element in tree.iter() for key in element.attrib if key.startswith("on")]
    assert HOSTILE in tree.find("head/title").text and texts(tree).count(attack) >= 5


def test_hostile_protocol_text_stays_text(tmp_path):
    pair = [one(tmp_path / name, dataset=HOSTILE, arch=HOSTILE, preset=HOSTILE) for name in ("a", "b")]
    tree = parsed(comparison_page(compare(pair)))
    assert texts(tree).count(HOSTILE) >= 4 and not list(tree.iter("script"))


def test_a_folder_name_stays_in_the_description_of_its_images(tmp_path, distilled):
    name = '" onerror="alert(1)" x=\'<b>&'
    compared = compare([one(tmp_path / "plain"), one(tmp_path / name, subject=distilled[1])])
    (image,) = parsed(comparison_page(compared)).iter("img")
    assert set(image.attrib) == {"src", "alt", "width", "height"}
    assert image.get("alt").startswith(f"Distilled images of {name}, a column per class")


def test_a_screen_reader_finds_its_way(tmp_path):
    tree = parsed(comparison_page(two(tmp_path, ledger=LEDGER)))
    assert tree.get("lang") == "en" and tree.find("head/title").text == "Robustness of ours against plain"
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in zip(levels, levels[1:]))
    for table in tree.iter("table"):
        assert texts(table.find("caption"))
        assert all(cell.get("scope") for cell in table.iter("th"))
    for region in tree.iter("div"):
        if region.get("class") == "scroll":
            assert region.get("tabindex") == "0" and region.get("aria-label")
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for svg in tree.iter("svg"):
        assert svg.get("aria-hidden") == "true" or (svg.get("role") == "img" and svg.find("title") is not None)
        assert set(svg.get("aria-labelledby", "").split()) <= set(ids)


def test_charts_tell_their_figures_in_words(tmp_path):
    tree = parsed(comparison_page(two(tmp_path)))
    first = next(svg for svg in tree.iter("svg") if svg.get("class") == "chart")
    assert first.find("title").text == "Accuracy under worst case against eps (Linf)"
    assert first.find("desc").text == (
        "plain: 90.0 % at eps 0, 30.0 % at eps 8/255; ours: 90.0 % at eps 0, 50.0 % at eps 8/255"
    )


@pytest.mark.parametrize(("several", "expected"), [(False, (0, 8)), (True, (2, 0))])
def test_one_eps_gives_points_and_several_give_curves(tmp_path, several, expected):
    if several:
        pair = [several_eps(tmp_path / name, 0.9, 0.8, 0.6, 0.2) for name in ("a", "b")]
    else:
        pair = [one(tmp_path / name) for name in ("a", "b")]
    chart = next(svg for svg in parsed(comparison_page(compare(pair))).iter("svg") if svg.get("class") == "chart")
    bars = [line for line in chart.iter("line") if line.get("class") == "bar"]
    bands = list(chart.iter("polygon"))
    assert len(bands) == len(list(chart.iter("polyline"))) == expected[0]
    assert len(bars) == expected[1] // 2  # clean and the one eps, for both


def test_a_curve_falls_where_the_accuracy_falls(tmp_path):
    pair = [several_eps(tmp_path / name, 1.0, 0.75, 0.5, 0.0) for name in ("a", "b")]
    chart = next(svg for svg in parsed(comparison_page(compare(pair))).iter("svg") if svg.get("class") == "chart")
    points = [tuple(map(float, pair.split(","))) for pair in next(chart.iter("polyline")).get("points").split()]
    (x0, y0), (x2, y2), (x4, y4), (x8, y8) = points
    assert [label.text for label in chart.iter("text") if "%" in label.text] == [f"{p} %" for p in range(0, 101, 20)]
    assert (y0, y8) == (charts.TOP, charts.BOTTOM)
    assert [y2 - y0, y4 - y0] == pytest.approx([0.25 * (y8 - y0), 0.5 * (y8 - y0)], abs=0.2)
    assert x4 - x0 == pytest.approx(2 * (x2 - x0), abs=0.2) and x8 - x0 == pytest.approx(4 * (x2 - x0), abs=0.2)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.612, 0.648], (61, 65, 1)),
        ([0.55, 0.71], (55, 75, 5)),
        ([0.0, 0.93], (0, 100, 20)),
        ([1.0, 1.0], (99, 100, 1)),
        ([0.0], (0, 1, 1)),
        ([-0.1, 1.2], (0, 100, 20)),  # bounds of an interval
    ],
)
def test_axes_show_the_range_of_the_data(accuracies, expected):
    scale = charts.Scale.around(accuracies)
    assert scale == expected
    assert (scale.y(scale.low / 100), scale.y(scale.high / 100)) == (charts.BOTTOM, charts.TOP)
    assert [level for level, _ in scale.levels] == list(range(expected[0], expected[1] + 1, expected[2]))


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(tmp_path, dark):
    colours = custom_properties(comparison_page(two(tmp_path)), dark)
    pairs = [(text, ground) for text in ("ink", "muted", "link") for ground in ("paper", "wash")]
    pairs += [("warn-ink", "warn-wash"), *((f"series-{i}", "paper") for i in range(1, 7))]
    weak = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


def test_ledger_or_its_absence_is_told(tmp_path):
    told = texts(parsed(comparison_page(two(tmp_path, ledger=LEDGER))))
    assert f"ours: {LEDGER['summary']}" in told and "loss_calls: guarded 20" in told and "penalty: strength 100" in told
    assert "plain: no ledger was given" in told


def test_flags_come_before_all_figures(tmp_path):
    told = texts(parsed(comparison_page(two(tmp_path, flagged=[{"column": "pgd10", "reason": "zero gradients"}]))))
    assert told.index("ours, pgd10: zero gradients") < told.index("On flagged figures: ours is more robust")


def test_beards_figures_are_folded_away_and_labelled(tmp_path):
    *_, details = parsed(comparison_page(two(tmp_path))).iter("details")
    assert details.get("open") is None
    assert details.find("summary").text == "RR, AE and CREI: for compatibility with BEARD, not for ranking"
    assert "plain eps 8/255 (Linf) 2 16.7 75.0 45.8" in texts(details)


def test_tables_of_raw_keys_are_folded_away_and_the_accuracies_are_not(tmp_path):
    tree = parsed(comparison_page(two(tmp_path, ledger=LEDGER)))
    folded = [table for details in tree.iter("details") for table in details.iter("table")]
    (shown,) = [table for table in tree.iter("table") if table not in folded]
    assert shown.get("class") == "accuracy" and len(folded) == 7
    for details in tree.iter("details"):
        assert details.get("open") is None and details[0].tag == "summary"


def test_every_setting_is_there(tmp_path):
    compared = two(tmp_path)
    told = texts(parsed(comparison_page(compared)))
    for setting in ("n_examples 100", "recipe: epochs 3", "seeds 2", "data_sha256 " + "d" * 64, "random_start"):
        assert setting in told
    for package, version in compared.benchmarks["plain"].results["versions"].items():
        assert f"{package} {'none' if version is None else version}" in told


@pytest.fixture
def distilled(tmp_path):
    """A file as DC writes it, and its description."""
    file = tmp_path / "res_DC_digits_MLP_2ipc.pt"
    torch.save({"data": [[torch.rand(20, 1, 8, 8), torch.arange(10).repeat_interleave(2)]]}, file)
    return file, subject_of("dc", {file: read_distilled(Plugins().hook, "dc", file)})


def test_distilled_images_are_in_the_page(tmp_path, distilled):
    tree = parsed(comparison_page(two(tmp_path, subject=distilled[1])))
    (image,) = tree.iter("img")
    opened = Image.open(io.BytesIO(base64.b64decode(image.get("src").partition(",")[2])))
    assert opened.size == (10 * 34 + 2, 2 * 34 + 2) == (int(image.get("width")), int(image.get("height")))
    assert image.get("alt") == "Distilled images of ours, a column per class: all classes, 2 of each"
    assert "No images: the distilled images are no longer at gone.pt" in texts(tree)


def test_images_that_cannot_be_read_are_told(tmp_path, distilled, monkeypatch):
    def denied(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    compared = two(tmp_path, subject=distilled[1])
    monkeypatch.setattr(Path, "exists", denied)
    reason = f"the distilled images at {distilled[0]} cannot be read: Permission denied"
    assert f"No images: {reason}" in texts(parsed(comparison_page(compared)))
    with pytest.raises(UnusableInput, match="cannot be read: Permission denied"):
        draw_distilled(compared, tmp_path / "images.png")


def test_images_that_have_changed_are_not_shown(tmp_path, distilled):
    file, subject = distilled
    torch.save({"data": [[torch.rand(20, 1, 8, 8), torch.arange(10).repeat_interleave(2)]]}, file)
    compared = two(tmp_path, subject=subject)
    tree = parsed(comparison_page(compared))
    assert not list(tree.iter("img")) and "has changed since it was benchmarked" in texts(tree)
    with pytest.raises(UnusableInput, match="no longer at gone.pt"):
        draw_distilled(compared, tmp_path / "images.png")


def test_images_of_several_files_are_read_in_their_order(tmp_path, distilled):
    """The page shows the first set; each file may have changed."""
    other = tmp_path / "res_DSA_digits_MLP_2ipc.pt"
    torch.save({"data": [[torch.rand(20, 1, 8, 8), torch.arange(10).repeat_interleave(2)]]}, other)
    found = {file: read_distilled(Plugins().hook, "dc", file) for file in (distilled[0], other)}
    subject = subject_of("dc", found)
    assert subject["paths"] == [str(distilled[0]), str(other)] == subject["files"] and subject["experiments"] == 2
    told = texts(parsed(comparison_page(two(tmp_path, subject=subject))))
    assert "all classes, 2 of each; first of 2 sets" in told
    other.write_bytes(distilled[0].read_bytes())
    assert "has changed since it was benchmarked" in texts(parsed(comparison_page(two(tmp_path, subject=subject))))


def test_ledgers_of_several_runs_are_told(tmp_path):
    compared = two(tmp_path)
    ledgers = [{**LEDGER, "summary": f"run of seed {seed}"} for seed in (0, 1)]
    compared.benchmarks["ours"].results["ledgers"] = ledgers
    told = texts(parsed(comparison_page(compared)))
    assert "ours: run of seed 0 ours: run of seed 1" in told and "ours, run 1 ours, run 2" in told


def test_images_of_both_are_drawn(tmp_path, distilled):
    pair = compare([one(tmp_path / name, subject=distilled[1]) for name in ("a", "b")])
    draw_distilled(pair, tmp_path / "images.png")
    assert Image.open(io.BytesIO((tmp_path / "images.png").read_bytes())).size == (10 * 34 + 2, 2 * (2 * 34 + 2 + 16))


def test_a_page_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableInput, match="cannot write .*page.html.* Name another file"):
        write_page(two(tmp_path), tmp_path / "file" / "page.html")


def test_signs_are_set_before_numbers_only():
    assert typeset("a-b, -0.5 to +1.5, 95 %, n-1") == ("a-b, \N{MINUS SIGN}0.5 to +1.5, 95\N{NO-BREAK SPACE}%, n-1")
