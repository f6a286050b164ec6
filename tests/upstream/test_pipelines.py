"""The commands of docs/pipelines.md, word for word, on unmodified clones in GUARD_HOSTS, without CUDA."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.upstream.conftest import materialize
from tests.upstream.test_chains import (
    GUARD,
    HOSTS,
    IMAGENET_ARCH,
    hosts_stay_as_they_are,
    make_guarded,
    pytestmark,
)

__all__ = ["hosts_stay_as_they_are", "pytestmark"]

IMAGENET = "SRe2L in ImageNet's shape"
LAYOUTS = {"SRe2L on CIFAR-100": "cifar100", "CDA on Tiny-ImageNet": "tinyimagenet", IMAGENET: "imagefolder"}
FAULTS = {  # where there are more than cuda-only
    "validate/train_FKD.py": {"fetcher-edited-by-hand", "numpy-numbers-in-file", "fkd-path-slash", "cuda-only"},
    "validate/train_KD.py": {"make-dataset-arguments", "cuda-only"},
}
PAGE = (ROOT / "docs" / "pipelines.md").read_text()
CHAINS = {
    title: re.findall(r"^    guard (.*)$", text, flags=re.M)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    if "    guard run" in text
}


def prepare(title: str, folder: Path) -> None:
    """Give a chain what it begins with: real images, and what the page says is the user's."""
    layout = LAYOUTS.get(title, "cifar10")
    materialize(layout, folder / ("real" if layout == "imagefolder" else "data"), train=2, test=2)
    if title == IMAGENET:
        models = pytest.importorskip("torchvision.models")
        make_guarded(folder / "teacher.pth", models.get_model(IMAGENET_ARCH).state_dict())
    if title == "DATM":
        (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
        (folder / "settings.yaml").write_text(settings)


def test_the_page_has_the_chains():
    assert set(CHAINS) == {*LAYOUTS, "MTT", "TESLA", "FTD", "DATM", "DC and DSA"} and min(map(len, CHAINS.values())) > 1


@pytest.mark.parametrize("title", CHAINS)
def test_a_chain_reaches_its_end_and_tells_how_it_began(python, tmp_path, title):
    prepare(title, tmp_path)
    for command in CHAINS[title]:
        words = [str(HOSTS / word[6:]) if word.startswith("HOSTS/") else word for word in shlex.split(command)]
        for number, word in enumerate(words):
            if "/RUN" in word:
                before, _, after = word.partition("RUN")
                (run,) = (tmp_path / before).iterdir()
                words[number] = f"{run}{after}"
        ledger = ("--ledger", "ledger.json") if words[0] == "run" else ()
        done = python("-c", GUARD, words[0], *ledger, *words[1:], check=True, WANDB_MODE="disabled")
        if ledger:
            assert "not known to be made under GUARD" not in done.stderr
            told = json.loads((tmp_path / "ledger.json").read_text())
            assert told["outcome"] == "complete" and all(fault["repaired"] for fault in told["faults"])
            expected = FAULTS.get(told["script"])
            assert expected is None or {fault["name"] for fault in told["faults"]} == expected
            continue
        subject = json.loads((tmp_path / words[words.index("--out") + 1] / "results.json").read_text())["subject"]
        for made in subject["made_under"].values():
            (run,) = made["runs"]
            assert made["reason"] == "" and run["guarded"] > 0
            if title != IMAGENET:
                assert made["settings"]["strength"] == 100 and run["guarded"] == run["expected"]
                assert len(run["commit"]) == 40
