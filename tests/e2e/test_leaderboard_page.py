"""``guard leaderboard`` as users run it, and its page as a browser shows it."""

import pytest

from guard_plugin.leaderboard import leaderboard_page, rank, read_entries
from tests.browser import NEEDS_BROWSER, probed
from tests.unit.leaderboard.boards import LEDGER, alone, edit, folder

LONG = "a-long-name_without_any_place_to_break_it_" + "x" * 60
HOSTILE = (
    "</script></style></title></td><script>parent.hacked.push(1)</script>"
    '<img src=x onerror="parent.hacked.push(2)"><svg onload="parent.hacked.push(3)">'
    '<a href="javascript:parent.hacked.push(4)">x</a>" onmouseover="parent.hacked.push(5)" \''
)

# Shows the page in frames of several widths (a headless window cannot be as narrow as a phone), clicks on headers, and
# says what the first table is like after each click. Whatever runs in the frames can reach "hacked".
PROBE = """
<!doctype html><meta name="color-scheme" content="light dark"><body>
<pre id="told"></pre>
<script>
const page = PAGE, told = {};
var hacked = [];
const tell = () => { document.getElementById("told").textContent = JSON.stringify({ ...told, hacked }); };
function first(table) {
  return {
    names: [...table.tBodies[0].rows].map(row => row.cells[1].firstChild.textContent),
    sorted: [...table.tHead.rows[0].cells].map(header => header.getAttribute("aria-sort")),
  };
}
function measure(width) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument, root = inner.documentElement, table = inner.querySelector("table.board");
    const headers = [...table.tHead.rows[0].cells], buttons = headers.map(header => header.querySelector("button"));
    const apart = [...inner.querySelectorAll("body *")].filter(element =>
      !element.closest(".scroll > table") && element.getBoundingClientRect().right > width + 0.5);
    for (const [, place] of [...inner.querySelectorAll("body *")].entries())
      place.dispatchEvent(new MouseEvent("mouseover"));
    const seen = told[width] = {
      width: root.scrollWidth,
      outside: apart.map(element => element.outerHTML.slice(0, 80)),
      right: headers.map(header => header.getBoundingClientRect().right),
      scrolls: table.parentElement.scrollWidth > table.parentElement.clientWidth,
      headers: buttons.map(button => button && button.textContent),
      clicks: [first(table)],
    };
    for (const column of [1, 1, 3, 3, 0, 8]) {
      if (buttons[column]) buttons[column].click();
      seen.clicks.push(first(table));
    }
    setTimeout(tell, 500);
  };
  document.body.append(frame);
}
[390, 1280].forEach(measure);
</script>
"""


@pytest.fixture
def entries(tmp_path):
    """Four, of which "b" is first; their clean accuracies are near each other."""
    shares = {"b": 0.7, LONG: 0.5, "A": 0.3, "c": 0.1}
    made = [folder(tmp_path / name, share, seed=seed) for seed, (name, share) in enumerate(shares.items())]
    hostile = alone(tmp_path / "hostile.json", 0.2, seed=9)

    def change(results):
        results["subject"] |= {"made_under": {HOSTILE: {"penalty": HOSTILE, "reason": HOSTILE}}, HOSTILE: HOSTILE}
        results["flags"] = [{"column": "clean", "reason": HOSTILE}]
        results["ledger"] = {**LEDGER, "summary": HOSTILE}
        results["versions"] = {"guard_plugin": HOSTILE, "torch": HOSTILE}

    return [*made, edit(hostile, change)]


@pytest.fixture
def page(entries):
    return leaderboard_page(rank(read_entries(entries)))


def test_leaderboard_prints_and_writes(guard, entries, tmp_path):
    done = guard("leaderboard", *entries[:2], "--html", "page.html")
    assert done.returncode == 0 and "against the first" in done.stdout and "files: page.html" in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_what_cannot_be_ranked_is_refused_with_code_2(guard, entries):
    done = guard("leaderboard", entries[0], "nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert "1 of 2 cannot be ranked, so nothing was written:\n  no such file: nowhere" in done.stderr


@pytest.mark.browser
@NEEDS_BROWSER
def test_headers_sort_in_a_browser(page, entries, tmp_path):
    told = probed(PROBE, page, tmp_path)
    clean = {entry.label: entry.accuracy["clean"]["mean"] for entry in read_entries(entries)}
    by_clean = sorted(clean, key=clean.get)
    by_name = ["A", LONG, "b", "c", "hostile.json"]
    by_rank = ["b", LONG, "A", "hostile.json", "c"]
    expected = [(by_rank, 0, "ascending")]
    expected += [(by_name, 1, "ascending"), (by_name[::-1], 1, "descending")]
    expected += [(by_clean[::-1], 3, "descending"), (by_clean, 3, "ascending"), (by_rank, 0, "ascending")]
    for width in ("390", "1280"):
        for seen, (names, column, order) in zip(told[width]["clicks"], expected):
            assert seen["names"] == names
            assert [one for one in enumerate(seen["sorted"]) if one[1]] == [(column, order)]
        assert told[width]["headers"][:5] == ["#", "Entry", "Worst case", "Clean", "Against the first"]


@pytest.mark.browser
@NEEDS_BROWSER
def test_a_phone_shows_what_matters_and_a_wide_table_scrolls_in_its_place(page, tmp_path):
    told = probed(PROBE, page, tmp_path)
    for width in ("390", "1280"):
        assert told[width]["width"] == int(width) and told[width]["outside"] == [] and told[width]["scrolls"]
    rank_, entry, worst, clean, against = told["390"]["right"][:5]
    assert rank_ < entry < worst < clean < against <= 390 - 16  # the page's margin


@pytest.mark.browser
@NEEDS_BROWSER
def test_a_hostile_file_runs_nothing(page, tmp_path):
    """Nor would it, if its text had not been escaped: the page's policy is a second wall."""
    assert probed(PROBE, page, tmp_path)["hacked"] == []
    injected = page.replace("<main>", f"<main><table><tr><td>{HOSTILE}", 1)
    assert injected != page and probed(PROBE, injected, tmp_path)["hacked"] == []
    unguarded = injected.replace("Content-Security-Policy", "no-policy", 1)
    assert {1, 2, 3} <= set(probed(PROBE, unguarded, tmp_path)["hacked"])
