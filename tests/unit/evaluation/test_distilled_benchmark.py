import dataclasses
import errno
import json
import os
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch

from guard_plugin.attacks import PGD, builtin_registry, parse_eps
from guard_plugin.comparison.protocols import differing_settings
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import RECIPES, BenchmarkOptions, benchmark_distilled, train_student
from guard_plugin.evaluation.checkpoint_benchmark import benchmark_checkpoints
from guard_plugin.evaluation.results import versions
from guard_plugin.evaluation.statistics import confidence_interval
from guard_plugin.networks.architectures import build_network
from guard_plugin.spaces import Normalization, UndecidedZca, ZcaWhitening

LEDGER = {
    "adapter": "dc",
    "script": "main.py",
    "outcome": "complete",
    "loss_calls": {"seen": 3, "guarded": 3},
    "penalty": {"name": "curvature", "h": 0.5, "strength": 1.0},
}


@pytest.fixture
def run(distilled, short_recipe, tmp_path):
    def run(out="out", sets=None, **options):
        defaults = {
            "dataset": "digits",
            "arch": "MLP",
            "attacks": "quick",
            "eps": ["16/255"],
            "n_examples": 150,
            "seeds": 2,
            "subject": {"kind": "distilled", "path": "some.pt"},
            "recipe": short_recipe,
        }
        return benchmark_distilled([distilled] if sets is None else sets, out=tmp_path / out, **(defaults | options))

    return run


@pytest.fixture
def accuracy_bytes(tmp_path):
    return lambda out="out": json.dumps(json.loads((tmp_path / out / "results.json").read_text())["accuracy"])


def test_results_have_the_fixed_keys(run, tmp_path):
    finished = run(ledger=LEDGER)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == finished.results
    assert {"schema", "subject", "protocol", "accuracy", "flags", "cost", "ledger", "versions"} <= set(results)
    protocol = results["protocol"]
    assert {"dataset", "n_examples", "data_sha256", "arch", "recipe", "seeds", "preset", "attacks"} <= set(protocol)
    assert (protocol["preset"], protocol["n_examples"], protocol["recipe"]["name"]) == ("quick", 150, "dc")
    assert [(a["name"], a["eps"], a["eps_value"]) for a in protocol["attacks"]] == [
        ("fgsm", "16/255", 16 / 255),
        ("pgd10", "16/255", 16 / 255),
    ]
    assert list(results["accuracy"]) == ["clean", "fgsm", "pgd10", "worst_case"]
    for part in ("seconds", "forwards", "backwards"):
        assert list(results["cost"][part]) == ["clean", "fgsm", "pgd10"]
    assert {"guard_plugin", "torch", "torchvision", "numpy", "python", "device", "threads"} <= set(results["versions"])
    assert results["ledger"] == LEDGER


def test_what_the_hosts_recipe_lacks_is_flagged_unless_the_user_chose_it(run, distilled):
    lacking = dataclasses.replace(distilled, recipe_lacks="the host augments")
    chosen = run(sets=[lacking], out="chosen")
    default = run(sets=[lacking], out="default", recipe=None, recipe_values={"epochs": 2})
    flag = {"column": "clean", "reason": "the host augments, and recipe dc does not"}
    assert flag in default.results["flags"] and flag not in chosen.results["flags"]


def test_numbers_come_from_the_records(run, tmp_path):
    finished = run()
    for column in ("clean", "fgsm", "pgd10"):
        paths = [tmp_path / "out" / "records" / f"student-{k}" / f"{column}.npz" for k in range(2)]
        flags = np.stack([np.load(path)["correct"] for path in paths])
        np.testing.assert_array_equal(flags, finished.correct[column])
        entry = finished.results["accuracy"][column]
        assert entry["per_seed"] == [flags[0].mean(), flags[1].mean()]
        assert entry["mean"] == flags.mean()
        assert entry["std"] == pytest.approx(abs(flags[0].mean() - flags[1].mean()) / 2**0.5)
        estimate = confidence_interval(flags, [0, 0])
        assert (entry["ci95"], entry["limited_by"]) == ([estimate.low, estimate.high], "sets")
        assert entry["per_set"] == pytest.approx([flags.mean()]) and entry["shares"] == estimate.shares
    joined = finished.correct["clean"] & finished.correct["fgsm"] & finished.correct["pgd10"]
    np.testing.assert_array_equal(finished.correct["worst_case"], joined)
    assert 0.3 < finished.results["accuracy"]["clean"]["mean"] < 1


