"""Our own baselines with a seam changed are refused, by every adapter; see tests/seam_mutations.py."""

import pytest

from guard_plugin.errors import SeamError
from guard_plugin.hosts.doctor import examine
from guard_plugin.injection.attachment import Attachment
from guard_plugin.plugins import Plugins
from tests.conftest import BASELINES
from tests.seam_mutations import MUTATIONS, check, mutants

HOSTS = [
    ("dc", "dc", "main.py"),
    ("mtt", "mtt", "buffer.py"),
    ("tesla", "tesla", "buffer.py"),
    ("sre2l", "sre2l", "squeeze.py"),
    ("cda", "sre2l", "squeeze.py"),
]


@pytest.mark.parametrize(("adapter", "baseline", "script"), HOSTS)
def test_each_changed_seam_is_refused_before_anything_runs(adapter, baseline, script, tmp_path):
    tried = set()
    for what, seam, copy in mutants(adapter, BASELINES / baseline, script, tmp_path):
        tried.add(what.partition(" ")[2])
        with pytest.raises(SeamError, match=f"^adapter {adapter}: seam {seam}: "):
            Attachment(adapter, (copy / script).resolve(), {"strength": 1.0, "h": 0.5})
        (found,) = [d for d in examine(Plugins().adapters[adapter].value, copy) if d.profile.script == script]
        assert f"seam {seam}:" in found.status
    assert tried == set(MUTATIONS)


@pytest.mark.long
def test_the_check_itself_runs_doctor_and_run_and_can_fail(guard, tmp_path, monkeypatch):
    """On a host that is as it must be, each command passes, which the check has to call a survivor."""
    monkeypatch.setattr("tests.seam_mutations.MUTATIONS", {"untouched": lambda host, seam: None})
    arguments = ["--help"]
    survivors = list(check("dc", BASELINES / "dc", "main.py", arguments, tmp_path / "copies", guard))
    assert len(survivors) == 3
    assert all("doctor exited with 0" in wrong and "run exited with 0" in wrong for _, wrong in survivors)
    monkeypatch.setattr("tests.seam_mutations.MUTATIONS", {"renamed": MUTATIONS["renamed"]})
    assert all(
        wrong == "" for _, wrong in check("dc", BASELINES / "dc", "main.py", arguments, tmp_path / "more", guard)
    )
