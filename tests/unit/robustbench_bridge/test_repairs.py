import subprocess
import sys
from contextlib import ExitStack
from enum import Enum
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge import Repair, repaired_robustbench
from guard_plugin.robustbench_bridge import repairs as room
from guard_plugin.robustbench_bridge.repairs import load_clean, load_corrupted


def test_importing_guard_plugin_loads_nothing_of_robustbench():
    code = (
        "import sys, guard_plugin.robustbench_bridge; "
        "names = {name.partition('.')[0] for name in sys.modules}; "
        "assert not names & {'robustbench', 'autoattack', 'pyautoattack', 'timm', 'pkg_resources'}, names"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_robustbench_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with (
        pytest.raises(UnusableInput, match=r"needs robustbench, and.*guard-plugin\[bench\]"),
        repaired_robustbench(),
    ):
        pass
    assert "autoattack" not in sys.modules


@pytest.mark.parametrize("installed", [False, True])
def test_another_package_of_that_name_is_refused(monkeypatch, installed):
    """torchattacks 3.5.1 brings one, with or without the real one beside it."""
    copy = ModuleType("robustbench")
    copy.__file__ = "/site-packages/robustbench/__init__.py"
    if not installed:
        copy.benchmark = print
    monkeypatch.setitem(sys.modules, "robustbench", copy)
    monkeypatch.setattr("importlib.metadata.distributions", lambda name: [name] if installed else [])
    with (
        pytest.raises(UnusableInput, match="robustbench/__init__.py is.*torchattacks.*--force"),
        repaired_robustbench(),
    ):
        pass


def test_provided_modules_can_be_imported_for_a_while():
    modules = {"guard_missing": SimpleNamespace(name=1), "guard_missing.inner": SimpleNamespace(name=2)}
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        assert room._provide(stack, modules, "because") == [Repair("guard_missing", "because")]
        # Neither a module that is imported nor one that is only installed is hidden.
        assert room._provide(stack, {"torch": None}, "") == room._provide(stack, {"this": None}, "") == []
        from guard_missing import name
        from guard_missing.inner import name as inner

        assert (name, inner) == (1, 2)
        raise ZeroDivisionError
    assert not set(modules) & set(sys.modules) and sys.modules["torch"] is torch


def test_pkg_resources_finds_what_lies_beside_a_module(tmp_path, monkeypatch):
    module = ModuleType("guard_some_module")
    module.__file__ = str(tmp_path / "guard_some_module.py")
    monkeypatch.setitem(sys.modules, "guard_some_module", module)
    found = room._PKG_RESOURCES["pkg_resources"].resource_filename("guard_some_module", "helper_files/names.txt")
    assert found == str(tmp_path / "helper_files" / "names.txt")


class Member(Enum):
    cifar10 = "cifar10"
    cifar100 = "cifar100"


@pytest.fixture
def other_version(monkeypatch):
    """A robustbench of which robustbench.eval lacks the last name that is replaced, update_json."""
    names = ("AutoAttack", "EvaluationState", "corruptions_evaluation")
    data = SimpleNamespace(
        BenchmarkDataset=Member,
        ThreatModel=SimpleNamespace(corruptions="corruptions"),
        _clean_dataset_loaders={member: "theirs" for member in Member},
        CORRUPTION_DATASET_LOADERS={member: {"corruptions": "theirs"} for member in Member},
    )
    evaluation = SimpleNamespace(**dict.fromkeys(names, "theirs"))
    package = SimpleNamespace(benchmark=print, data=data, eval=evaluation)
    for name, module in {"": package, ".data": data, ".eval": evaluation}.items():
        monkeypatch.setitem(sys.modules, f"robustbench{name}", module)
    monkeypatch.setattr("importlib.metadata.distributions", lambda name: [name])
    return package


def replaceable(package):
    """What the repairs replace."""
    corrupted = [loaders["corruptions"] for loaders in package.data.CORRUPTION_DATASET_LOADERS.values()]
    return [*vars(package.eval).values(), *package.data._clean_dataset_loaders.values(), *corrupted]


def test_another_version_is_refused_and_left_as_it_was(other_version):
    with pytest.raises(UnusableInput, match=r"expected robustbench==1.1.1 .*update_json"), repaired_robustbench():
        pass
    assert replaceable(other_version) == ["theirs"] * 7


def test_everything_is_as_it_was_after_an_error(other_version):
    other_version.eval.update_json = "theirs"
    with pytest.raises(ZeroDivisionError), repaired_robustbench() as (robustbench, repairs):
        assert robustbench is other_version and len(repairs) >= 6
        assert len(replaceable(other_version)) == 8 and "theirs" not in replaceable(other_version)
        raise ZeroDivisionError
    assert replaceable(other_version) == ["theirs"] * 8


def robustbench_data(**names):
    return SimpleNamespace(
        PREPROCESSINGS={None: object()},
        CORRUPTIONS_DIR_NAMES={Member.cifar10: {"corruptions": "CIFAR-10-C"}},
        ZENODO_CORRUPTIONS_LINKS={Member.cifar10: ("2535967", {"CIFAR-10-C.tar"})},
        ThreatModel=SimpleNamespace(corruptions="corruptions"),
        **names,
    )


def test_clean_images_that_are_missing_are_named_and_not_downloaded(tmp_path):
    data = robustbench_data()
    with pytest.raises(UnusableInput, match="CIFAR10 cannot be read.*Nothing is downloaded"):
        load_clean(data, "CIFAR10", 8, str(tmp_path), data.PREPROCESSINGS[None])
    assert not list(tmp_path.iterdir())


def test_clean_images_take_no_preprocessing(tmp_path):
    with pytest.raises(UnusableInput, match="preprocessing is for imagenet"):
        load_clean(robustbench_data(), "CIFAR10", 8, tmp_path, lambda image: image)


def test_corrupted_images_that_are_missing_are_named_and_not_downloaded(tmp_path):
    load = partial(load_corrupted, robustbench_data(), Member.cifar10)
    with pytest.raises(UnusableInput, match="CIFAR-10-C/labels.npy.*nothing is downloaded.*record 2535967"):
        load(8, 1, tmp_path, shuffle=False, corruptions=["fog"], prepr=None)
    (tmp_path / "CIFAR-10-C").mkdir()
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.arange(8))
    with pytest.raises(UnusableInput, match=r"CIFAR-10-C/fog.npy"):
        load(8, 1, tmp_path, shuffle=False, corruptions=["fog"], prepr=None)


def test_repairs_are_logged_once(caplog):
    with caplog.at_level("INFO", "guard_plugin"):
        room._log(Repair("a thing", "it was broken"))
        room._log(Repair("a thing", "it was broken, with another seed"))
    assert caplog.messages == ["robustbench repaired in memory, a thing: it was broken"]
