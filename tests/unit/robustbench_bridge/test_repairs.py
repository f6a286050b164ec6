import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge import repaired_robustbench
from guard_plugin.robustbench_bridge.datasets import clean_loader, corrupted_loader
from guard_plugin.robustbench_bridge.packages import is_missing, pkg_resources_module
from guard_plugin.robustbench_bridge.substitutes import provided_modules, replaced_attribute, replaced_item


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
        pytest.raises(UnusableInput, match=r"robustbench is needed here.*guard-plugin\[bench\]"),
        repaired_robustbench(),
    ):
        pass
    assert is_missing("autoattack")


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
    with provided_modules({"guard_no_such_module": ModuleType("guard_no_such_module")}):
        assert not is_missing("guard_no_such_module")
        __import__("guard_no_such_module")
    assert is_missing("guard_no_such_module")


def test_substitutes_go_back_also_after_an_error(monkeypatch):
    module, mapping = ModuleType("guard_some_module"), {"key": 1}
    module.name = 1
    monkeypatch.setitem(sys.modules, "guard_some_module", module)
    with (
        pytest.raises(ZeroDivisionError),
        replaced_attribute("guard_some_module", "name", 2),
        replaced_item(mapping, "key", 2),
    ):
        assert (module.name, mapping["key"]) == (2, 2)
        raise ZeroDivisionError
    assert (module.name, mapping["key"]) == (1, 1)


def test_another_version_without_the_name_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "guard_some_module", ModuleType("guard_some_module"))
    with (
        pytest.raises(UnusableInput, match=r"expected guard_some_module.name, as in robustbench 1.1.1"),
        replaced_attribute("guard_some_module", "name", 2),
    ):
        pass
    with (
        pytest.raises(UnusableInput, match=r"expected entry key, as in robustbench 1.1.1"),
        replaced_item({}, "key", 2),
    ):
        pass


def test_pkg_resources_finds_what_lies_beside_a_module(tmp_path, monkeypatch):
    module = ModuleType("guard_some_module")
    module.__file__ = str(tmp_path / "guard_some_module.py")
    monkeypatch.setitem(sys.modules, "guard_some_module", module)
    found = pkg_resources_module().resource_filename("guard_some_module", "helper_files/names.txt")
    assert found == str(tmp_path / "helper_files" / "names.txt")


def robustbench_data(**names):
    return SimpleNamespace(
        PREPROCESSINGS={None: object()},
        CORRUPTIONS_DIR_NAMES={"cifar_10": {"corruptions": "CIFAR-10-C"}},
        ZENODO_CORRUPTIONS_LINKS={"cifar_10": ("2535967", {"CIFAR-10-C.tar"})},
        ThreatModel=SimpleNamespace(corruptions="corruptions"),
        **names,
    )


def test_clean_images_that_are_missing_are_named_and_not_downloaded(tmp_path):
    data = robustbench_data()
    with pytest.raises(UnusableInput, match="CIFAR10 cannot be read.*Nothing is downloaded"):
        clean_loader(data, "CIFAR10")(8, str(tmp_path), data.PREPROCESSINGS[None])
    assert not list(tmp_path.iterdir())


def test_clean_images_take_no_preprocessing(tmp_path):
    with pytest.raises(UnusableInput, match="preprocessing is for imagenet"):
        clean_loader(robustbench_data(), "CIFAR10")(8, tmp_path, lambda image: image)


def test_corrupted_images_that_are_missing_are_named_and_not_downloaded(tmp_path):
    load = corrupted_loader(robustbench_data(), "cifar_10")
    with pytest.raises(UnusableInput, match="CIFAR-10-C/labels.npy.*Nothing is downloaded.*record 2535967"):
        load(8, 1, tmp_path, shuffle=False, corruptions=["fog"], prepr=None)
    (tmp_path / "CIFAR-10-C").mkdir()
    (tmp_path / "CIFAR-10-C" / "labels.npy").touch()
    with pytest.raises(UnusableInput, match=r"CIFAR-10-C/fog.npy"):
        load(8, 1, tmp_path, shuffle=False, corruptions=["fog"], prepr=None)


def test_fewer_corrupted_images_than_asked_for_are_refused(tmp_path):
    (tmp_path / "CIFAR-10-C").mkdir()
    for name in ("labels", "fog"):
        (tmp_path / "CIFAR-10-C" / f"{name}.npy").touch()
    data = robustbench_data(load_corruptions_cifar=lambda *a: (torch.zeros(3, 3, 2, 2), torch.zeros(3)))
    with pytest.raises(UnusableInput, match="from 1 to 3.*got 8"):
        corrupted_loader(data, "cifar_10")(8, 1, tmp_path, shuffle=False, corruptions=["fog"], prepr=None)
