from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.attacks import FGSM, PGD, Attack, AutoAttack, parse_eps
from guard_plugin.datasets import images_from_tensors
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.engine import GRADIENTS, evaluate_model
from guard_plugin.evaluation.records import RecordFolder
from guard_plugin.evaluation.results import worst_case_members, worst_cases

CPU = torch.device("cpu")
EPS = parse_eps("8/255")


def measure(model, images, attacks, **options):
    return evaluate_model(lambda: model, images, attacks, **{"batch_size": 64, "device": CPU, **options})


@dataclass(frozen=True)
class Cascade(Attack):
    """FGSM, then PGD on what is left."""

    family: ClassVar[str] = "cascade"

    @property
    def parts(self):
        return FGSM(self.eps), PGD(self.eps, steps=5)

    def _perturb(self, classifier, pixels, labels, indices):
        raise NotImplementedError


def test_a_model_that_is_wrong_on_all_examples_has_a_record_of_every_column(convnet, digits_test, tmp_path):
    """Nothing is attacked then, and a finished folder holds every outcome all the same."""
    right = convnet(digits_test.pixels[:60]).argmax(1)
    images = images_from_tensors(digits_test.pixels[:60], (right + 1) % 10)
    attacks = {"fgsm": FGSM(EPS), "cascade": Cascade(EPS), "pgd2": PGD(EPS, steps=2)}
    records = RecordFolder(tmp_path, 60)
    measure(convnet, images, attacks, records=records)
    for column in ("clean", *attacks):
        record = records.get(column)
        assert record is not None and record.done.all() and not record.correct.any(), column


@pytest.mark.parametrize(("n", "rounds"), [(11, [11]), (12, [8, 4]), (19, [8, 11])])
def test_a_few_examples_that_a_round_would_leave_over_come_along(convnet, digits_test, n, rounds):
    right = convnet(digits_test.pixels[:n]).argmax(1)
    sizes: list[int] = []

    class Noting(FGSM):
        def _perturb(self, classifier, pixels, labels, indices):
            sizes.append(len(pixels))
            return pixels

    of_eight = SimpleNamespace(examples=8, took=lambda *_: None)
    paces = SimpleNamespace(pass_seconds=None, of=lambda *_: of_eight)
    measure(convnet, images_from_tensors(digits_test.pixels[:n], right), {"noting": Noting(EPS)}, paces=paces)
    assert sizes == rounds


def test_a_composite_is_the_union_of_its_parts(convnet, digits_test):
    alone = measure(convnet, digits_test, {"cascade": Cascade(EPS)})
    parts = measure(convnet, digits_test, {"fgsm": FGSM(EPS), "pgd5": PGD(EPS, steps=5)})
    union = parts["fgsm"].correct & parts["pgd5"].correct
    np.testing.assert_array_equal(alone["cascade"].correct, union)
    assert union.sum() < parts["fgsm"].correct.sum()
    # The second part was spared what fell to the first.
    assert alone["cascade"].cost.forwards < parts["fgsm"].cost.forwards + parts["pgd5"].cost.forwards


def test_a_part_with_a_column_of_its_own_is_not_run_again(convnet, digits_test, monkeypatch):
    alone = measure(convnet, digits_test, {"cascade": Cascade(EPS)})["cascade"]
    attacked, perturb = [], PGD._perturb
    with monkeypatch.context() as patch:
        patch.setattr(PGD, "_perturb", lambda *given: attacked.extend(given[-1].tolist()) or perturb(*given))
        shared = measure(convnet, digits_test, {"cascade": Cascade(EPS), "pgd5": PGD(EPS, steps=5)})
    assert len(attacked) == len(set(attacked)) > 0
    assert set(shared) == {"clean", "cascade", "cascade+fgsm", "cascade+pgd5", "pgd5", GRADIENTS}
    np.testing.assert_array_equal(shared["cascade"].correct, alone.correct)
    fgsm = measure(convnet, digits_test, {"fgsm": FGSM(EPS)})["fgsm"]
    assert shared["cascade"].cost.forwards == fgsm.cost.forwards
    other = measure(convnet, digits_test, {"cascade": Cascade(EPS), "pgd5": PGD(EPS, seed=1, steps=5)})
    assert other["cascade"].cost.forwards > fgsm.cost.forwards


