"""From our baselines' recovered images and soft labels to a benchmark, on the command line."""

import json
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
from guard_adapters.recovered_files import read_recovered

from guard_plugin.cli import main
from guard_plugin.distilled import FkdLabels
from guard_plugin.files import read_state_dict
from guard_plugin.networks import build_network
from guard_plugin.students import EightBitImages
from tests.conftest import BASELINES
from tests.fork_server import process_environment

ARCH = "ConvNetBN16-32"


@pytest.fixture(scope="module")
def written(tmp_path_factory, fork_server):
    """The folder in which squeeze, recover and relabel ran."""
    folder = tmp_path_factory.mktemp("written")
    for script, arguments in (
        ("squeeze", f"--dataset digits --model {ARCH} --epochs 4 --batch-size 32 --output-dir ."),
        ("recover", "--arch-path checkpoint.pth --iteration 60 --ipc-end 3 --syn-data-path . --exp-name set"),
        ("relabel", "--teacher checkpoint.pth --data set --fkd-path fkd --epochs 40 --batch-size 8"),
    ):
        command = [str(BASELINES / "sre2l" / f"{script}.py"), *shlex.split(arguments)]
        done = fork_server.run(command, cwd=folder, environment=process_environment())
        assert done.returncode == 0, done.stderr
    return SimpleNamespace(set=folder / "set", fkd=folder / "fkd", teacher=folder / "checkpoint.pth")


def test_replayed_views_are_what_the_teacher_saw(written):
    """Its answers to what is read here are those that the baseline stored, to half precision."""
    (recovered,) = read_recovered(written.set)
    images = EightBitImages(recovered.for_dataset("digits"))
    teacher = build_network(ARCH, channels=1, num_classes=10, im_size=(8, 8)).eval()
    teacher.load_state_dict(read_state_dict(written.teacher).tensors)
    labels = FkdLabels(written.fkd)
    seen = 0
    for epoch in labels.batches():
        for batch in epoch:
            with torch.no_grad():
                answers = teacher(images.views(batch.indices, batch.view))
            torch.testing.assert_close(answers, batch.logits, rtol=2**-10, atol=1e-4)
            seen += len(answers)
    assert (labels.epochs, seen) == (40, 40 * 30)


@pytest.fixture
def benchmark(guard, written, tmp_path):
    def benchmark(out, *options):
        common = f"--distilled {written.set} --adapter sre2l --dataset digits --arch {ARCH} --attacks fgsm"
        more = "--eps 8/255 --n-examples 200 --seeds 1 --json"
        done = guard("benchmark", "--out", out, *shlex.split(f"{common} {more}"), *options)
        if done.returncode:
            return done
        return json.loads((tmp_path / out / "results.json").read_text())

    return benchmark


def test_benchmarks_by_each_source_of_labels(benchmark, written):
    replayed = benchmark("fkd", "--fkd", written.fkd)
    assert replayed["protocol"]["recipe"]["labels"] == {"source": "fkd"}
    assert (replayed["protocol"]["recipe"]["epochs"], replayed["protocol"]["recipe"]["batch_size"]) == (40, 8)
    online = benchmark("teacher", "--teacher", written.teacher)
    assert online["protocol"]["recipe"]["labels"] == {"source": "teacher", "arch": ARCH}
    assert online["subject"]["soft_labels"]["path"] == str(written.teacher)
    plain = benchmark("classes")
    assert plain["protocol"]["recipe"]["labels"] == {"source": "classes of the images"}
    clean = {name: results["accuracy"]["clean"]["mean"] for name, results in (("fkd", replayed), ("teacher", online))}
    assert min(clean.values()) > 0.4, clean
    assert replayed["subject"]["n_files"] == 30 and replayed["subject"]["ipc"] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fkd", "{set}"], "give the folder that holds epoch_0"),
        (["--teacher", "{set}/new000/class000_id000.jpg"], "class000_id000.jpg"),
        (["--teacher", "{teacher}", "--teacher-arch", "ConvNetBN"], "name its architecture by --teacher-arch"),
        (["--teacher", "{teacher}", "--fkd", "{fkd}"], "got both"),
        (["--fkd", "{fkd}", "--recipe", "dc"], "got recipe dc"),
        (["--dataset", "CIFAR10"], "whose normalisation by this host is known"),
        (["--zca"], "did not whiten"),
        (["--distilled", "{fkd}"], "one folder per class"),
    ],
)
def test_what_cannot_be_used_is_refused(benchmark, written, tmp_path, options, words):
    done = benchmark("out", *(option.format(**vars(written)) for option in options))
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "students").exists()


