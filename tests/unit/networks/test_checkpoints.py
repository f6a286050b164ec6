"""Checkpoints of networks that were trained elsewhere."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.networks import build_network, checkpoint_subject, load_checkpoint
from guard_plugin.spaces import Normalization, ZcaWhitening
from tests.hostile import Hostile

SHAPE = {"channels": 3, "num_classes": 4, "im_size": (8, 8)}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def trained(arch="ConvNetBN"):
    """A network whose every entry differs from a new one's."""
    network = build_network(arch, **SHAPE)
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network


@pytest.mark.parametrize("form", ["bare", "model", "state_dict", "net", "parallel"])
def test_the_network_is_the_one_that_was_saved_in_eval_mode(tmp_path, form):
    network = trained().eval()
    state = nn.DataParallel(network).state_dict() if form == "parallel" else network.state_dict()
    content = state if form in ("bare", "parallel") else {form: state, "epoch": 3}
    loaded = load_checkpoint(saved(tmp_path, content), "ConvNetBN", **SHAPE)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert not any(module.training for module in loaded.modules())


def test_counters_of_batches_may_be_missing(tmp_path):
    network = trained().eval()
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    loaded = load_checkpoint(saved(tmp_path, state), "ConvNetBN", **SHAPE)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


class Normalize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))


SPACE = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def in_front(network, *, mean=SPACE.mean, std=SPACE.std):
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), model=network)).state_dict()


@pytest.mark.parametrize(
    ("larger", "prefix"),
    [
        (lambda network: {f"model.{name}": value for name, value in network.state_dict().items()}, "model."),
        (lambda network: nn.Sequential(nn.Identity(), network).state_dict(), "1."),
        (in_front, "model."),
    ],
    ids=["Lightning", "Sequential", "normalising layer"],
)
def test_a_network_in_a_larger_module_is_found(tmp_path, capsys, larger, prefix):
    network = trained().eval()
    file = saved(tmp_path, {"state_dict": larger(network), "pytorch-lightning_version": "2.0"})
    loaded = load_checkpoint(file, "ConvNetBN", **SHAPE, space=SPACE)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert f"guard: {file}: took the weights behind the prefix '{prefix}'\n" == capsys.readouterr().err


def test_which_of_two_state_dicts_was_taken_is_said_and_recorded(tmp_path, capsys):
    network = trained().eval()
    average = {name: value + 1 for name, value in network.state_dict().items()}
    file = saved(tmp_path, {"model_ema": average, "model": network.state_dict()})
    loaded = load_checkpoint(file, "ConvNetBN", **SHAPE)
    assert torch.equal(loaded.classifier.weight, network.classifier.weight)
    said = capsys.readouterr().err
    assert "took the weights under 'model', and not those under 'model_ema': to measure these" in said
    assert checkpoint_subject(file)["weights"] == "model"
    exec(f"torch.save(torch.load({str(file)!r})['model_ema'], 'weights.pt')")  # the fix that is told
    assert torch.equal(
        load_checkpoint(Path("weights.pt"), "ConvNetBN", **SHAPE).classifier.weight, average["classifier.weight"]
    )


def test_an_ordinary_checkpoint_is_loaded_without_a_word(tmp_path, capsys):
    load_checkpoint(saved(tmp_path, {"model": trained().state_dict(), "epoch": 3}), "ConvNetBN", **SHAPE)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("layer", "space"),
    [
        ({}, None),
        ({}, Normalization.identity(3)),
        ({"std": (0.247, 0.2435, 0.2616)}, SPACE),
        ({"mean": (0.5,) * 3}, SPACE),
        ({}, ZcaWhitening()),
    ],
)
def test_a_layer_that_normalises_in_another_way_is_refused_with_its_numbers(tmp_path, layer, space):
    file = saved(tmp_path, in_front(trained(), **layer))
    mean, std = (",".join(f"{x:g}" for x in layer.get(name, getattr(SPACE, name))) for name in ("mean", "std"))
    with pytest.raises(
        UnusableInput, match=f'normalize.mean and normalize.std .*--normalization "mean={mean};std={std}"'
    ):
        load_checkpoint(file, "ConvNetBN", **SHAPE, space=space)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"criterion.weight": torch.ones(4)}, "behind the prefix 'net.', and beside it 1 entries: criterion.weight"),
        ({"conv.mean": torch.ones(3)}, "beside it 1 entries: conv.mean"),
        ({"a.mean": torch.ones(3), "b.std": torch.ones(3)}, "beside it 2 entries: a.mean, b.std"),
        ({"a.mean": torch.ones(3), "a.std": torch.ones(3), "a.eps": torch.ones(1)}, "beside it 3 entries"),
    ],
)
def test_what_a_larger_module_does_besides_is_not_guessed(tmp_path, beside, words):
    state = {f"net.{name}": value for name, value in trained().state_dict().items()}
    with pytest.raises(UnusableInput, match=rf"{words}.*torch.save\(model.net.state_dict\(\)"):
        load_checkpoint(saved(tmp_path, {**beside, **state}), "ConvNetBN", **SHAPE)


