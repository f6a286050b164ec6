"""The driver's ``--scale hosts`` on unmodified clones in GUARD_HOSTS: what they distil is what it measures."""

import argparse
import json
import os
from pathlib import Path

import pytest

from examples.reproduce import __main__ as driver
from examples.reproduce.small import Scale
from tests.upstream.conftest import materialize, of_a_host

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
CLONES = {"dc": "DatasetCondensation", "mtt": "mtt-distillation", "tesla": "tesla"}

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        not all((HOSTS / clone).is_dir() for clone in CLONES.values()),
        reason="GUARD_HOSTS names no folder with clones of DatasetCondensation, mtt-distillation, tesla",
    ),
]


@pytest.mark.parametrize("method", CLONES)
def test_hosts_distil_what_is_measured(method, tmp_path, monkeypatch):
    materialize("cifar10", tmp_path / "data", train=20, test=4)
    for variable, value in of_a_host().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(driver, "Scale", lambda: Scale(match=1, expert_epochs=4, follow=1, student_epochs=1))
    args = argparse.Namespace(
        tables=[5 if method == "dc" else 2], dataset=["CIFAR10"], method=[method], arm=["baseline", "guard"], ipc=[1],
        seeds=1, students=1, out=tmp_path / "out", data=tmp_path / "data", scale="hosts", hosts=HOSTS, attacks="fgsm",
        eps="1/255", n_examples=20, epochs=None,
    )  # fmt: skip
    found = driver.chosen(args)
    assert all(driver.measure(name, cells, args) for name, cells in found.items())
    out = tmp_path / "out" / "hosts-fgsm-20"
    assert driver.compare(found, out)
    for name, strength in zip(found, (0, 100)):
        results = json.loads((out / "measured" / name / "results.json").read_text())
        made_under = results["subject"]["made_under"].values()
        assert {made["settings"]["strength"] for made in made_under} == {strength}
        assert all(run["guarded"] == run["expected"] > 0 for made in made_under for run in made["runs"] if strength)
        steps = json.loads((out / "measured" / name / "distilled.json").read_text())[0]
        assert all("{hosts}/" + CLONES[method] in " ".join(step["arguments"]) for step in steps)