def test_the_data_set_is_asked_for(guard, written):
    done = guard("benchmark", "--out", "o", "--distilled", written.set, "--adapter", "sre2l", "--eps", "1/255")
    assert done.returncode == 2 and "expected --dataset, one of digits" in done.stderr


SHORT = shlex.split("--iterations 60 --ipc 2 --experiments 2 --students 2 --n-examples 40 --attacks fgsm --eps 16/255")


@pytest.fixture
def demo(python, monkeypatch, capsys):
    """Run ``guard demo`` in this process, and fork the programs that it starts; test_demo.py starts real ones."""

    def fork(command, *, stdout, check):
        done = python(*command[1:])
        stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done

    def run(*arguments):
        monkeypatch.setattr("guard_plugin.demo.methods.subprocess", SimpleNamespace(run=fork))
        monkeypatch.setattr("sys.argv", ["guard", "demo", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return SimpleNamespace(returncode=end.value.code or 0, stdout=said.out, stderr=said.err)

    return run


@pytest.mark.long
@pytest.mark.parametrize("method", ["sre2l", "cda"])
def test_the_demo_of_a_method(demo, tmp_path, method):
    done = demo("--method", method, *SHORT, "--out", "demo")
    assert done.returncode == 0, done.stderr
    assert "of 150 expected guarded" in done.stdout  # 10 epochs of 15 batches
    results = {arm: json.loads((tmp_path / "demo" / arm / "results.json").read_text()) for arm in ("baseline", "guard")}
    assert results["baseline"]["ledger"]["penalty"]["strength"] == 0 < results["guard"]["ledger"]["penalty"]["strength"]
    first, second = results["guard"]["ledgers"]
    assert first["penalty"] == second["penalty"] and results["guard"]["subject"]["experiments"] == 2
    for part in ("sha256", "soft_labels"):
        assert results["guard"]["subject"][part] != results["baseline"]["subject"][part]
    assert {arm: one["subject"]["adapter"] for arm, one in results.items()} == dict.fromkeys(results, method)
    said = (tmp_path / "demo" / "guard" / "set-1" / "recover.txt").read_text()
    assert ("easy2hard_mode" in said) == (method == "cda")
    assert (tmp_path / "demo" / "distilled.png").exists()
    assert "\r" not in done.stderr and "%|" not in done.stderr
    another = demo("--method", "sre2l", *SHORT, "--ipc", "3", "--out", "demo")
    assert another.returncode == 2 and "other settings" in another.stderr


def test_the_teachers_network_is_the_baselines(python):
    """Each name means the same weights here and there."""
    code = """if True:
        import json, sys
        sys.path.append(sys.argv[1])
        from common.bn_networks import BN_MODELS, create_model
        from common.data import DATASETS
        made = {(name, data): create_model(name, DATASETS[data]) for name in BN_MODELS for data in sys.argv[2:]}
        shapes = {" ".join(key): {k: list(v.shape) for k, v in one.state_dict().items()} for key, one in made.items()}
        print(json.dumps(shapes))
    """
    shapes = {"digits": (1, (8, 8)), "FashionMNIST": (1, (28, 28)), "CIFAR10": (3, (32, 32))}
    theirs = json.loads(python("-c", code, BASELINES, *shapes, check=True).stdout)
    assert len(theirs) == 9
    for key, expected in theirs.items():
        name, dataset = key.split()
        channels, im_size = shapes[dataset]
        network = build_network(name, channels=channels, num_classes=10, im_size=im_size)
        assert {k: list(v.shape) for k, v in network.state_dict().items()} == expected