@pytest.fixture
def other(distilled):
    """The same images, in another order."""
    return dataclasses.replace(distilled, images=distilled.images.flip(0), labels=distilled.labels.flip(0))


def test_students_differ_by_seed_and_take_their_sets_in_turn(run, distilled, other, tmp_path):
    results = run("one", sets=[distilled, other], seeds=3).results
    assert results["subject"]["set_of_student"] == [0, 1, 0]
    clean = results["accuracy"]["clean"]
    first, second, third = clean["per_seed"]
    assert clean["per_set"] == pytest.approx([(first + third) / 2, second])
    assert clean["mean"] == pytest.approx(np.mean(clean["per_set"]))
    run("two", sets=[distilled], seeds=3)
    weights = {
        (out, k): torch.load(tmp_path / out / "students" / f"student-{k}.pt")["1.weight"]
        for out in ("one", "two")
        for k in range(3)
    }
    assert [torch.equal(weights["one", k], weights["two", k]) for k in range(3)] == [True, False, True]
    assert not torch.equal(weights["two", 0], weights["two", 2])


@pytest.mark.parametrize(("sets", "students"), [(1, 5), (2, 6), (3, 6), (7, 7)])
def test_by_default_every_set_has_the_same_number_of_students(tmp_path, sets, students):
    options = BenchmarkOptions(dataset="digits", arch="MLP", attacks="quick", out=tmp_path)
    assert options.students(sets) == students


def test_sets_of_several_methods_and_copies_are_refused(run, distilled, other, tmp_path):
    for change, words in (
        ({"dataset": "FashionMNIST"}, "of one method.* dataset digits, FashionMNIST"),
        ({"arch": "ConvNet"}, "of one method.* arch MLP, ConvNet"),
        ({"recipe": "mtt"}, "of one method.* recipe dc, mtt"),
        ({"images": distilled.images[:50], "labels": distilled.labels[:50]}, "of one method.* images_per_class"),
    ):
        told = {"dataset": "digits", "arch": "MLP"}
        pair = [dataclasses.replace(distilled, **told), dataclasses.replace(other, **{**told, **change})]
        with pytest.raises(UnusableInput, match=words):
            run(sets=pair)
    with pytest.raises(UnusableInput, match="all different: a copy is no other seed"):
        run(sets=[distilled, other, dataclasses.replace(distilled)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ({"images": torch.zeros(100, 1, 16, 16)}, r"was distilled; in its size: .*--dataset NAME@16$"),
        ({"images": torch.zeros(100, 3, 8, 8)}, r"was distilled$"),
        ({"num_classes": 12}, r"was distilled; with --num-classes 12, if [^;]*$"),
        ({"num_classes": 9, "labels": torch.zeros(100, dtype=torch.long)}, r"was distilled; with --num-classes 10,"),
    ],
)
def test_images_of_another_size_or_with_more_classes_are_told_how_to_fit(run, distilled, change, way):
    with pytest.raises(UnusableInput, match=way):
        run(sets=[dataclasses.replace(distilled, **change)])


def test_ledgers_of_several_runs_are_kept(run, distilled, other):
    results = run(sets=[distilled, other], ledger=[{**LEDGER, "of": 0}, {**LEDGER, "of": 1}]).results
    assert results["ledger"] == {**LEDGER, "of": 0} and [one["of"] for one in results["ledgers"]] == [0, 1]
    assert run("none", ledger=[]).results["ledger"] is None and "ledgers" not in run("none", ledger=[]).results


