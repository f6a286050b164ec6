"""What every adapter must keep, whoever wrote it."""

from pathlib import Path

import pytest
import torch
from guard_adapters.dc import read_result

from guard_plugin import hosts, injection
from guard_plugin.distilled import read_distilled
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.injection.penalty_choice import choose_penalty
from guard_plugin.plugins import Plugins

PLUGINS = Plugins()
ADAPTERS = {name: registered.value for name, registered in PLUGINS.adapters.items()}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_each_script_is_guarded_or_says_why_not(adapter):
    for profile in adapter.profiles:
        opens = [seam for seam in profile.seams if seam.role == "opens"]
        assert bool(opens) != bool(profile.refused or profile.unguarded), profile.script
        assert profile.expected is None or profile.expected.seam in [seam.name for seam in profile.seams]


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_each_adapter_recommends_settings_for_both_forms(adapter):
    for form in ("gradient", "loss"):
        penalty = choose_penalty(PLUGINS, adapter, {"form": form}).penalty
        assert penalty.strength > 0 and penalty.settings()["form"] == form


@pytest.mark.parametrize("name", ADAPTERS)
def test_each_adapter_leaves_other_hosts_files_alone(name):
    for other in set(ADAPTERS) - {name} | {"no-such-adapter"}:
        with pytest.raises(UnusableInput, match="no installed plugin reads distilled sets|expected"):
            read_distilled(PLUGINS.hook, other, Path(__file__))


def test_adapters_of_other_distributions_may_import_the_same_names_from_injection():
    for name in hosts.__all__:
        assert getattr(injection, name) is getattr(hosts, name) and name in injection.__all__, name


def save_dc(file: Path, experiments: int = 2, channels: int = 1) -> list[list[torch.Tensor]]:
    import numpy as np

    pairs = [[torch.randn(20, channels, 28, 28), torch.arange(10).repeat_interleave(2)] for _ in range(experiments)]
    torch.save({"data": pairs, "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}, file)
    return pairs


@pytest.mark.parametrize("method", ["DC", "DSA", "DM"])
def test_dc_files_are_read_one_set_per_experiment(tmp_path, method):
    file = tmp_path / f"res_{method}_FashionMNIST_ConvNet_2ipc.pt"
    pairs = save_dc(file)
    sets = read_distilled(PLUGINS.hook, "dc", file)
    assert len(sets) == 2 and sets[0].dataset == "FashionMNIST" and sets[0].arch == "ConvNet"
    assert torch.equal(sets[1].images, pairs[1][0]) and torch.equal(sets[1].labels, pairs[1][1])
    torch.testing.assert_close(sets[0].normalization.to_pixels(sets[0].images), pairs[0][0] * 0.3530 + 0.2861)


@pytest.mark.parametrize(
    ("name", "recipe", "augmented"),
    [
        ("res_DC_FashionMNIST_ConvNet_2ipc.pt", "dc", False),
        ("res_DC_FashionMNIST_ConvNetBN_2ipc.pt", "dc", True),
        ("res_DC_MNIST_ConvNet_2ipc.pt", "dc", True),
        ("res_DSA_MNIST_ConvNetBN_2ipc.pt", "dsa", False),
        ("res_DM_FashionMNIST_ConvNet_2ipc.pt", "dsa", False),
    ],
)
def test_dc_files_choose_the_recipe_of_their_method(tmp_path, name, recipe, augmented):
    save_dc(tmp_path / name)
    one, _ = read_distilled(PLUGINS.hook, "dc", tmp_path / name)
    assert one.recipe == recipe and ("trains them for 1000 epochs" in one.recipe_lacks) == augmented


def test_dc_labels_of_another_type_are_read_as_they_are_meant(tmp_path):
    file = tmp_path / "res_DC_FashionMNIST_ConvNet_1ipc.pt"
    images = torch.randn(10, 1, 28, 28)
    for labels, kind in ((torch.arange(10.0), torch.int64), (torch.full((10, 10), 0.1), torch.float32)):
        torch.save({"data": [[images, labels]]}, file)
        assert read_result(file)[0].labels.dtype == kind
    torch.save({"data": [[images, torch.full((10,), 0.7)]]}, file)
    with pytest.raises(UnusableInput, match="expected labels of shape"):
        read_result(file)


def test_dc_images_that_are_pixels_from_0_to_255_are_refused(tmp_path):
    file = tmp_path / "res_DC_FashionMNIST_ConvNet_1ipc.pt"
    normalised, pixels = torch.randn(10, 1, 28, 28), torch.rand(10, 1, 28, 28) * 255
    for images, found in ((pixels.byte(), "torch.uint8"), (pixels, "values whose root mean square is 14")):
        torch.save({"data": [[normalised, torch.arange(10)], [images, torch.arange(10)]]}, file)
        with pytest.raises(UnusableInput, match=rf"experiment 1: expected .* pixels to -0\.81 to 2\.02; got {found}"):
            read_result(file)


def test_dc_files_of_another_name_or_content_are_refused(tmp_path):
    for name, message in (
        ("result.pt", "expected a file named res_METHOD"),
        ("res_DC_Unknown_ConvNet_1ipc.pt", "expected one of the data sets"),
    ):
        save_dc(tmp_path / name)
        with pytest.raises(UnusableInput, match=message):
            read_result(tmp_path / name)
    file = tmp_path / "res_DC_FashionMNIST_ConvNet_1ipc.pt"
    for content in ({"images": 1}, {"data": []}, [1], {"data": [[1, 2]]}):
        torch.save(content, file)
        with pytest.raises(UnusableInput):
            read_result(file)
    torch.save({"data": Path}, file)
    with pytest.raises(UnsafeFile):
        read_result(file)
