import base64
import hashlib
import re

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.leaderboard import leaderboard_page, rank, read_entries, write_leaderboard
from tests.unit.comparison.html_checks import contrast, custom_properties, parsed
from tests.unit.leaderboard.boards import LEDGER, alone, edit, folder

HOSTILE = "</script></style></title><img src=x onerror=alert(1)>\"'& javascript:alert(1) {{ 7 * 7919 }} {% raw %}"


def texts(tree):
    return " ".join(" ".join(tree.itertext()).split())


def page_of(*paths):
    return leaderboard_page(rank(read_entries(paths)))


@pytest.fixture
def page(tmp_path):
    made = [folder(tmp_path / "ours", 0.6), folder(tmp_path / "plain", 0.2, seed=1), alone(tmp_path / "a.json", seed=2)]
    return page_of(*made)


def test_the_page_needs_nothing_but_itself(page):
    tree = parsed(page)
    assert {element.tag for element in tree.iter()}.isdisjoint({"link", "iframe", "object", "embed", "base", "img"})
    for element in tree.iter():
        assert not {"href", "src", "srcset", "action", "background", "style"} & set(element.attrib)
    assert not re.search(r"url\(|@import|@font-face|expression", tree.find("head/style").text)


def test_a_browser_may_run_one_script_and_it_is_ours(page):
    tree = parsed(page)
    (script,) = tree.iter("script")
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert allowed["script-src"] == f"'sha256-{digest}'" and allowed["default-src"] == "'none'"
    assert f"<script>{script.text}</script>" in page  # nothing in it reads otherwise as HTML than as XML


def test_text_from_files_stays_text(tmp_path):
    """In every place where a file may say what it likes, and in names that are printable."""

    def change(results):
        results["subject"] |= {"adapter": HOSTILE, HOSTILE: HOSTILE, "made_under": {HOSTILE: origin}}
        results["protocol"] |= {"dataset": HOSTILE, "arch": HOSTILE, "split": HOSTILE}
        results["protocol"]["recipe"] |= {"name": HOSTILE, HOSTILE: HOSTILE}
        results["flags"] = [{"column": column, "reason": HOSTILE} for column in ("pgd10", HOSTILE)]
        results["ledger"] = {**LEDGER, "summary": HOSTILE}
        results["versions"] = {"guard_plugin": HOSTILE, "torch": HOSTILE, HOSTILE: HOSTILE}

    run = {"adapter": HOSTILE, "script": HOSTILE, "commit": HOSTILE, "guarded": 1, "expected": 2}
    origin = {"penalty": HOSTILE, "reason": HOSTILE, "settings": {"name": HOSTILE, "h": HOSTILE}, "runs": [run]}
    hostile = edit(alone(tmp_path / "<script>alert(1)<b onload=x>.json"), change)
    tree = parsed(page_of(hostile))
    tags = [element.tag for element in tree.iter()]
    assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
    assert not [key for element in tree.iter() for key in element.attrib if key.startswith("on") or key == "href"]
    assert texts(tree).count(HOSTILE) >= 15 and "55433" not in texts(tree)


def test_it_is_ranked_and_can_be_read_without_the_script(page):
    table = next(parsed(page).iter("table"))
    headers = table.findall("thead/tr/th")
    assert [texts(header) for header in headers[:5]] == ["#", "Entry", "Worst case", "Clean", "Against the first"]
    assert [header.get("aria-sort") for header in headers] == ["ascending", *[None] * (len(headers) - 1)]
    assert not list(table.iter("button"))
    rows = table.findall("tbody/tr")
    assert [row.find("th").text for row in rows] == ["ours", "a.json", "plain"]
    assert {len(row) for row in rows} == {len(headers)}


def test_of_one_attack_there_is_one_column(tmp_path):
    table = next(parsed(page_of(folder(tmp_path / "ours", names=("pgd10",)))).iter("table"))
    assert [texts(header) for header in table.findall("thead/tr/th")[:6]] == [
        "#",
        "Entry",
        "pgd10",
        "Clean",
        "Against the first",
        "Measured on",
    ]
    assert texts(table.find("caption")).endswith("ranked by pgd10 at eps 8/255 (Linf)")


def test_what_is_reported_alone_is_told_apart(page):
    rows = next(parsed(page).iter("table")).findall("tbody/tr")
    told = {row.find("th").text: (row.find("th/span").text, texts(row)) for row in rows}
    assert told["a.json"][0] == "as reported" and "as reported: no records" in told["a.json"][1]
    for name in ("ours", "plain"):
        assert told[name][0] == "from records" and "verified from its records" in told[name][1]
    assert "2 verified from their records, 1 as reported" in texts(parsed(page))


def test_figures_are_sorted_by_all_their_digits(page):
    rows = next(parsed(page).iter("table")).findall("tbody/tr")
    values = [float(row[2].get("data-value")) for row in rows]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3
    assert [row[2].text for row in rows] == [f"{100 * value:.1f}" for value in values]


def test_flags_are_beside_their_figures_and_in_words(tmp_path):
    tree = parsed(page_of(folder(tmp_path / "ours", flagged=[{"column": "pgd10", "reason": "zero gradients"}])))
    row = next(tree.iter("table")).find("tbody/tr")
    marked = [i for i, cell in enumerate(row[:7]) if cell.find("span[@class='flag']") is not None]
    assert marked == [2, 6]  # the attack, and the worst case, which it is a part of
    assert "ours, pgd10: zero gradients" in texts(tree)


def test_a_screen_reader_finds_its_way(page):
    tree = parsed(page)
    assert tree.get("lang") == "en"
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    for table in tree.iter("table"):
        assert texts(table.find("caption")) and all(cell.get("scope") for cell in table.iter("th"))
    for region in tree.iter("div"):
        if region.get("class") == "scroll":
            assert region.get("tabindex") == "0" and region.get("aria-label")


@pytest.mark.parametrize("dark", [False, True])
def test_warnings_can_be_read(page, dark):
    colours = custom_properties(page, dark)
    assert contrast(colours["warn-ink"], colours["paper"]) >= 4.5


def test_a_page_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableInput, match="cannot write .*page.html.* Name another file"):
        write_leaderboard(rank(read_entries([folder(tmp_path / "ours")])), tmp_path / "file" / "page.html")
