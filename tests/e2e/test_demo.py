"""``guard demo`` and ``guard benchmark``, short, from the checkout and from a wheel."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guard_plugin.versions import strict_zip
from tests.conftest import ROOT

SHORT = shlex.split(
    "--method dc --iterations 1 --students 2 --experiments 2 --n-examples 40 --attacks fgsm,pgd3 --eps 16/255"
)


def table(stdout: str) -> list[str]:
    lines = stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("accuracy (%)"))
    return lines[start : start + 6]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, installed outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (file,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "target"), str(file)]
    subprocess.run(pip, check=True)
    return folder / "target"


def test_all_that_is_no_code_travels_in_the_wheel(wheel):
    """The page of ``guard compare`` is made from templates and a style sheet."""

    def others(folder):
        return {file.name for file in folder.iterdir() if file.suffix != ".py" and file.is_file()}

    expected = others(ROOT / "guard_plugin" / "comparison")
    assert {"page.html.j2", "page.css"} <= expected == others(wheel / "guard_plugin" / "comparison")


@pytest.mark.long
def test_the_demo_measures_and_prints_and_from_the_wheel_it_is_the_same(guard, wheel, tmp_path):
    done = guard("demo", *SHORT, "--out", "demo")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert [row.split("  ")[0].strip() for row in rows[2:]] == ["clean", "fgsm", "pgd3", "worst case"]
    assert "of 100 expected guarded" in done.stdout  # 2 experiments, 1 iteration, 5 outer loops, 10 classes
    assert "2 distilled sets and 2 students per folder, and 40 examples" in done.stdout
    results = {arm: json.loads((tmp_path / "demo" / arm / "results.json").read_text()) for arm in ("baseline", "guard")}
    for arm, name in (("baseline", 1), ("guard", 2)):
        for row, column in strict_zip(rows[2:], ("clean", "fgsm", "pgd3", "worst_case")):
            shown = float(row.replace("worst case", "worst_case").split()[name])
            assert shown == pytest.approx(100 * results[arm]["accuracy"][column]["mean"], abs=0.051)
    assert results["guard"]["ledger"]["loss_calls"]["guarded"] == 100
    assert results["baseline"]["ledger"]["penalty"]["strength"] == 0
    assert results["guard"]["subject"]["sha256"] != results["baseline"]["subject"]["sha256"]
    image = np.asarray(Image.open(tmp_path / "demo" / "distilled.png"))
    assert image.shape[1] == 10 * 34 + 2 and image.std() > 10  # ten columns of 8x8 images enlarged four times
    assert (tmp_path / "demo" / "comparison.html").read_text().startswith("<!doctype html>")
    assert "\r" not in done.stderr and "%|" not in done.stderr  # no progress bars in a log

    home = tmp_path / "elsewhere"
    home.mkdir()
    where = "import guard_plugin, guard_adapters; print(guard_plugin.__file__, guard_adapters.__file__)"
    wheel_done = guard("demo", *SHORT, "--out", "demo", cwd=home, PYTHONPATH=str(wheel))
    assert wheel_done.returncode == 0, wheel_done.stderr
    assert table(wheel_done.stdout) == rows
    files = guard("run", "--strength", "0", "--h", "1", "dc", make_probe(home, where), cwd=home, PYTHONPATH=str(wheel))
    assert files.stdout.count(str(wheel)) == 2


def make_probe(folder: Path, code: str) -> Path:
    (folder / "utils.py").write_text(
        "def epoch(mode, dataloader, net, optimizer, criterion, args, aug): pass\n"
        "def evaluate_synset(it_eval, net, images_train, labels_train, testloader, args): pass\n"
    )
    script = folder / "main.py"
    script.write_text(f"from utils import epoch, evaluate_synset\ndef main():\n    {code}\nmain()\n")
    return script


def test_the_demo_refuses_what_it_cannot_use(guard, tmp_path):
    for arguments, words in (
        (["--dataset", "FashionMNIST", "--data", "nowhere"], "nowhere"),
        (["--dataset", "Imagenette"], "Imagenette"),
        (["--eps", "abc"], "abc"),
        (["--attacks", "fgms"], "unknown attack 'fgms'"),
        (["--h", "-1"], "expected h"),
        (["--students", "0"], "--students"),
        (["--seed", "-1"], "--seed"),
    ):
        done = guard("demo", *arguments, "--iterations", "1", "--out", "demo")
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert "distilling" not in done.stdout and "Traceback" not in done.stderr
    (tmp_path / "file").write_text("")
    assert guard("demo", "--out", "file/demo").returncode == 2


def test_a_demo_in_the_folder_of_another_is_refused(guard, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "settings.json").write_text("{}")
    done = guard("demo", "--out", "demo")
    assert done.returncode == 2 and "other settings" in done.stderr


@pytest.mark.long
def test_benchmark_of_a_distilled_file(guard, baseline, tmp_path):
    arguments = shlex.split(
        "--dataset digits --model MLP --ipc 1 --num_exp 2 --num_eval 0 --Iteration 1 --batch_real 8 --save_path out"
    )
    run = guard("run", "--strength", "1", "--h", "0.5", "--ledger", "l.json", "dc", baseline / "main.py", *arguments)
    assert run.returncode == 0, run.stderr
    options = shlex.split(
        "--out b --distilled out/res_DC_digits_MLP_1ipc.pt --adapter dc --attacks fgsm,pgd2 --eps 1/255,16/255 "
        "--n-examples 30 --seeds 2 --ledger l.json"
    )
    done = guard("benchmark", *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert set(results) >= {"schema", "subject", "protocol", "accuracy", "cost", "ledger", "versions"}
    assert results["subject"]["kind"] == "distilled" and results["subject"]["ipc"] == 1
    assert set(results["accuracy"]) == {
        "clean", "fgsm@1/255", "pgd2@1/255", "worst_case@1/255", "fgsm@16/255", "pgd2@16/255", "worst_case@16/255"
    }  # fmt: skip
    assert results["ledger"]["loss_calls"]["guarded"] == 40
    assert [a["eps"] for a in results["protocol"]["attacks"]] == ["1/255", "1/255", "16/255", "16/255"]
    before = (tmp_path / "b" / "results.json").read_text()
    again = guard("benchmark", "--json", *options)
    assert json.loads(again.stdout)["accuracy"] == json.loads(before)["accuracy"]
    (tmp_path / "text.pt").write_text("no tensors")
    for wrong, words in (
        (["--device", "foo"], "cannot compute on device 'foo'"),
        (["--ledger", "b/students/student-0.pt"], "cannot be read as JSON"),
        (["--eps", "8/255,16/510"], "all different"),
        (["--distilled", "text.pt", "--ledger", "l.json"], "expected a file named res_METHOD"),
        (["--dataset", "digitz"], "digits"),
        (["--arch", "ConvNetW9"], "ConvNetW32"),
    ):
        refused = guard("benchmark", *options, "--out", "other", *wrong)
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr and not (tmp_path / "other" / "students").exists()
    bad = guard("benchmark", *options, "--adapter", "mtt2")
    assert bad.returncode == 2 and "unknown adapter 'mtt2'" in bad.stderr
