"""The commands of docs/pipelines.md, word for word, on unmodified clones in GUARD_HOSTS, without CUDA."""

import json
import re
import shlex

import pytest

from tests.conftest import ROOT
from tests.upstream.conftest import materialize
from tests.upstream.test_chains import HOSTS, SEEDED, hosts_stay_as_they_are, pytestmark

__all__ = ["hosts_stay_as_they_are", "pytestmark"]

LAYOUTS = {"SRe2L on CIFAR-100": "cifar100", "CDA on Tiny-ImageNet": "tinyimagenet"}
PAGE = ROOT / "docs" / "pipelines.md"
CHAINS = {
    title: re.findall(r"^    guard (.*)$", text, flags=re.M)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    if "    guard run" in text
}


def test_the_page_has_the_chains():
    assert list(CHAINS) == [*LAYOUTS, "MTT", "TESLA", "FTD", "DC and DSA"] and min(map(len, CHAINS.values())) >= 2


@pytest.mark.parametrize("title", CHAINS)
def test_a_chain_reaches_its_end_and_tells_how_it_began(python, tmp_path, title):
    materialize(LAYOUTS.get(title, "cifar10"), tmp_path / "data", train=2, test=2)
    for command in CHAINS[title]:
        words = [str(HOSTS / word[6:]) if word.startswith("HOSTS/") else word for word in shlex.split(command)]
        if "logged_files/CIFAR10/RUN" in words:
            (run,) = (tmp_path / "logged_files" / "CIFAR10").iterdir()
            words[words.index("logged_files/CIFAR10/RUN")] = str(run)
        done = python(
            "-c", f"{SEEDED}\nfrom guard_plugin.cli import main\nmain()", *words, check=True, WANDB_MODE="disabled"
        )
        if words[0] == "run":
            assert "not known to be made under GUARD" not in done.stderr
            continue
        subject = json.loads((tmp_path / words[words.index("--out") + 1] / "results.json").read_text())["subject"]
        for made in subject["made_under"].values():
            (run,) = made["runs"]
            assert made["reason"] == "" and made["settings"]["strength"] == 100
            assert run["guarded"] == run["expected"] > 0 and len(run["commit"]) == 40