def test_two_networks_that_fit_are_told_and_one_that_does_not_is_no_rival(tmp_path):
    student, teacher = trained(), trained("ConvNet")
    state = nn.ModuleDict({"student": student, "teacher": teacher}).state_dict()
    with pytest.raises(UnusableInput, match="beside it .* entries: teacher.features"):
        load_checkpoint(saved(tmp_path, state), "ConvNetBN", **SHAPE)
    state = nn.ModuleDict({"student": student, "teacher": student}).state_dict()
    with pytest.raises(UnusableInput, match="holds several networks ConvNetBN .*'student.', 'teacher.'"):
        load_checkpoint(saved(tmp_path, state), "ConvNetBN", **SHAPE)


def test_misfits_are_told_by_the_networks_own_names(tmp_path):
    def lightning(num_classes):
        network = build_network("ConvNetBN", **{**SHAPE, "num_classes": num_classes})
        return saved(tmp_path, {f"model.{name}": value for name, value in network.state_dict().items()})

    words = r"behind the prefix 'model.': 2 entries .* classifier.weight .*for 7 classes"
    with pytest.raises(UnusableInput, match=words):
        load_checkpoint(lightning(7), "ConvNetBN", **SHAPE)
    with pytest.raises(UnusableInput, match=r"behind the prefix 'model.': .*it fits --arch ConvNetBN$"):
        load_checkpoint(lightning(4), "ConvNet", **SHAPE)
    with pytest.raises(UnusableInput, match=r"it fits --arch ConvNetBN$"):
        load_checkpoint(lightning(4), "MLP", **SHAPE)


@pytest.mark.parametrize("classes", [3, 7])
def test_another_number_of_classes_is_told(tmp_path, classes):
    file = saved(tmp_path, build_network("ConvNetBN", **{**SHAPE, "num_classes": classes}).state_dict())
    with pytest.raises(UnusableInput, match=f"fits ConvNetBN for {classes} classes.*--num-classes {classes}"):
        load_checkpoint(file, "ConvNetBN", **SHAPE)


def changed(state, **changes):
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features.0.weight": None, "features.4.bias": None}, "2 entries are missing: features.0.weight, features.4"),
        ({"fc.weight": torch.ones(1)}, "1 entries are unexpected: fc.weight"),
        (
            {"classifier.bias": torch.ones(10)},
            r"1 entries are of another shape or kind: classifier.bias \(expected \(4,\), got \(10,\) of torch.float",
        ),
        ({"classifier.bias": torch.ones(4).long()}, r"1 entries are of another .* got \(4,\) of torch.int64"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, words):
    state = trained("ConvNet").state_dict()
    key = {name.replace("__", "."): value for name, value in changes.items()}
    with pytest.raises(UnusableInput, match=f"does not fit ConvNet for 4 classes and 3x8x8 images: {words}.*another"):
        load_checkpoint(saved(tmp_path, changed(state, **key)), "ConvNet", **SHAPE)


def test_mnasnet_is_loaded_which_asks_for_its_version(tmp_path):
    size = {"channels": 3, "num_classes": 4, "im_size": (32, 32)}
    network = build_network("mnasnet0_5", **size)
    loaded = load_checkpoint(saved(tmp_path, {"model": network.state_dict()}), "mnasnet0_5", **size)
    assert all(map(torch.equal, loaded.state_dict().values(), network.state_dict().values()))


@pytest.mark.parametrize("arch", ["ConvNetD2", "MLP", "resnet18", "resnet18-7x7", "resnet50-3x3", "vgg11"])
def test_the_architecture_that_fits_is_told(tmp_path, arch):
    size = {**SHAPE, "im_size": (32, 32)}
    file = saved(tmp_path, {"weight": torch.ones(1)})
    if arch in ("vgg11", "resnet50-3x3"):  # up to half a gigabyte: the shapes are enough
        with torch.device("meta"):
            state = build_network(arch, **size).state_dict()
        zeros = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in state.items()}
        file = saved(tmp_path, zeros)
    else:
        file = saved(tmp_path, build_network(arch, **size).state_dict())
    with pytest.raises(UnusableInput, match=f"it fits --arch {arch}$"):
        load_checkpoint(file, "ConvNetD1", **size)


def test_a_file_without_weights_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="expected a state dict"):
        load_checkpoint(saved(tmp_path, {"epoch": 3}), "ConvNet", **SHAPE)


def test_a_hostile_checkpoint_executes_nothing_and_is_refused(tmp_path):
    with pytest.raises(UnsafeFile, match="would run code"):
        load_checkpoint(saved(tmp_path, {"model": trained().state_dict(), "hook": Hostile()}), "ConvNetBN", **SHAPE)
    assert not Path("executed").exists()


def test_a_whole_network_is_refused_with_what_to_save_instead(tmp_path):
    words = (
        r"refused: .* \(torch.nn.modules.linear.Linear\), .*run code.*torch.save\(network.state_dict\(\), FILE\) does$"
    )
    with pytest.raises(UnsafeFile, match=words):
        load_checkpoint(saved(tmp_path, nn.Linear(2, 2)), "ConvNetBN", **SHAPE)


def test_a_checkpoint_is_described_for_the_results(tmp_path):
    file = saved(tmp_path, {"weight": torch.ones(1)})
    assert checkpoint_subject(file) == {
        "kind": "checkpoint",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "weights": None,
        "adapter": None,
        "ipc": None,
    }
