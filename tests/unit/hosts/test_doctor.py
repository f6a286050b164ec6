import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts.doctor import examine
from guard_plugin.plugins import installed_plugins


def test_a_folder_within_a_clone_is_told_from_one_without_any(tmp_path):
    adapter = installed_plugins().adapters["sre2l"].value
    script = tmp_path / "clone" / adapter.profiles[0].script
    script.parent.mkdir(parents=True)
    with pytest.raises(UnusableInput, match=r"found none: is this a clone of VILA-Lab/SRe2L"):
        examine(adapter, script.parent)
    script.write_text("")
    with pytest.raises(UnusableInput, match=rf"found none: {tmp_path}/clone has one: give that folder"):
        examine(adapter, script.parent)
    assert [diagnosis.profile for diagnosis in examine(adapter, tmp_path / "clone")] == [adapter.profiles[0]]
