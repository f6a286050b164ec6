import json

import pytest
from click.testing import CliRunner

from guard_plugin.commands.compare import compare
from guard_plugin.errors import UnusableInput
from tests.unit.comparison.folders import flags, write_benchmark


@pytest.fixture
def folders(tmp_path):
    return [
        write_benchmark(tmp_path / name, {"clean": flags(0.9), "fgsm": flags(0.5), "pgd10": flags(share)})
        for name, share in (("plain", 0.3), ("ours", 0.5))
    ]


def run(*arguments):
    return CliRunner().invoke(compare, [*map(str, arguments)], catch_exceptions=False)


def test_json_is_all_that_is_printed(folders, tmp_path):
    told = json.loads(run(*folders, "--json", "--html", tmp_path / "page.html").stdout)
    assert told["columns"]["worst_case"]["differences"]["ours"]["difference"] == pytest.approx(0.2)
    assert (tmp_path / "page.html").exists()


def test_the_first_folder_is_what_the_others_are_compared_with(folders):
    assert json.loads(run(*reversed(folders), "--json").stdout)["first"] == "ours"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_folders_are_refused(folders, count):
    if count:
        with pytest.raises(UnusableInput, match="expected two or more different folders"):
            run(*folders[:count])
    else:
        assert run().exit_code == 2


def test_png_needs_the_distilled_images(folders, tmp_path):
    with pytest.raises(UnusableInput, match="no longer at gone.pt"):
        run(*folders, "--png", tmp_path / "images.png")
