"""What must hold where robustbench measures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.checks import check_class_folders, check_corrupted_files, checked_model

N = 8
FIX = "get them again"


@pytest.fixture
def folder(tmp_path):
    """CIFAR-10-C with one kind, of which the first images are not holes."""
    np.save(tmp_path / "labels.npy", np.arange(N, dtype=np.uint8))
    np.lib.format.open_memmap(tmp_path / "fog.npy", "w+", np.uint8, (50000, 32, 32, 3)).flush()
    return tmp_path


def test_good_files_pass(folder):
    check_corrupted_files(folder, ["fog"], N, 10, FIX)


def memmap(*shape, dtype=np.uint8):
    return lambda file: np.lib.format.open_memmap(file, "w+", dtype, shape).flush()


def truncate(file):
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("fog", truncate, "fog.npy is damaged, incomplete .*: get them again"),
        ("fog", lambda file: file.write_bytes(b""), "fog.npy is damaged"),
        ("fog", lambda file: file.unlink(), "expected .*fog.npy, and it is not there: get them again"),
        ("fog", lambda file: np.save(file, np.array([{}]), allow_pickle=True), "no array of numbers"),
        ("fog", memmap(30000, 32, 32, 3), r"expected 50000 images .* in uint8 in .*fog.npy, got uint8 of \(30000, 32"),
        ("fog", memmap(40000 + N - 1, 32, 32, 3), "got uint8 of"),
        ("fog", memmap(50000, 3, 32, 32), "got uint8 of"),
        ("fog", memmap(50000, 32, 32, 3, dtype=np.float32), "got float32 of"),
        ("labels", truncate, "labels.npy is damaged"),
        ("labels", lambda file: np.save(file, np.arange(N - 1)), f"n_examples from 1 to {N - 1}, .*; got {N}"),
        ("labels", lambda file: np.save(file, np.arange(N) + 3), r"labels in \[0, 10\) .*another data set"),
        ("labels", lambda file: np.save(file, np.arange(N) - 1), r"labels in \[0, 10\)"),
        ("labels", lambda file: np.save(file, np.arange(N) / 1), "class indices .*got float64"),
        ("labels", lambda file: np.save(file, np.eye(N, dtype=int)), "class indices .*got int64 of"),
    ],
)
def test_files_that_are_damaged_or_others_are_refused(folder, name, damage, words):
    damage(folder / f"{name}.npy")
    with pytest.raises(UnusableInput, match=words):
        check_corrupted_files(folder, ["fog"], N, 10, FIX)


CLASSES = ("n01", "n02", "n03")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (CLASSES, None),
        (("n01", "n02"), r"1 are missing \(n03\)$"),
        ((*CLASSES, "n04"), r"1 are none of these \(n04\)$"),
        (("a", "b", "c", "d"), r"3 are missing \(n01, n02, n03\); 4 are none of these \(a, b, c and more\)$"),
        ((), "3 are missing"),
    ],
)
def test_trees_with_other_classes_are_refused(tmp_path, made, words):
    for name in made:
        (tmp_path / "val" / name).mkdir(parents=True)
    (tmp_path / "val").mkdir(exist_ok=True)
    (tmp_path / "val" / "README").touch()
    if words is None:
        check_class_folders([tmp_path / "val"], CLASSES)
        return
    with pytest.raises(UnusableInput, match=f"for each of the 3 classes in .*val, .*: {words}"):
        check_class_folders([tmp_path / "val"], CLASSES)


def test_a_missing_tree_is_named(tmp_path):
    with pytest.raises(UnusableInput, match="expected .*val, and it is not there"):
        check_class_folders([tmp_path / "val"], CLASSES)


class Linear(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(12, 10)
        self.change = change

    def forward(self, pixels):
        return self.change(self.linear(pixels.flatten(1)))


def accuracy(model, pixels, change=None, *, attacked=True):
    """As robustbench.eval computes it, twice."""
    labels = model(pixels).argmax(1) if change is None else torch.zeros(len(pixels), dtype=torch.int64)

    def clean_accuracy(model, x, y, batch_size, device):
        return (torch.cat([model(batch) for batch in x.split(batch_size)]).argmax(1) == y).double().mean().item()

    evaluation = SimpleNamespace(clean_accuracy=clean_accuracy)
    with checked_model(evaluation, 10, attacked=attacked):
        found = [evaluation.clean_accuracy(model, pixels, labels, batch_size=4, device="cpu") for _ in range(2)]
    assert evaluation.clean_accuracy is clean_accuracy
    return found


PIXELS = torch.rand(N, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_a_good_model_is_measured_as_without_the_checks():
    assert accuracy(Linear(lambda logits: logits).eval(), PIXELS) == [1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: logits * torch.nan, "finite logits"),
        (lambda logits: logits + torch.inf, "finite logits"),
        (lambda logits: logits.softmax(1), "sums to 1"),
        (lambda logits: logits + torch.rand_like(logits), "deterministic"),
        (lambda logits: logits[:, :9], "expected logits for 10 classes, got 9"),
        (lambda logits: logits.repeat(1, 2), "expected logits for 10 classes, got 20"),
        (lambda logits: (logits, logits), "got tuple"),
        (lambda logits: logits - logits.mean(0), "what else is in the batch"),
        (lambda logits: logits.detach(), "no gradient reaches the pixels"),
        (lambda logits: logits + (0 * logits).sqrt(), "expected finite gradients"),
    ],
)
def test_models_are_refused_as_on_our_own_path(change, words):
    with pytest.raises(UnusableInput, match=words):
        accuracy(Linear(change).eval(), PIXELS, change)


def test_half_precision_and_training_mode_are_refused():
    with pytest.raises(UnusableInput, match="got torch.float16: call model.float"):
        accuracy(Linear(None).half().eval(), PIXELS, "half")
    with pytest.raises(UnusableInput, match="training mode"):
        accuracy(Linear(None).train(), PIXELS, "training")


def test_a_model_that_nothing_differentiates_needs_no_gradient():
    assert accuracy(Linear(lambda logits: logits.detach()).eval(), PIXELS, attacked=False) == [1, 1]


def test_every_output_must_be_finite():
    """Of the first batch, which the other checks see, all pixels are alike; of the second, the first two are not."""
    model, pixels = Linear(lambda logits: torch.where(logits[:, :1] > 50, torch.nan, logits)).eval(), PIXELS.clone()
    with torch.no_grad():
        model.linear.weight[0] = torch.tensor([100.0, -100.0, *[0.0] * 10])
    pixels[:4] = 0.5
    pixels[4:, 0, 0] = torch.tensor([1.0, 0.0])
    with pytest.raises(UnusableInput, match="finite logits"):
        accuracy(model, pixels, "late")