def test_a_composite_goes_on_from_its_parts(convnet, digits_test, tmp_path, monkeypatch):
    folder = RecordFolder(tmp_path, 500)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PGD, "_perturb", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        measure(convnet, digits_test, {"cascade": Cascade(EPS)}, records=folder)
    monkeypatch.setattr(FGSM, "_perturb", lambda *_: pytest.fail("run again"))
    resumed = measure(convnet, digits_test, {"cascade": Cascade(EPS)}, records=folder)["cascade"]
    monkeypatch.undo()
    whole = measure(convnet, digits_test, {"cascade": Cascade(EPS)})["cascade"]
    np.testing.assert_array_equal(resumed.correct, whole.correct)
    assert resumed.cost.forwards == whole.cost.forwards
    monkeypatch.setattr(PGD, "_perturb", lambda *_: pytest.fail("run again"))
    again = measure(convnet, digits_test, {"cascade": Cascade(EPS)}, records=folder)["cascade"]
    np.testing.assert_array_equal(again.correct, whole.correct)


@dataclass(frozen=True)
class Coupled(Attack):
    """Moves every image by the mean of its batch, too far; keeps what it was given."""

    family: ClassVar[str] = "coupled"
    coupled: ClassVar[int | None] = 8
    seen: ClassVar[list[list[int]]] = []

    def _perturb(self, classifier, pixels, labels, indices):
        self.seen.append(indices.tolist())
        return (pixels + 2 * self.eps.value).clamp(0, 1)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_coupled_attack_sees_all_examples_in_fixed_batches(mlp, digits_test, batch_size):
    Coupled.seen.clear()
    record = measure(mlp, digits_test, {"coupled": Coupled(EPS)}, batch_size=batch_size)["coupled"]
    assert Coupled.seen == [list(range(i, min(i + 8, 500))) for i in range(0, 500, 8)]
    moved = (digits_test.pixels + 2 * EPS.value).clamp(0, 1)
    np.testing.assert_array_equal(record.correct, (mlp(moved).argmax(1) == digits_test.labels).numpy())
    assert record.farthest == pytest.approx(2 * EPS.value)


def test_transferred_examples_are_made_on_the_source(mlp, convnet, digits_test):
    attack = PGD(EPS, steps=5, transfer=True)
    record = measure(mlp, digits_test, {"t": attack}, source=convnet)["t"]
    pixels, labels = digits_test.pixels, digits_test.labels
    made = attack(convnet, pixels, labels, indices=torch.arange(500))
    expected = (mlp(pixels).argmax(1) == labels) & (mlp(made).argmax(1) == labels)
    np.testing.assert_array_equal(record.correct, expected.numpy())
    own = measure(mlp, digits_test, {"own": PGD(EPS, steps=5)})["own"]
    assert record.correct.sum() > own.correct.sum()
    with pytest.raises(UnusableInput, match="pgd5-transfer needs: give --source"):
        measure(mlp, digits_test, {"t": attack})


def test_a_targeted_attack_tells_where_the_target_was_reached(mlp, digits_test):
    record = measure(mlp, digits_test, {"t": PGD(parse_eps("64/255"), steps=20, targeted=True)})["t"]
    assert record.reached.sum() > 50
    assert not (record.reached & record.correct).any()


class Saturated(nn.Module):
    """Right on every image that is brighter than a threshold, by logits whose softmax is 1 in float32."""

    def forward(self, pixels):
        score = 1e4 * (pixels.flatten(1).mean(1) - 0.3)
        return torch.stack([-score, score], 1)


def test_examples_without_a_gradient_are_found():
    pixels = torch.linspace(0.25, 0.35, 20).view(20, 1, 1, 1).expand(20, 1, 4, 4).contiguous()
    images = images_from_tensors(pixels, torch.ones(20, dtype=torch.int64))
    records = measure(Saturated().eval(), images, {"fgsm": FGSM(EPS)})
    flat = records["clean"].correct & ~records[GRADIENTS].correct
    brightness = torch.linspace(0.25, 0.35, 20)
    expected = 2e4 * (brightness - 0.3) > 104  # exp(-104) is 0 in float32, subnormal numbers included
    np.testing.assert_array_equal(flat, expected.numpy())
    assert 0 < flat.sum() < 20
    assert GRADIENTS not in measure(Saturated().eval(), images, {"b": Blind(EPS)})


