"""What an adapter knows of a script: where it lies, and what it cannot be guarded with."""

from pathlib import Path

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts import Adapter, Profile, RefusedOption, Seam, UnguardedOption
from guard_plugin.hosts.adapter import make_adapter

MSE = RefusedOption("--loss_type", "mse", "no classification loss")
DEEP = Profile("sub/train.py", seams=(Seam("pkg.lib", "fit", "opens", ("net",)),), roots=("..",))


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("--loss_type mse", True),
        ("--loss_type=mse", True),
        ("--epochs 3 --loss mse --lr 1", True),
        ("--loss_type ce", False),
        ("--loss_type mse --loss_type ce", False),
        ("--loss_type=ce --loss_type=mse", True),
        ("--l mse", True),
        ("--lr mse", False),
        ("mse", False),
        ("--loss_type", False),
    ],
)
def test_a_refused_option_is_seen_however_it_is_written(arguments, given):
    assert MSE.given_in(arguments.split()) == given


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--check-ckpt", "a.pth"], True),
        (["--check=a.pth"], True),
        (["--check-ckpt"], True),
        (["--check-ckpt", "--epochs", "3"], True),
        (["--check-ckpt", ""], False),
        (["--check-ckpt="], False),
        (["--check-ckpt", "", "--epochs", "3"], False),
        (["--check-ckpt", "a.pth", "--check-ckpt", ""], False),
        (["--check-ckpt", "", "--check-ckpt", "a.pth"], True),
        (["--epochs", "3"], False),
    ],
)
def test_an_option_without_a_value_of_its_own_counts_and_an_empty_value_does_not(arguments, given):
    """An unset variable of the shell's, ``--check-ckpt "$FILE"``: the host takes it as absent, and trains."""
    profile = Profile("squeeze.py", unguarded_options=(UnguardedOption("--check-ckpt", "it only reads"),))
    assert profile.why_unguarded(arguments) == ("it only reads" if given else "")


@pytest.mark.parametrize("value", [["--data"], ["--data", ""], ["--data="]])
def test_an_empty_value_names_no_folder_and_no_data_set(value):
    profile = Profile("validate.py", reads_folders=("--data",), about={"dataset": ("--data", "CIFAR10")})
    assert profile.folders_read(["--data", "syn"]) == [Path("syn")] and profile.folders_read(value) == []
    assert profile.written_about(["--data", "syn"]) == {"dataset": "syn"} and profile.written_about(value) == {}


def test_a_refused_option_ends_with_the_reason():
    profile = Profile("buffer.py", refused_options=(MSE,))
    profile.check_arguments(["--loss_type", "ce"])
    with pytest.raises(UnusableInput, match="buffer.py cannot be guarded with --loss_type mse: no classification loss"):
        profile.check_arguments(["--loss_type", "mse"])


def test_a_script_below_its_hosts_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "lib.py").write_text("def fit(net): pass\n")
    script = tmp_path / "sub" / "train.py"
    script.write_text("import sys\nsys.path.append('../')\nfrom pkg.lib import fit\n")
    adapter = Adapter("deep", "someone/deep", (DEEP,))
    assert adapter.profile(script) is DEEP and DEEP.host(script) == tmp_path
    (found,) = adapter.locate(DEEP, script)
    assert found.file == tmp_path / "pkg" / "lib.py"
    with pytest.raises(UnusableInput, match=r"expected sub/train.py in the folders of its host, found .*elsewhere"):
        adapter.profile(tmp_path / "elsewhere" / "train.py")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected --guard MODULE:FUNCTION"),
        ({"guard": ["utils:"]}, "expected a seam as MODULE:FUNCTION"),
        ({"guard": ["utils.py"], "suspend": ["a-b:c"]}, "got 'a-b:c'"),
        ({"guard": ["utils:epoch"], "suspend": ["utils:epoch"]}, "cannot be both"),
        ({"guard": ["utils:epoch"], "expect": 0}, "expected --expect >= 1"),
    ],
)
def test_what_no_adapter_can_be_made_of_is_refused(options, message):
    with pytest.raises(UnusableInput, match=message):
        make_adapter(Path("train.py"), **options)


def test_an_adapter_in_the_users_words():
    adapter = make_adapter(Path("/h/train.py"), guard=["utils:epoch", "train"], suspend=["utils:test"], expect=3)
    (profile,) = adapter.profiles
    assert [(s.name, s.role, s.parameters) for s in profile.seams] == [
        ("utils.epoch", "opens", None),
        ("train", "opens", None),
        ("utils.test", "suspends", None),
    ]
    assert profile.script == "train.py" and profile.expected == 3