def test_scipy_is_asked_for_before_anything_is_measured(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(UnusableInput, match="a confidence interval needs scipy.special"):
        run()
    assert not (tmp_path / "out").exists()


def test_several_eps_have_columns_and_worst_cases_of_their_own(run, tmp_path):
    finished = run(eps=["1/255", "32/255"], attacks="fgsm,pgd3")
    columns = [f"{name}@{eps}/255" for eps in (1, 32) for name in ("fgsm", "pgd3")]
    assert list(finished.correct) == ["clean", *columns, "worst_case@1/255", "worst_case@32/255"]
    for column in columns:
        eps = column.split("@")[1]
        assert not (finished.correct[f"worst_case@{eps}"] & ~finished.correct[column]).any()
    means = {column: entry["mean"] for column, entry in finished.results["accuracy"].items()}
    assert means["worst_case@32/255"] < means["worst_case@1/255"] <= means["clean"]


def test_the_callers_random_stream_is_left_alone(run, tmp_path):
    state = torch.get_rng_state()
    run()
    (tmp_path / "out" / "records" / "student-0" / "fgsm.npz").unlink()
    run()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_finished_run_is_reused_without_computing(run, accuracy_bytes, monkeypatch):
    run()
    before = accuracy_bytes()
    monkeypatch.setattr(PGD, "_perturb", lambda *_: pytest.fail("attacked again"))
    monkeypatch.setattr("guard_plugin.evaluation.distilled_benchmark.train_student", lambda *_, **__: pytest.fail())
    assert accuracy_bytes() == before
    # The batch size is no part of the protocol.
    run(batch_size=13)
    assert accuracy_bytes() == before


@pytest.mark.parametrize("file", ["student-1/clean.npz", "student-0/pgd10.npz"])
def test_a_missing_record_is_measured_again(run, accuracy_bytes, tmp_path, file):
    run()
    before, path = accuracy_bytes(), tmp_path / "out" / "records" / file
    path.unlink()
    run()
    assert accuracy_bytes() == before and path.exists()


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_an_interrupted_run_goes_on_to_the_same_numbers(run, accuracy_bytes, tmp_path, monkeypatch, calls):
    run("whole", batch_size=8)
    perturb, left = PGD._perturb, iter(range(calls))

    def killed(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return perturb(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PGD, "_perturb", killed)
        run(batch_size=8)
    assert not (tmp_path / "out" / "results.json").exists()
    run(batch_size=16)
    assert accuracy_bytes() == accuracy_bytes("whole")
    assert {path.name for path in tmp_path.rglob(".*")} == {".lock"}


def test_records_do_not_outlive_their_student(run, tmp_path):
    run()
    (tmp_path / "out" / "students" / "student-0.pt").unlink()
    record = tmp_path / "out" / "records" / "student-0" / "clean.npz"
    kept = dict(np.load(record))
    flags = kept["correct"]
    np.savez(record, **{**kept, "correct": ~flags})
    run()
    np.testing.assert_array_equal(np.load(record)["correct"], flags)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"eps": ["8/255"]}, "attacks"),
        ({"seeds": 3}, "seeds"),
        ({"n_examples": 100}, "n_examples"),
        ({"arch": "ConvNetW32"}, "arch"),
        ({"recipe": "dc"}, "recipe"),
        ({"split": "val"}, "data_sha256"),
    ],
)
def test_another_protocol_in_the_same_folder_is_refused(run, accuracy_bytes, change, named):
    run()
    before = accuracy_bytes()
    with pytest.raises(UnusableInput, match=rf"differs in .*{named} \(there:.*another --out"):
        run(**change)
    assert accuracy_bytes() == before


def test_a_refusal_names_the_attacks_and_not_all_their_settings(run):
    run()
    with pytest.raises(UnusableInput, match=r"attacks \(there: [^{}]*; now: fgsm at 8/255[^{}]*\): choose"):
        run(eps=["8/255"])


def test_another_number_of_classes_is_another_protocol(run, distilled, digits_test, tmp_path):
    """The students have another head, although images, labels and distilled set are the same."""
    np.savez(tmp_path / "mine.npz", images=digits_test.pixels[:150].numpy(), labels=digits_test.labels[:150].numpy())
    mine = {"dataset": str(tmp_path / "mine.npz"), "n_examples": 150}
    twelve = {"sets": [distilled.with_num_classes(12)], "num_classes": 12}
    ten = run("ten", **mine).results["protocol"]
    with pytest.raises(UnusableInput, match=r"differs in num_classes \(there: 10; now: 12\)"):
        run("ten", **mine, **twelve)
    assert differing_settings(ten, run("twelve", **mine, **twelve).results["protocol"]) == {"num_classes": (10, 12)}


def test_another_distilled_set_in_the_same_folder_is_refused(run, distilled):
    run()
    with pytest.raises(UnusableInput, match="distilled_sha256"):
        run(sets=[dataclasses.replace(distilled, images=distilled.images + 0.1)])


