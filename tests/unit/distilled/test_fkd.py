"""Stored soft labels are read as the host's relabel wrote them."""

import pickle
import subprocess

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from guard_plugin.distilled import FkdLabels
from guard_plugin.errors import UnsafeFile, UnusableInput

N, BATCH, CLASSES, EPOCHS = 7, 3, 4, 3


def content(n, **changes):
    """One file's content, with numpy's integers, as the host leaves them in."""
    parts = {
        "coords": torch.rand(n, 4) / 2 + 0.01,
        "flip": torch.rand(n) < 0.5,
        "index": torch.randperm(n),
        "lam": float(np.random.beta(1.0, 1.0)),
        "bbox": [np.int64(side) for side in (1, 2, 5, 8)],
        "logits": torch.randn(n, CLASSES).half(),
    }
    return list((parts | changes).values())


def write(folder, epochs=EPOCHS, **changes):
    """Write a folder with a last batch of one image; changes go into the last file."""
    written = {}
    for epoch in range(epochs):
        for batch, n in enumerate((BATCH, BATCH, N - 2 * BATCH)):
            file = folder / f"epoch_{epoch}" / f"batch_{batch}.tar"
            file.parent.mkdir(parents=True, exist_ok=True)
            written[epoch, batch] = content(n, **(changes if (epoch, batch) == (epochs - 1, 2) else {}))
            torch.save(written[epoch, batch], file)
    return written


def read_all(folder):
    return [list(epoch) for epoch in FkdLabels(folder).batches()]


def test_contents_come_back(tmp_path):
    written = write(tmp_path)
    labels = FkdLabels(tmp_path)
    assert (labels.epochs, labels.batch_size, labels.n_images, labels.num_classes) == (EPOCHS, BATCH, N, CLASSES)
    for (epoch, batch), (coords, flip, index, lam, bbox, logits) in written.items():
        found = read_all(tmp_path)[epoch][batch]
        assert torch.equal(found.view.crops, coords) and torch.equal(found.view.flips, flip)
        assert torch.equal(found.view.mix.order, index) and found.view.mix.own == lam
        assert found.view.mix.box == tuple(bbox) and all(type(side) is int for side in found.view.mix.box)
        assert torch.equal(found.logits, logits.float()) and found.logits.dtype == torch.float32


@pytest.mark.parametrize(("n", "batch"), [(7, 3), (6, 3)])
def test_the_order_is_that_of_the_hosts_loader(tmp_path, n, batch):
    """Whether the last batch is full or not; each epoch in an order of its own."""
    generator = torch.Generator()
    generator.manual_seed(42)
    dataset = TensorDataset(torch.arange(n))
    loader = DataLoader(dataset, batch_size=batch, sampler=RandomSampler(dataset, generator=generator))
    expected = [[numbers.tolist() for (numbers,) in loader] for _ in range(4)]
    for epoch, batches in enumerate(expected):
        for number, indices in enumerate(batches):
            file = tmp_path / f"epoch_{epoch}" / f"batch_{number}.tar"
            file.parent.mkdir(exist_ok=True)
            torch.save(content(len(indices)), file)
    assert [[one.indices.tolist() for one in batches] for batches in read_all(tmp_path)] == expected
    assert expected[0] != expected[1]


def test_more_than_nine_epochs_and_batches_are_in_order_of_their_numbers(tmp_path):
    for epoch in range(11):
        for batch in range(11):
            file = tmp_path / f"epoch_{epoch}" / f"batch_{batch}.tar"
            file.parent.mkdir(exist_ok=True)
            torch.save(content(1, logits=torch.tensor([[epoch, batch]]).half()), file)
    found = [[one.logits[0].tolist() for one in epoch] for epoch in read_all(tmp_path)]
    assert found == [[[epoch, batch] for batch in range(11)] for epoch in range(11)]


@pytest.mark.parametrize(
    ("mix", "box"), [({"bbox": None}, None), ({"index": None, "lam": None, "bbox": None}, "no mix")]
)
def test_mixup_and_no_mixture(tmp_path, mix, box):
    write(tmp_path, **mix)
    found = read_all(tmp_path)[-1][-1].view.mix
    assert found is None if box == "no mix" else found.box is None and 0 <= found.own <= 1