@dataclass(frozen=True)
class Blind(Attack):
    """Makes every image darker."""

    family: ClassVar[str] = "blind"
    whitebox: ClassVar[bool] = False

    def _perturb(self, classifier, pixels, labels, indices):
        return (pixels - self.eps.value).clamp(0, 1)


class Rank(Group):
    """One of two processes whose shares are put together by hand."""

    def __init__(self, rank, shares):
        super().__init__(rank, 2)
        self.shares = shares

    def gather(self, value):
        self.shares.append(value)
        return [value]


@pytest.mark.parametrize("attack", [PGD(EPS, steps=3), Coupled(EPS)])
def test_two_processes_share_every_example_once(mlp, digits_test, attack):
    whole = measure(mlp, digits_test, {"a": attack})
    shares = [[], []]
    for rank in (0, 1):
        # Each needs the whole clean record, which the other has a part of.
        folder = _with_clean(whole["clean"])
        measure(mlp, digits_test, {"a": attack}, batch_size=16, records=folder, group=Rank(rank, shares[rank]))
    assert len(shares[0]) == len(shares[1]) > 2  # as many rounds, or they would wait for each other for ever
    parts = [part for share in shares for round_ in share for part in round_]
    examples = np.concatenate([examples for examples, record in parts if record.farthest])
    candidates = np.arange(500) if attack.coupled else np.flatnonzero(whole["clean"].correct)
    np.testing.assert_array_equal(np.sort(examples), candidates)
    for examples, record in parts:
        if record.farthest:
            np.testing.assert_array_equal(record.correct, whole["a"].correct[examples])


class _with_clean:
    def __init__(self, clean):
        self.clean = clean

    def get(self, column):
        return self.clean if column == "clean" else None

    def put(self, column, record):
        pass


@pytest.mark.parametrize("batch_size", [16, 128])
def test_slow_attacks_are_recorded_about_once_a_minute(mlp, digits_test, tmp_path, monkeypatch, batch_size):
    """On a clock that a pass moves by 2 ms per example, and an attack by 3 s; where rounds end changes no outcome."""
    now, written, perturb, put = [0.0], [], PGD._perturb, RecordFolder.put
    whole = measure(mlp, digits_test, {"pgd2": PGD(EPS, steps=2)})["pgd2"]

    def slow(self, classifier, pixels, labels, indices):
        now[0] += 3 * len(pixels)
        return perturb(self, classifier, pixels, labels, indices)

    class Timed(nn.Module):
        def forward(self, pixels):
            now[0] += 0.002 * len(pixels)
            return mlp(pixels)

    monkeypatch.setattr("guard_plugin.evaluation.worker.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(RecordFolder, "put", lambda *given: written.append(now[0]) or put(*given))
    monkeypatch.setattr(PGD, "_perturb", slow)
    folder = RecordFolder(tmp_path, 500)
    slowly = measure(Timed().eval(), digits_test, {"pgd2": PGD(EPS, steps=2)}, records=folder, batch_size=batch_size)
    np.testing.assert_array_equal(slowly["pgd2"].correct, whole.correct)
    assert now[0] > 1000 and np.diff(written).max() < 60


def test_too_few_classes_are_found_before_anything_is_attacked(monkeypatch):
    images = images_from_tensors(torch.full((4, 1, 4, 4), 0.9), torch.ones(4, dtype=torch.int64))
    monkeypatch.setattr(FGSM, "_perturb", lambda *_: pytest.fail("attacked"))
    with pytest.raises(UnusableInput, match="autoattack needs 4 classes or more, and there are 2"):
        measure(Saturated().eval(), images, {"fgsm": FGSM(EPS), "autoattack": AutoAttack(EPS)})


def test_attacks_that_are_not_held_to_their_ball_are_no_part_of_the_worst_case():
    held, loose = PGD(EPS), Coupled(EPS)
    right = np.ones((1, 4), dtype=np.bool_)
    correct = {"clean": right, "pgd": right, "coupled": ~right}
    both = {"pgd": held, "coupled": loose}
    assert worst_case_members(both) == {"worst_case": ["pgd"]}
    np.testing.assert_array_equal(worst_cases(correct, both)["worst_case"], right)
    assert worst_case_members({"coupled": loose}) == {"worst_case": ["coupled"]}
