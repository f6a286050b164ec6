import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from guard_plugin.cli import cli
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.evaluation import load_images, train_student
from guard_plugin.files import file_sha256
from guard_plugin.networks.architectures import build_network
from guard_plugin.students.recipes import recipe_named
from tests.kill_benchmark import kill_loop

SHARED = ("--dataset", "digits", "--arch", "MLP", "--n-examples", "100")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Ten real digits per class, in the place of distilled ones."""
    digits = load_images("digits", split="train")
    chosen = torch.cat([torch.nonzero(digits.labels == k)[:10, 0] for k in range(10)])
    file = tmp_path_factory.mktemp("plain") / "plain.npz"
    np.savez(file, images=digits.pixels[chosen].numpy(), labels=digits.labels[chosen].numpy())
    return file


def benchmark(*arguments: object) -> None:
    """The command in this process, which spares the imports of a new one."""
    cli.main(["benchmark", *map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def seeds(plain) -> list[Path]:
    """Other real digits of each class, as if distilled with other seeds; of the last file, all labels are wrong."""
    digits, files = load_images("digits", split="train"), []
    for k in range(3):
        chosen = torch.cat([torch.nonzero(digits.labels == c)[10 * k : 10 * k + 10, 0] for c in range(10)])
        files.append(plain.with_name(f"seed-{k}.npz"))
        labels = digits.labels[chosen] if k < 2 else (digits.labels[chosen] + 1) % 10
        np.savez(files[-1], images=digits.pixels[chosen].numpy(), labels=labels.numpy())
    return files


def accuracy(folder: Path) -> str:
    return json.dumps(json.loads((folder / "results.json").read_text())["accuracy"])


def torchrun(processes: int, *arguments: object, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", _port()]
    command = [*launcher, "-m", "guard_plugin", "benchmark", *arguments]
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)


def _port() -> int:
    return random.SystemRandom().randint(20000, 60000)


def test_one_process_and_two_and_any_batch_size_give_the_same_bytes(guard, plain, tmp_path, environment):
    students = ("--distilled", plain, "--adapter", "plain", "--seeds", 2, "--attacks", "fgsm,pgd10-l2,square100")
    asked = (*students, *SHARED, "--eps", "32/255")
    one = guard("benchmark", "--out", tmp_path / "one", *asked)
    assert one.returncode == 0, one.stderr
    two = torchrun(2, "--out", tmp_path / "two", *asked, "--batch-size", 7, environment=environment)
    assert two.returncode == 0, two.stderr
    assert accuracy(tmp_path / "one") == accuracy(tmp_path / "two")
    assert two.stdout.count("worst case") == 2 and two.stdout.replace("two/", "one/") == one.stdout
    for k in (0, 1):
        students = [torch.load(tmp_path / out / "students" / f"student-{k}.pt") for out in ("one", "two")]
        assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_several_distilled_sets_are_the_sample(seeds, tmp_path, capsys):
    sets = [word for file in seeds[:2] for word in ("--distilled", file)]
    asked = (*SHARED, "--adapter", "plain", "--seeds", 4, "--attacks", "fgsm", "--eps", "32/255")
    benchmark("--out", tmp_path / "two", *sets, *asked)
    table, told = capsys.readouterr().out.split("\n\n")[:2]
    assert table.splitlines()[0].endswith("limited by")
    assert told.startswith("2 distilled sets, 4 students, 100 examples: the intervals are for other distilled sets")
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    subject, clean = results["subject"], results["accuracy"]["clean"]
    assert subject["paths"] == list(map(str, seeds[:2])) and subject["experiments"] == 2
    assert subject["set_of_student"] == [0, 1, 0, 1]
    first, second, third, fourth = clean["per_seed"]
    assert clean["per_set"] == pytest.approx([(first + third) / 2, (second + fourth) / 2])
    benchmark("--out", tmp_path / "one", "--distilled", seeds[0], *asked)
    assert (
        "1 distilled set, 4 students, 100 examples: the intervals hold for this distilled set alone"
        in capsys.readouterr().out
    )
    cli.main(["compare", str(tmp_path / "two"), str(tmp_path / "one")], standalone_mode=False)
    assert "No verdict on one against two: of one there is one distilled set only" in capsys.readouterr().out


def test_values_of_the_recipe_are_set_and_recorded(seeds, tmp_path, capsys):
    asked = ("--out", tmp_path, "--distilled", seeds[0], "--adapter", "plain", "--seeds", 1, *SHARED, "--recipe", "mtt")
    with pytest.raises(
        UnusableInput, match="recipe mtt has no value 'batch': the values of recipe mtt are epochs=1001"
    ):
        benchmark(*asked, "--set", "batch=10")
    with pytest.raises(UnusableInput, match="epochs has an option of its own, --epochs"):
        benchmark(*asked, "--set", "epochs=10")
    benchmark(
        *asked,
        "--epochs",
        3,
        "--set",
        "augmentation=flip",
        "--set",
        "batch_size=256",
        "--attacks",
        "fgsm",
        "--eps",
        "1/255",
    )
    recipe = json.loads((tmp_path / "results.json").read_text())["protocol"]["recipe"]
    assert (recipe["epochs"], recipe["augmentation"]) == (3, "flip")
    assert recipe["set"] == {"epochs": 3, "augmentation": "flip"}  # 256 is the recipe's own


def test_compare_reads_what_benchmark_finished_with_its_default_attacks(seeds, tmp_path, capsys):
    """One student is wrong on all of its examples; the attacks and their eps are the command's."""
    for out, file in (("right", seeds[0]), ("wrong", seeds[2])):
        asked = ("--distilled", file, "--adapter", "plain", *SHARED[:-2], "--n-examples", 10, "--seeds", 1)
        benchmark("--out", tmp_path / out, *asked)
    results = json.loads((tmp_path / "wrong" / "results.json").read_text())
    assert results["accuracy"]["clean"]["mean"] == 0 and results["protocol"]["preset"] == "quick"
    assert [(attack["name"], attack["eps"]) for attack in results["protocol"]["attacks"]] == [
        ("fgsm", "1/255"),
        ("pgd10", "1/255"),
    ]
    capsys.readouterr()
    cli.main(["compare", str(tmp_path / "right"), str(tmp_path / "wrong"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["columns"]["pgd10"]["accuracy"]["wrong"]["mean"] == 0


def test_a_benchmark_survives_being_killed(tmp_path, capsys):
    assert kill_loop(tmp_path, 2, random.Random(1)) == 0
    assert "ended with the same bytes" in capsys.readouterr().out


@pytest.fixture(scope="module")
def checkpoint(plain, tmp_path_factory) -> Path:
    from guard_plugin.distilled.plain import read_plain

    (distilled,) = read_plain(plain)
    student = train_student(distilled, _mlp, recipe_named("dc"), seed=7)
    file = tmp_path_factory.mktemp("checkpoint") / "mlp.pt"
    torch.save({"state_dict": student.state_dict(), "epoch": 3}, file)
    return file


def _mlp():
    return build_network("MLP", channels=1, num_classes=10, im_size=(8, 8))


def test_a_checkpoint_is_measured_as_it_is(guard, checkpoint, tmp_path):
    out = tmp_path / "out"
    asked = ("--checkpoint", checkpoint, "--normalization", "none", *SHARED, "--attacks", "pgd10", "--eps", "32/255")
    done = guard("benchmark", "--out", out, *asked, "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert json.loads(done.stdout) == results
    described = {"kind": "checkpoint", "path": str(checkpoint), "sha256": file_sha256(checkpoint)}
    assert described.items() <= results["subject"].items()
    assert results["protocol"]["recipe"] is None and results["protocol"]["seeds"] == 1
    network = _mlp()
    network.load_state_dict(torch.load(checkpoint)["state_dict"])
    digits = load_images("digits", n_examples=100)
    right = (network.eval()(digits.pixels).argmax(1) == digits.labels).double().mean().item()
    assert results["accuracy"]["clean"]["mean"] == right > 0.6
    assert results["accuracy"]["pgd10"]["mean"] < right
    with pytest.raises(UnusableInput, match="all different"):
        shutil.copy(checkpoint, tmp_path / "copy.pt")
        benchmark("--out", tmp_path / "o", "--checkpoint", tmp_path / "copy.pt", *asked)
    with pytest.raises(UnusableInput, match="differs in normalization"):
        benchmark("--out", out, "--checkpoint", checkpoint, "--normalization", "digits", *asked[4:])


def test_names_are_read_as_users_write_them_and_classes_may_be_missing(checkpoint, tmp_path, capsys):
    digits = load_images("digits", n_examples=60)
    few = digits.labels < 8
    np.savez(tmp_path / "few.npz", images=digits.pixels[few].numpy(), labels=digits.labels[few].numpy())
    asked = ["--checkpoint", checkpoint, "--normalization", "none", "--dataset", tmp_path / "few.npz"]
    asked += ["--arch", "mlp", "--attacks", "FGSM,PGD-2", "--eps", "8/255", "--out", tmp_path / "out"]
    with pytest.raises(UnusableInput, match="it fits MLP for 10 classes: another data set, or --num-classes 10"):
        benchmark(*asked)
    capsys.readouterr()
    benchmark(*asked, "--num-classes", 10)
    assert capsys.readouterr().err.startswith(
        "guard: computes on " + ("cuda" if torch.cuda.is_available() else "cpu\n")
    )
    protocol = json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]
    assert protocol["arch"] == "MLP" and [attack["name"] for attack in protocol["attacks"]] == ["fgsm", "pgd2"]
    with pytest.raises(UnusableInput, match="digits has 10 classes, got --num-classes 11"):
        benchmark(*asked[:4], *SHARED, "--num-classes", 11, *asked[8:])


def test_a_distilled_set_may_miss_the_highest_classes_and_its_host_names_its_network(tmp_path):
    digits = load_images("digits", split="train", n_examples=40)
    few = digits.labels < 8
    images, labels = digits.pixels[few], digits.labels[few]
    np.savez(tmp_path / "few.npz", images=images.numpy(), labels=labels.numpy())
    asked = ["--out", tmp_path / "out", "--dataset", "Digits", "--n-examples", 20, "--attacks", "fgsm", "--eps", 0.1]
    plain = ["--distilled", tmp_path / "few.npz", "--adapter", "plain", "--seeds", 1, "--arch", "mlp"]
    with pytest.raises(UnusableInput, match="does not fit digits"):
        benchmark(*plain, *asked)
    benchmark(*plain, *asked, "--num-classes", 10)
    torch.save({"data": [[torch.zeros(10, 1, 28, 28), torch.arange(10)]]}, tmp_path / "res_DC_MNIST_ResNet18_1ipc.pt")
    np.savez(tmp_path / "mnist.npz", images=np.zeros((10, 28, 28), np.uint8), labels=np.arange(10))
    host = [
        "--distilled",
        tmp_path / "res_DC_MNIST_ResNet18_1ipc.pt",
        "--adapter",
        "dc",
        "--attacks",
        "fgsm",
        "--eps",
        1,
    ]
    for arch in ([], ["--arch", "ResNet18"]):
        with pytest.raises(UnusableInput, match="unknown architecture 'ResNet18'"):
            benchmark(*host, *arch, "--dataset", tmp_path / "mnist.npz", "--out", tmp_path / "host")


def test_attacks_are_transferred_from_a_source(plain, checkpoint, tmp_path):
    source = ("--source", checkpoint, "--source-arch", "MLP", "--source-normalization", "none")
    asked = ("--distilled", plain, "--adapter", "plain", "--seeds", 1, *SHARED, "--eps", "32/255")
    benchmark("--out", tmp_path / "out", *asked, "--attacks", "pgd10,pgd10-transfer", *source)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["protocol"]["source"]["sha256"] == file_sha256(checkpoint)
    means = {column: entry["mean"] for column, entry in results["accuracy"].items()}
    assert means["pgd10"] < means["pgd10-transfer"] < means["clean"]
    with pytest.raises(UnusableInput, match="expected --source, the checkpoint that .* must be made on"):
        benchmark("--out", tmp_path / "o", *asked, "--attacks", "pgd10-transfer")
    with pytest.raises(UnusableInput, match="no attack is transferred"):
        benchmark("--out", tmp_path / "o", *asked, "--attacks", "pgd10", *source)


class _Hostile:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_hostile_checkpoint_executes_nothing(tmp_path):
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(_Hostile(), protocol=2))
    for option in ("--checkpoint", "--distilled"):
        adapter = ("--adapter", "plain") if option == "--distilled" else ()
        asked = (option, tmp_path / "hostile.pt", *adapter, *SHARED, "--eps", "1/255")
        with pytest.raises(UnsafeFile, match="refused"):
            benchmark("--out", tmp_path / "out", *asked)
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


def test_a_second_process_in_the_same_folder_is_refused(plain, tmp_path, environment):
    asked = ["--out", tmp_path / "out", "--distilled", plain, "--adapter", "plain", *SHARED]
    asked += ["--eps", "32/255", "--seeds", 50]
    first = subprocess.Popen([sys.executable, "-m", "guard_plugin", "benchmark", *map(str, asked)], env=environment)
    try:
        while not (tmp_path / "out" / "fingerprint.json").exists():
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(UnusableInput, match="another process is working in"):
            benchmark(*asked)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    with pytest.raises(UnusableInput, match="differs in seeds"):  # the claim ended with the process
        benchmark(*asked[:-1], 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_disk_that_is_full_in_the_middle_loses_nothing(plain, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    asked = ("--distilled", plain, "--adapter", "plain", *SHARED, "--eps", "1/255", "--seeds", 2)
    try:
        with pytest.raises(UnusableInput, match="No space left.*make room, then run"):
            benchmark("--out", small / "out", *asked)
        kept = {file: file.read_bytes() for file in (small / "out").rglob("*.pt")}
        assert [file.name for file in kept] == ["student-0.pt"]
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        benchmark("--out", small / "out", *asked)
        assert all(file.read_bytes() == before for file, before in kept.items())
        benchmark("--out", tmp_path / "whole", *asked)
        assert accuracy(small / "out") == accuracy(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_ledger_that_is_no_json_is_refused_at_the_start(checkpoint, tmp_path):
    (tmp_path / "ledger.json").write_text('{"penalty_value": {"mean": NaN}}')
    with pytest.raises(UnusableInput, match="not JSON compliant"):
        benchmark(
            "--out",
            tmp_path / "o",
            "--checkpoint",
            checkpoint,
            *SHARED,
            "--eps",
            "1/255",
            "--ledger",
            tmp_path / "ledger.json",
        )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "got .*ledger.json$"),
        ({"ledger": {"adapter": "dc"}, "sha256": ""}, "got .*: a marker, which is found beside what"),
    ],
)
def test_what_is_no_ledger_is_refused_at_the_start(checkpoint, tmp_path, content, message):
    file = tmp_path / "ledger.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UnusableInput, match=f"expected --ledger with what guard run --ledger wrote, {message}"):
        benchmark("--out", tmp_path / "o", "--checkpoint", checkpoint, *SHARED, "--eps", "1/255", "--ledger", file)
    assert not (tmp_path / "o").exists()


LEDGER = {
    "adapter": "dc",
    "script": "main.py",
    "outcome": "complete",
    "summary": "dc main.py: 5 of 5 guarded",
    "loss_calls": {"seen": 5, "guarded": 5, "expected": 5},
    "penalty": {"name": "curvature", "form": "gradient", "h": 0.43, "strength": 100.0},
    "faults": [],
    "taken_over": None,
}
BASELINE = {**LEDGER, "penalty": {**LEDGER["penalty"], "strength": 0.0}, "summary": "a baseline"}


def mark(file: Path, ledger=LEDGER) -> Path:
    """Leave a marker beside a file, as guard run does."""
    marker = file.with_name(f"{file.name}.guard.json")
    marker.write_text(json.dumps({"ledger": ledger, "sha256": file_sha256(file)}))
    return marker


def given(folder: Path, ledger) -> "tuple[str, Path]":
    """Write a ledger, and return the option that names it."""
    file = folder / "ledger.json"
    file.write_text(json.dumps(ledger))
    return "--ledger", file


@pytest.fixture
def asked(plain, tmp_path) -> "tuple[object, ...]":
    """A small benchmark of a file of its own, beside which a marker may lie."""
    file = shutil.copy(plain, tmp_path / "d.npz")
    students = ("--distilled", file, "--adapter", "plain", "--seeds", 1, "--epochs", 1)
    data = ("--dataset", "digits", "--arch", "MLP", "--n-examples", 20)
    return ("--out", tmp_path / "out", *students, *data, "--attacks", "fgsm", "--eps", "1/255")


def results_of(folder: Path):
    return json.loads((folder / "out" / "results.json").read_text())


def test_a_finished_folder_keeps_its_ledger_and_takes_no_other(asked, tmp_path):
    benchmark(*asked)
    benchmark(*asked, *given(tmp_path, LEDGER))  # it had none
    assert results_of(tmp_path)["ledger"] == LEDGER
    benchmark(*asked)
    assert results_of(tmp_path)["ledger"] == LEDGER
    other = {**LEDGER, "summary": "another run"}
    with pytest.raises(UnusableInput, match=r"out was measured with \(dc main.py: 5 of 5 .* another \(another run\)"):
        benchmark(*asked, *given(tmp_path, other))
    assert results_of(tmp_path)["ledger"] == LEDGER


def test_a_finished_folder_keeps_its_marker_and_takes_no_other(asked, tmp_path):
    file = tmp_path / "d.npz"
    benchmark(*asked)
    marker = mark(file)  # it had none
    benchmark(*asked)
    recorded = results_of(tmp_path)["subject"]["made_under"]
    assert recorded[str(file)]["penalty"] == "curvature"
    marker.unlink()
    benchmark(*asked)
    assert results_of(tmp_path)["subject"]["made_under"] == recorded
    mark(file, BASELINE)
    with pytest.raises(UnusableInput, match="strength 100.*found another .made under strength 0, a baseline"):
        benchmark(*asked)
    assert results_of(tmp_path)["subject"]["made_under"] == recorded


def test_the_ledger_given_tells_of_the_penalty_where_there_is_no_marker(asked, tmp_path, capsys):
    auto = {**LEDGER, "adapter": "auto"}
    benchmark(*asked, *given(tmp_path, auto))
    told = "curvature (form gradient, h 0.43, strength 100); auto main.py: 5 of 5 losses guarded"
    assert f"{tmp_path / 'd.npz'}: by the ledger given: {told}; no marker beside it" in capsys.readouterr().out
    mark(tmp_path / "d.npz")
    benchmark(*asked)
    assert "d.npz: made under curvature" in capsys.readouterr().out


def test_a_ledger_that_guarded_nothing_tells_of_no_penalty(asked, tmp_path, capsys):
    benchmark(*asked, *given(tmp_path, UNGUARDED))
    assert "not known to be made under GUARD: there is no d.npz.guard.json" in capsys.readouterr().out


UNGUARDED = {**LEDGER, "loss_calls": {"seen": 9, "guarded": 0}, "unguarded": "images are made", "taken_over": {}}


@pytest.mark.parametrize(
    ("marked", "ledger", "message"),
    [
        (
            BASELINE,
            LEDGER,
            "under strength 0, a baseline, got that of the run dc main.py, under curvature .*strength 100",
        ),
        (LEDGER, BASELINE, r"strength 100\), got that of the run dc main.py, under strength 0, a baseline"),
        (None, {**LEDGER, "outcome": "running"}, "ledger.json of the run dc main.py, which did not end, or goes on"),
        (None, {**LEDGER, "outcome": "incomplete"}, "ledger.json of the run dc main.py, which ended as 'incomplete'"),
    ],
)
def test_a_ledger_that_proves_something_else_or_nothing_is_refused_at_the_start(
    asked, tmp_path, marked, ledger, message
):
    if marked:
        mark(tmp_path / "d.npz", marked)
    with pytest.raises(UnusableInput, match=message):
        benchmark(*asked, *given(tmp_path, ledger))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "ledger", [LEDGER, {**LEDGER, "adapter": "auto"}, {**UNGUARDED, "penalty": BASELINE["penalty"]}]
)
def test_the_ledger_of_any_step_of_a_chain_goes_with_its_marker(asked, tmp_path, ledger):
    """The last step guarded nothing, and goes back to a guarded one."""
    source = {"penalty": "curvature", "reason": "", "settings": LEDGER["penalty"], "runs": []}
    mark(tmp_path / "d.npz", {**UNGUARDED, "taken_over": {"buffer.pt": source}})
    benchmark(*asked, *given(tmp_path, ledger))
    results = results_of(tmp_path)
    assert results["ledger"] == ledger
    assert results["subject"]["made_under"][str(tmp_path / "d.npz")]["settings"] == LEDGER["penalty"]


def test_a_ledger_must_go_with_the_marker_that_the_folder_recorded(asked, tmp_path):
    marker = mark(tmp_path / "d.npz")
    benchmark(*asked)
    marker.unlink()
    with pytest.raises(UnusableInput, match="under strength 0, a baseline"):
        benchmark(*asked, *given(tmp_path, BASELINE))
    assert results_of(tmp_path)["ledger"] is None


@pytest.mark.parametrize("content", ["{", "{}", '{"ledger": 1, "subject": {}}'])
def test_a_results_file_that_cannot_be_read_is_not_written_over(asked, tmp_path, content):
    benchmark(*asked)
    (tmp_path / "out" / "results.json").write_text(content)
    with pytest.raises(UnusableInput, match=r"results.json.*: delete it, and run again"):
        benchmark(*asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "either --distilled PATH with --adapter NAME, or --checkpoint FILE"),
        (("--distilled", "x", "--checkpoint", "{checkpoint}"), "either --distilled"),
        (("--distilled", "x"), "expected --adapter"),
        (("--checkpoint", "{checkpoint}", "--seeds", "3"), "--seeds belongs to --distilled"),
        (("--checkpoint", "{checkpoint}", "--epochs", "3"), "--epochs or --set belongs to --distilled"),
        (("--distilled", "x", "--adapter", "plain", "--normalization", "none"), "belongs to --checkpoint"),
        (("--checkpoint", "{checkpoint}", "--source-arch", "MLP"), "expected --source"),
        (("--checkpoint", "{checkpoint}", "--dataset", "digits"), "expected --arch"),
        (
            ("--distilled", "x", "--distilled", "x", "--adapter", "plain"),
            "--distilled that are all different, got x, x",
        ),
        (
            ("--distilled", "x", "--distilled", "y", "--adapter", "plain", "--ledger", "{checkpoint}.json"),
            "a --ledger for each of 2 --distilled, or none, got 1",
        ),
    ],
)
def test_contradictory_options_are_refused(checkpoint, tmp_path, options, message):
    ledger = {"adapter": "dc", "script": "main.py", "loss_calls": {"guarded": 1}, "penalty": {"name": "curvature"}}
    checkpoint.with_name(f"{checkpoint.name}.json").write_text(json.dumps({**ledger, "outcome": "complete"}))
    options = [option.replace("{checkpoint}", str(checkpoint)) for option in options]
    with pytest.raises(UnusableInput, match=message):
        benchmark("--out", tmp_path / "out", "--eps", "1/255", *options)
    assert not (tmp_path / "out").exists()