def test_another_attack_of_the_same_name_does_not_go_on(run):
    class Other(PGD):
        family = "pgd"

    run(attacks="pgd10", registry={**builtin_registry(), "pgd": Other})
    with pytest.raises(UnusableInput, match=r"differs in attacks .*Other.*; now: .*attacks\.pgd\.PGD"):
        run(attacks="pgd10")


def test_records_of_another_version_do_not_go_on(run, monkeypatch):
    run()
    told = {**versions(torch.device("cpu")), "torch": "1.0"}
    monkeypatch.setattr("guard_plugin.evaluation.run.versions", lambda device: told)
    with pytest.raises(UnusableInput, match=r"differs in software .*'torch': '1\.0'"):
        run()


@pytest.mark.parametrize("attacks", ["fgsm,needy", "fgsm,composite"])
def test_what_an_attack_lacks_is_found_before_training(run, tmp_path, monkeypatch, attacks):
    class Needy(PGD):
        family = base_name = "needy"

        @classmethod
        def from_spec(cls, suffix, **common):
            return cls(**common)

        def check_available(self):
            raise UnusableInput("its package is not installed")

    class Composite(Needy):
        family = base_name = "composite"
        parts = (Needy(parse_eps("1/255")),)

        def check_available(self):
            pass

    with pytest.raises(UnusableInput, match="not installed"):
        run(attacks=attacks, registry={**builtin_registry(), "needy": Needy, "composite": Composite})
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(PGD, "least_classes", 11)
    with pytest.raises(UnusableInput, match="pgd10 needs 11 classes or more, and there are 10"):
        run()
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_on_the_way_is_explained_and_nothing_is_lost(run, accuracy_bytes, monkeypatch):
    run("whole")
    fsync, left = os.fsync, iter(range(5))

    def full(file):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    with (
        monkeypatch.context() as patch,
        pytest.raises(UnusableInput, match="No space left.*make room, then run"),
    ):
        patch.setattr(os, "fsync", full)
        run()
    run()
    assert accuracy_bytes() == accuracy_bytes("whole")


