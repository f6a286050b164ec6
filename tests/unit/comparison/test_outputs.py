import os

import pytest
from click.testing import CliRunner

from guard_plugin.commands.compare import compare
from guard_plugin.commands.leaderboard import leaderboard
from guard_plugin.comparison import check_outputs
from guard_plugin.errors import UnusableInput
from tests.unit.comparison.folders import flags, write_benchmark

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folders(tmp_path):
    return [
        write_benchmark(tmp_path / name, {"clean": flags(0.9), "fgsm": flags(0.5), "pgd10": flags(0.3 + i / 10)})
        for i, name in enumerate(("plain", "ours"))
    ]


def run(command, *arguments):
    return CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("command", [compare, leaderboard])
def test_a_file_of_another_is_not_replaced_and_a_page_of_ours_is(folders, tmp_path, command):
    """As a shell expands "--html sub/*.json"."""
    alice = tmp_path / "alice.json"
    text = (folders[0] / "results.json").read_text()
    alice.write_text(text)
    with pytest.raises(UnusableInput, match=r"or a page of guard compare .*alice.json is another file: name another"):
        run(command, *folders, "--html", alice)
    assert alice.read_text() == text
    page = tmp_path / "page.html"
    for _ in range(2):
        assert run(command, *folders, "--html", page).exit_code == 0
    for other in (compare, leaderboard):
        assert run(other, *folders, "--html", page).exit_code == 0


@pytest.mark.parametrize("name", ["results.json", "fingerprint.json", ".lock", "records/x.html", "students/x.html"])
@pytest.mark.parametrize("option", ["html", "png"])
def test_nothing_is_written_under_the_names_of_a_benchmark(folders, option, name):
    with pytest.raises(UnusableInput, match=rf"after --{option}, but .*{name} belongs to .*ours, which is read"):
        check_outputs(folders, **{option: folders[1] / name})
    check_outputs(folders, **{option: folders[1] / "page"})


def test_an_input_is_refused_whatever_path_leads_to_it(folders, tmp_path):
    link, page = tmp_path / "link", tmp_path / "page.html"
    link.symlink_to(folders[0])
    page.symlink_to(folders[0] / "results.json")
    for given, output in ((folders[0], link / "results.json"), (folders[0], page), (link, page)):
        with pytest.raises(UnusableInput, match="which is read"):
            check_outputs([given], html=output)
    with pytest.raises(UnusableInput, match="which is read"):
        check_outputs([link / "results.json"], html=page)


def test_it_is_refused_before_anything_is_read(folders):
    for folder in folders:
        (folder / "results.json").write_text("no JSON")
    for command in (compare, leaderboard):
        with pytest.raises(UnusableInput, match="which is read"):
            run(command, *folders, "--html", folders[0] / "results.json")


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"<!doctype html>\n<title>Mine</title>",
        b'mine: <meta name="generator" content="guard-plugin ',
        b"<!doctype html>" + b" " * 1024 + b'<meta name="generator" content="guard-plugin ',
        PNG,
    ],
)
def test_what_only_resembles_a_page_is_not_replaced(tmp_path, content):
    (tmp_path / "page.html").write_bytes(content)
    with pytest.raises(UnusableInput, match="page.html is another file"):
        check_outputs([], html=tmp_path / "page.html")


def test_a_drawing_replaces_a_png_alone(tmp_path):
    file = tmp_path / "images.png"
    file.write_bytes(PNG)
    check_outputs([], png=file)
    file.write_bytes(b"GIF89a")
    with pytest.raises(UnusableInput, match="after --png, or a PNG to replace, but .*images.png is another file"):
        check_outputs([], png=file)


def test_what_holds_nothing_is_written_to(tmp_path):
    """An empty file as mktemp makes it, a device, and a pipe, for whose other end nobody waits."""
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "empty", tmp_path / "pipe", tmp_path / "new", "/dev/null"):
        check_outputs([], html=tmp_path / file)


def test_a_page_and_a_drawing_are_two_files(tmp_path):
    with pytest.raises(UnusableInput, match="expected --html and --png as two files"):
        check_outputs([], html=tmp_path / "x", png=tmp_path / "." / "x")
