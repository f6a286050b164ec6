"""``guard compare`` as users run it, and its page as a browser shows it."""

import re

import pytest

from guard_plugin.comparison import compare, read_benchmark, write_page
from guard_plugin.versions import strict_zip
from tests.browser import NEEDS_BROWSER, probed
from tests.unit.comparison.folders import attacks_at, shaken, write_benchmark
from tests.unit.comparison.html_checks import contrast

LONG = "a-long-name_without_any_place_to_break_it_" + "x" * 60

# Reads the page in frames of several widths: a headless window cannot be as narrow as a phone.
PROBE = """
<!doctype html><meta name="color-scheme" content="light dark"><body>
<script>
const page = PAGE, told = {};
const colour = element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor];
function measure(width) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const apart = [...inner.querySelectorAll("body *")].filter(element =>
      !element.closest(".scroll > table") && !element.closest("svg") &&
      element.getBoundingClientRect().right > width + 0.5);
    told[width] = {
      width: root.scrollWidth,
      outside: apart.map(element => element.outerHTML.slice(0, 80)),
      difference: Math.max(...[...inner.querySelectorAll("td.difference")].map(e => e.getBoundingClientRect().right)),
      scrolled: [...inner.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).length,
      body: colour(inner.body),
      verdict: colour(inner.querySelector(".verdict")),
      muted: colour(inner.querySelector(".lede")),
      label: [getComputedStyle(inner.querySelector(".chart .tick")).fill, ""],
    };
    document.getElementById("told").textContent = JSON.stringify(told);
  };
  document.body.append(frame);
}
[390, 1280].forEach(measure);
</script>
<pre id="told"></pre>
"""


@pytest.fixture
def folders(tmp_path):
    """Three benchmarks, one with a long name and a flag."""
    attacks = attacks_at("2/255", "8/255")
    columns = ["clean", "fgsm@2/255", "pgd10@2/255", "fgsm@8/255", "pgd10@8/255"]
    shares = (0.9, 0.8, 0.7, 0.5, 0.3)
    made = []
    for seed, name in enumerate(("plain", "ours", LONG)):
        correct = {column: shaken(share, seed) for column, share in strict_zip(columns, shares)}
        flagged = [{"column": "pgd10@8/255", "reason": "zero gradients"}] if name == LONG else None
        made.append(write_benchmark(tmp_path / name, correct, attacks=attacks, flagged=flagged))
    return made


@pytest.fixture
def page(folders, tmp_path):
    write_page(compare([read_benchmark(folder) for folder in folders]), tmp_path / "page.html")
    return tmp_path / "page.html"


@pytest.fixture
def page_of_two(folders, tmp_path):
    write_page(compare([read_benchmark(folder) for folder in folders[:2]]), tmp_path / "two.html")
    return tmp_path / "two.html"


def rgb(colour):
    return "#" + "".join(f"{int(value):02x}" for value in re.findall(r"\d+", colour)[:3])


def test_compare_prints_and_writes(guard, folders, tmp_path):
    done = guard("compare", *folders[:2], "--html", "page.html")
    assert done.returncode == 0 and "worst case@8/255" in done.stdout and "files: page.html" in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_compare_refuses_with_one_line_and_code_2(guard, folders):
    done = guard("compare", folders[0], "nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("guard: error: no such folder: nowhere") and len(done.stderr.splitlines()) == 1


def measured(page, folder, *options):
    """What the probe tells of the page, by width."""
    return probed(PROBE, page.read_text(), folder, *options)


@pytest.mark.browser
@NEEDS_BROWSER
def test_a_phone_shows_the_differences_without_scrolling(page_of_two, tmp_path):
    assert measured(page_of_two, tmp_path)["390"]["difference"] <= 390 - 16  # the page's margin


@pytest.mark.browser
@NEEDS_BROWSER
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_phone_and_desk_and_can_be_read(page, tmp_path, dark):
    told = measured(page, tmp_path, f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    assert set(told) == {"390", "1280"}
    for width, frame in told.items():
        assert frame["width"] == int(width) and frame["outside"] == []
        paper, wash = rgb(frame["body"][1]), rgb(frame["verdict"][1])
        for ink, ground in (("body", paper), ("muted", paper), ("label", paper), ("verdict", wash)):
            assert contrast(rgb(frame[ink][0]), ground) >= 4.5
        assert (contrast(paper, "#000000") < 2) == dark
    assert told["390"]["scrolled"] >= 3  # wide tables scroll inside their own container