def test_damaged_files_are_named(run, tmp_path):
    run()
    record = tmp_path / "out" / "records" / "student-0" / "fgsm.npz"
    kept = dict(np.load(record))
    record.write_bytes(b"nonsense")
    with pytest.raises(UnusableInput, match=r"fgsm\.npz.*delete it"):
        run()
    np.save(record.with_suffix(".npy"), np.ones(3))
    record.with_suffix(".npy").rename(record)
    with pytest.raises(UnusableInput, match=r"fgsm\.npz.*delete it"):
        run()
    np.savez(record, **{**kept, "correct": np.ones(3, bool)})
    with pytest.raises(UnusableInput, match="expected 150 outcomes 'correct'"):
        run()
    record.unlink()
    student = tmp_path / "out" / "students" / "student-0.pt"
    torch.save({"weight": torch.zeros(1)}, student)
    with pytest.raises(UnusableInput, match=r"student-0\.pt does not hold"):
        run()
    student.write_bytes(student.read_bytes()[:100])
    with pytest.raises(UnusableInput, match=r"student-0\.pt does not hold.*delete it"):
        run()
    (tmp_path / "out" / "fingerprint.json").write_text("[]")
    with pytest.raises(UnusableInput, match="expected a JSON object"):
        run()
    (tmp_path / "out" / "fingerprint.json").write_text("{")
    with pytest.raises(UnusableInput, match=r"fingerprint\.json cannot be read"):
        run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "ResNet99"}, "expected one of ConvNet"),
        ({"arch": "ConvNetD4"}, "at least 16x16"),
        ({"attacks": "deepfool"}, "expected one of .*fgsm, .*pgd"),
        ({"eps": [], "attacks": "fgsm"}, "expected eps"),
        ({"eps": "1/255,x"}, "expected eps as a number"),
        ({"eps": ["1/255", "1/255"]}, "all different"),
        ({"eps": ["1/255"], "attacks": "fgsm,pgd2@2/510"}, "written alike, got 1/255 and 2/510"),
        ({"n_examples": 501}, "from 1 to 500"),
        ({"seeds": 0}, "seeds >= 1"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"recipe": "mtt9"}, "expected one of dc"),
        ({"sets": []}, "at least one distilled set"),
        ({"dataset": "SVHN"}, "none was given"),
        ({"learning_rate": 0.0}, "finite and > 0"),
        ({"host_dataset": "CIFAR10"}, "expected no --host-dataset, got 'CIFAR10'"),
        ({"teacher_arch": "ResNet18"}, "expected a --teacher for --teacher-arch ResNet18, got none"),
    ],
)
def test_unusable_inputs_are_refused_before_anything_is_written(run, tmp_path, options, message):
    with pytest.raises(UnusableInput, match=message):
        run(**options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dataset", "arch", "attacks", "recipe", "teacher_arch", "host_dataset", "split"])
def test_an_empty_text_is_no_value(run, tmp_path, name):
    with pytest.raises(UnusableInput, match=f"expected a value for {name}, got an empty text"):
        run(**{name: " "})
    assert not (tmp_path / "out").exists()


def test_a_set_of_another_shape_is_refused(run, distilled):
    small = dataclasses.replace(distilled, images=distilled.images[..., :4])
    with pytest.raises(UnusableInput, match=r"expected .* \(1, 8, 8, 10\), got \(1, 8, 4, 10\)"):
        run(sets=[distilled, small])


@pytest.mark.parametrize(
    ("arch", "n", "batch_size", "fix"),
    [
        ("ConvNet-d1-w4-batch", 10, 3, None),
        ("ConvNet-d4-w4-batch-nopool", 10, 3, None),
        ("resnet18-7x7", 10, 3, "--set batch_size=4 "),
        ("resnet18-7x7", 10, 1, "--set batch_size=2 "),
        ("resnet18-7x7", 10, 9, "--set batch_size=10 "),
        ("resnet18-7x7", 1, 256, "leave one of a single image .*: give a network without BatchNorm"),
        ("resnet18-7x7", 10, 4, None),
    ],
)
def test_a_last_batch_of_one_image_is_refused_where_the_network_cannot_take_it(
    digits_test, tmp_path, monkeypatch, arch, n, batch_size, fix
):
    class BeganToTrain(Exception):
        pass

    def trained(*_, **__):
        raise BeganToTrain

    monkeypatch.setattr("guard_plugin.evaluation.distilled_benchmark.train_student", trained)
    data = {"images": digits_test.pixels[:20].expand(-1, 3, -1, -1).numpy(), "labels": digits_test.labels[:20].numpy()}
    np.savez(tmp_path / "rgb.npz", **data)
    few = DistilledSet(torch.rand(n, 3, 8, 8), torch.arange(n), 10, Normalization.identity(3))
    given = {"dataset": str(tmp_path / "rgb.npz"), "arch": arch, "attacks": "fgsm", "eps": ["8/255"], "recipe": "dc"}
    given |= {"out": tmp_path / "out", "subject": {}, "recipe_values": {"batch_size": batch_size}}
    state = torch.get_rng_state()
    with pytest.raises(UnusableInput if fix else BeganToTrain, match=fix):
        benchmark_distilled([few], **given)
    assert torch.equal(torch.get_rng_state(), state) and (tmp_path / "out").exists() == (fix is None)


@pytest.mark.parametrize("rate", [1e3, 1e6])
def test_a_student_that_diverged_is_named_and_not_kept(
    run, distilled, other, short_recipe, tmp_path, monkeypatch, rate
):
    def fit(recipe, student, distilled, epochs):
        """Let the second student alone learn at the given rate."""
        own = recipe if torch.initial_seed() == 1 else short_recipe
        learned(own, student, distilled, epochs)

    learned = type(short_recipe).fit
    monkeypatch.setattr(type(short_recipe), "fit", fit)
    words = (
        f"student 1, .* with seed 1 on distilled set 1 of 2 .* rate of {re.escape(f'{rate:g}')}. Give a lower --lear"
    )
    for _ in range(2):
        with pytest.raises(UnusableInput, match=words):
            run(sets=[distilled, other], seeds=3, learning_rate=rate)
        assert [file.name for file in (tmp_path / "out" / "students").iterdir()] == ["student-0.pt"]


def test_images_that_may_be_pixels_are_flagged_where_students_take_normalised_ones(run, distilled):
    pixels = distilled.normalization.to_pixels(distilled.images).clamp(0, 1)
    as_pixels = dataclasses.replace(distilled, images=pixels)
    flagged = run("flagged", sets=[as_pixels, dataclasses.replace(as_pixels, images=pixels.flip(0))]).results["flags"]
    assert [flag["column"] for flag in flagged if "pixels in [0, 1] that nobody normalised" in flag["reason"]] == [
        "clean"
    ]
    told = dataclasses.replace(as_pixels, normalization=Normalization.identity(1))
    for name, one in (("normalised", distilled), ("told", told)):
        assert not any("nobody normalised" in flag["reason"] for flag in run(name, sets=[one]).results["flags"])


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_unwritable_folder_is_refused_before_training(run, tmp_path, monkeypatch, out):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("guard_plugin.evaluation.distilled_benchmark.train_student", lambda *_, **__: pytest.fail())
    with pytest.raises(UnusableInput, match=r"cannot write to .*another --out"):
        run(out)


@pytest.fixture
def shortened(monkeypatch):
    """Recipes of a few epochs, told apart by their names as ever."""
    short = {name: dataclasses.replace(recipe, epochs=2) for name, recipe in RECIPES.items()}
    monkeypatch.setattr("guard_plugin.students.recipes.RECIPES", short)


@pytest.mark.parametrize(
    ("own", "options", "name", "rate", "source"),
    [
        ({}, {}, "dc", 0.01, "recipe"),
        ({"learning_rate": 0.02}, {}, "dc", 0.01, "recipe"),
        ({"recipe": "mtt"}, {}, "mtt", 0.01, "recipe"),
        ({"recipe": "mtt", "learning_rate": 0.02}, {}, "mtt", 0.02, "distilled set"),
        ({"recipe": "mtt", "learning_rate": 0.02}, {"learning_rate": 0.03}, "mtt", 0.03, "given"),
        ({"recipe": "mtt", "learning_rate": 0.02}, {"recipe": "dc"}, "dc", 0.01, "recipe"),
    ],
)
def test_students_are_trained_as_the_host_trains_them(
    run, distilled, shortened, tmp_path, own, options, name, rate, source
):
    one = dataclasses.replace(distilled, **own)
    recipe = run(sets=[one], **{"recipe": None, "attacks": "fgsm", **options}).results["protocol"]["recipe"]
    assert (recipe["name"], recipe["learning_rate"], recipe["learning_rate_source"]) == (name, rate, source)
    given = dataclasses.replace(RECIPES[name], epochs=2, learning_rate=rate, learning_rate_from_set=False)
    student = train_student(
        one, partial(build_network, "MLP", channels=1, num_classes=10, im_size=(8, 8)), given, seed=0
    )
    kept = torch.load(tmp_path / "out" / "students" / "student-0.pt")
    assert all(torch.equal(kept[key], value) for key, value in student.state_dict().items())


def test_sets_with_learning_rates_of_their_own_are_listed(run, distilled, other, shortened):
    rates = ((distilled, 0.02), (other, None))
    sets = [dataclasses.replace(one, recipe="mtt", learning_rate=rate) for one, rate in rates]
    recipe = run(sets=sets, recipe=None, attacks="fgsm").results["protocol"]["recipe"]
    assert recipe["learning_rate"] == [0.02, 0.01] and recipe["learning_rate_source"] == ["distilled set", "recipe"]
    with pytest.raises(UnusableInput, match="differs in recipe"):
        run(sets=[sets[0], dataclasses.replace(sets[1], learning_rate=0.03)], recipe=None, attacks="fgsm")


def test_the_user_may_say_what_the_host_calls_the_data_set(run, distilled):
    pixels = distilled.normalization.to_pixels(distilled.images)
    untold = dataclasses.replace(distilled, images=pixels, input_spaces={"Numerals": distilled.normalization})
    with pytest.raises(UnusableInput, match="known: Numerals; got 'digits'.*--host-dataset"):
        run(sets=[untold])
    told = run(sets=[untold], host_dataset="Numerals").results
    assert told["subject"]["dataset"] == "Numerals"
    assert told["protocol"]["normalization"] == distilled.normalization.describe()
    assert told["accuracy"]["clean"]["mean"] > 0.5


@pytest.fixture
def whitened(distilled, digits_train):
    """The same images, as a host with --zca would save them."""
    space = ZcaWhitening().fitted(digits_train.pixels)
    pixels = distilled.normalization.to_pixels(distilled.images)
    return dataclasses.replace(distilled, images=space.to_input(pixels), normalization=ZcaWhitening())


def test_whitened_sets_are_measured_through_the_whitening(run, whitened, digits_train, digits_test, tmp_path):
    finished = run(sets=[whitened], seeds=1)
    assert finished.results["protocol"]["normalization"] == {
        "name": "zca",
        "eps": 0.1,
        "fitted_on": {"images": "all for training", "n_examples": 1000, "sha256": digits_train.sha256},
    }
    student = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8)).eval()
    student.load_state_dict(torch.load(tmp_path / "out" / "students" / "student-0.pt"))
    # As the host tests: on test images that were whitened beforehand.
    inputs = ZcaWhitening().fitted(digits_train.pixels).to_input(digits_test.pixels[:150])
    expected = (student(inputs).argmax(1) == digits_test.labels[:150]).numpy()
    np.testing.assert_array_equal(finished.correct["clean"][0], expected)
    assert 0.5 < expected.mean() < 1
    assert finished.correct["pgd10"].mean() < expected.mean()