def test_one_file_is_read_at_a_time(tmp_path):
    write(tmp_path)
    epochs = FkdLabels(tmp_path).batches()
    (tmp_path / "epoch_1" / "batch_1.tar").unlink()
    assert len(list(next(epochs))) == 3
    second = next(epochs)
    next(second)
    with pytest.raises(UnusableInput, match="epoch_1/batch_1.tar"):
        next(second)


def test_the_digest_is_what_a_shell_prints(tmp_path):
    write(tmp_path)
    before = FkdLabels(tmp_path).sha256()
    shell = "sha256sum epoch_*/batch_*.tar | sha256sum"
    printed = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert before == printed.split()[0]
    torch.save(content(1), tmp_path / "epoch_2" / "batch_2.tar")
    assert FkdLabels(tmp_path).sha256() != before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coords": torch.tensor([[0.6, 0.0, 0.6, 0.5]])}, "coords of torch.float32 hold values"),
        ({"coords": torch.tensor([[-0.1, 0.0, 0.6, 0.5]])}, "coords"),
        ({"coords": torch.tensor([[0.0, 0.0, 0.0, 0.5]])}, "coords"),
        ({"coords": torch.tensor([[float("nan"), 0.0, 0.5, 0.5]])}, "coords"),
        ({"coords": torch.rand(1, 3)}, r"expected coords of shape \(1, 4\), got a tensor of shape \(1, 3\)"),
        ({"flip": torch.tensor([2])}, "flip_status"),
        ({"flip": torch.tensor([True, False])}, "flip_status"),
        ({"index": torch.tensor([1])}, "mix_index"),
        ({"index": None}, "mix_index"),
        ({"lam": 1.5}, "mix_lam from 0 to 1, got 1.5"),
        ({"lam": None}, "mix_lam"),
        ({"lam": 10**400}, "mix_lam from 0 to 1, got 1000"),
        ({"bbox": [3, 0, 2, 4]}, "mix_bbox"),
        ({"bbox": [0, 0, 2]}, "mix_bbox of four"),
        ({"bbox": [0.5, 0, 2, 4]}, "mix_bbox of four"),
        ({"logits": torch.full((1, CLASSES), float("inf"))}, "logits"),
        (
            {"logits": torch.randn(1, CLASSES + 1)},
            rf"expected logits of shape \(1, {CLASSES}\), got a tensor of shape \(1, {CLASSES + 1}\)",
        ),
        ({"logits": torch.randn(2, CLASSES)}, "another batch size"),
        ({"logits": "text"}, "got str"),
        ({"more": 1}, "got 7 values"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, words):
    write(tmp_path, **changes)
    with pytest.raises(UnusableInput, match=words) as refused:
        read_all(tmp_path)
    assert "epoch_2/batch_2.tar" in str(refused.value)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("epoch_1", "found no .*epoch_1"),
        ("epoch_2/batch_1.tar", "found no .*epoch_2/batch_1.tar"),
        ("epoch_2/batch_2.tar", "expected 3 batches in each epoch, as in epoch_0, got 2"),
        ("epoch_0/batch_2.tar", "expected 2 batches in each epoch, as in epoch_0, got 3"),
    ],
)
def test_gaps_are_refused_before_anything_is_read(tmp_path, lost, words):
    write(tmp_path)
    (tmp_path / lost).rename(tmp_path / "lost")
    with pytest.raises(UnusableInput, match=words):
        FkdLabels(tmp_path)


def test_a_file_that_is_cut_off_is_found_at_once(tmp_path):
    write(tmp_path)
    file = tmp_path / "epoch_2" / "batch_2.tar"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        UnusableInput, match=r"epoch_2.batch_2.tar cannot be read.*was the relabelling stopped\? Run it"
    ):
        FkdLabels(tmp_path)


def test_another_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnusableInput, match="give the folder that holds epoch_0"):
            FkdLabels(folder)


def test_a_file_with_code_is_refused(tmp_path):
    write(tmp_path)

    class Code:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save(Code(), tmp_path / "epoch_0" / "batch_0.tar", pickle_module=pickle)
    with pytest.raises(UnsafeFile):
        FkdLabels(tmp_path)