def test_a_finished_whitened_run_is_reused_without_fitting(run, whitened, accuracy_bytes, monkeypatch):
    run(sets=[whitened])
    before = accuracy_bytes()
    monkeypatch.setattr(ZcaWhitening, "fitted", lambda *_: pytest.fail("fitted again"))
    run(sets=[whitened])
    assert accuracy_bytes() == before


def test_the_whitening_is_part_of_the_protocol(run, whitened, distilled):
    run(sets=[whitened])
    with pytest.raises(UnusableInput, match=r"differs in normalization \(there: .*zca"):
        run(sets=[dataclasses.replace(whitened, normalization=distilled.normalization)])
    with pytest.raises(UnusableInput, match=r"differs in normalization \(there: .*0\.1.*; now: .*0\.2"):
        run(sets=[dataclasses.replace(whitened, normalization=ZcaWhitening(eps=0.2))])


def test_the_user_may_say_whether_a_set_is_whitened(run, whitened, distilled, tmp_path):
    undecided = dataclasses.replace(whitened, normalization=UndecidedZca(distilled.normalization, "nothing tells"))
    with pytest.raises(UnusableInput, match="nothing tells: say whether .*--zca"):
        run(sets=[undecided])
    assert not (tmp_path / "out").exists()
    told = run(sets=[undecided], zca=True)
    assert told.results["accuracy"] == run("other", sets=[whitened]).results["accuracy"]
    assert told.results["protocol"] == json.loads((tmp_path / "other" / "results.json").read_text())["protocol"]
    normal = run("normal", sets=[undecided], zca=False).results["protocol"]["normalization"]
    assert normal == {"name": "per channel", "mean": [0.3], "std": [0.35]}
    with pytest.raises(UnusableInput, match="got --no-zca"):
        run("refused", sets=[whitened], zca=False)


def test_sets_of_several_normalizations_are_refused(run, whitened, distilled):
    with pytest.raises(UnusableInput, match="one normalization"):
        run(sets=[whitened, distilled])


def test_reserved_and_clashing_column_names_are_refused(run):
    class Clean(PGD):
        family = base_name = "clean"

        @classmethod
        def from_spec(cls, suffix, *, eps, seed):
            return cls(eps)

    with pytest.raises(UnusableInput, match="none named clean"):
        run(attacks="clean", registry={**builtin_registry(), "clean": Clean})


def test_options_of_checkpoints_are_refused_for_distilled_sets_and_the_other_way_round(distilled, tmp_path):
    asked = {"dataset": "digits", "arch": "MLP", "attacks": "quick", "out": tmp_path / "out"}
    with pytest.raises(UnusableInput, match="normalization belongs to checkpoints"):
        benchmark_distilled([distilled], subject={}, **asked, normalization="mnist")
    with pytest.raises(UnusableInput, match="seeds, zca belongs to distilled sets"):
        benchmark_checkpoints([tmp_path / "none.pt"], BenchmarkOptions(**asked, seeds=2, zca=True))
    assert not (tmp_path / "out").exists()
