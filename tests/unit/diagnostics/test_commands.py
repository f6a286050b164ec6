"""``guard curvature`` and ``guard bound``, in this process."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from guard_plugin.cli import cli
from guard_plugin.commands import diagnostics as module
from guard_plugin.datasets import load_training_images
from guard_plugin.diagnostics import input_curvature
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import load_images
from guard_plugin.networks.architectures import build_network
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import Normalization, ZcaWhitening

DIGITS = Normalization((0.3051,), (0.3753,))


def checkpoint(name: str, seed: int) -> Path:
    torch.manual_seed(seed)
    network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8))
    torch.save(network.state_dict(), name)
    return Path(name)


def run(*arguments: object) -> str:
    return CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False).stdout


def curvature(*arguments: object) -> str:
    common = ("--arch", "MLP", "--dataset", "digits", "--n-examples", 6, "--h", 0.5, "--out", "out")
    return run("curvature", *common, *arguments)


def bound(*arguments: object, experiments: int = 1) -> str:
    torch.manual_seed(0)
    images, labels = torch.randn(20, 1, 8, 8), torch.arange(10).repeat_interleave(2)
    torch.save({"data": [[images + k, labels] for k in range(experiments)]}, "res_DC_digits_MLP_2ipc.pt")
    where = ("--distilled", "res_DC_digits_MLP_2ipc.pt", "--adapter", "dc")
    return run("bound", *where, "--arch", "MLP", "--n-examples", 30, *arguments)


def test_the_file_holds_every_examples_values_as_the_function_gives_them():
    file = checkpoint("a.pt", 1)
    curvature("--checkpoint", file)
    (found,) = json.loads(Path("out/curvature.json").read_text())["checkpoints"]
    network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8)).eval()
    network.load_state_dict(torch.load(file))
    images = load_images("digits", n_examples=6)
    report = input_curvature(PixelModel(network, DIGITS).eval(), images.pixels, images.labels, h=0.5)
    assert found["per_example"] == report.per_example()


@pytest.mark.parametrize("command", [curvature, bound])
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_measured(monkeypatch, command):
    monkeypatch.setattr(module, "load_images", None)
    Path("file").write_text("mine")
    rho = ("--rho", 1) if command is bound else ()
    with pytest.raises(UnusableInput, match="cannot write file/out.*Choose another --out"):
        command("--checkpoint", checkpoint("a.pt", 1), "--out", "file/out", *rho)
    assert Path("file").read_text() == "mine"


def test_the_table_tells_quantiles_and_how_many_did_not_converge():
    shown = curvature("--checkpoint", checkpoint("a.pt", 1), "--steps", 1)
    values = json.loads(Path("out/curvature.json").read_text())["checkpoints"][0]
    median = torch.tensor(values["per_example"]["largest"], dtype=torch.float64).quantile(0.5).item()
    assert f"{median:.4g}" in next(line for line in shown.splitlines() if line.startswith("lambda_1"))
    assert "6 examples, of which 6 did not converge" in shown


def test_checkpoints_are_overlaid_in_one_figure():
    shown = curvature("--checkpoint", checkpoint("a.pt", 1), "--checkpoint", checkpoint("b.pt", 2))
    assert Path("out/curvature.png").read_bytes().startswith(b"\x89PNG")
    assert "a.pt: 6 examples" in shown and "b.pt: 6 examples" in shown


def test_the_json_on_screen_is_that_of_the_file():
    shown = curvature("--checkpoint", checkpoint("a.pt", 1), "--json")
    assert json.loads(shown) == json.loads(Path("out/curvature.json").read_text())


def test_what_the_network_is_fed_can_be_said():
    file = checkpoint("a.pt", 1)
    usual, pixels = (
        json.loads(curvature("--checkpoint", file, "--json", *more)) for more in ((), ("--normalization", "none"))
    )
    assert usual["normalization"]["mean"] == [0.3051] and pixels["normalization"]["mean"] == [0.0]
    assert usual["checkpoints"][0]["per_example"] != pixels["checkpoints"][0]["per_example"]


def test_the_same_checkpoint_twice_is_refused():
    file = checkpoint("a.pt", 1)
    with pytest.raises(UnusableInput, match="twice"):
        curvature("--checkpoint", file, "--checkpoint", file)


@pytest.mark.parametrize("fault", ["other", "diverged"])
def test_every_checkpoint_is_looked_at_before_the_first_is_measured(monkeypatch, fault):
    monkeypatch.setattr("guard_plugin.diagnostics.input_curvature", lambda *_, **__: pytest.fail("measured"))
    good, bad = checkpoint("a.pt", 1), checkpoint("b.pt", 2)
    weights = torch.load(bad)
    weights["1.weight"] = weights["1.weight"] * math.nan if fault == "diverged" else weights["1.weight"][:5]
    torch.save(weights, bad)
    with pytest.raises(UnusableInput, match="b.pt"):
        curvature("--checkpoint", good, "--checkpoint", bad)


@pytest.mark.parametrize(("command", "name"), [(curvature, "curvature.json"), (bound, "bound.json")])
def test_a_report_of_another_is_not_replaced_and_one_of_ours_is(monkeypatch, command, name):
    more = ("--checkpoint", checkpoint("a.pt", 1), *(("--rho", 1) if command is bound else ()), "--out", "out")
    for _ in range(2):
        command(*more)
    assert json.loads(Path("out", name).read_text())["schema"] == 1
    Path("out", name).write_text('{"mine": 1}')
    monkeypatch.setattr(module, "load_images", None)
    with pytest.raises(UnusableInput, match=f"expected no {name} in out, or one of this command.*choose another --out"):
        command(*more)
    assert Path("out", name).read_text() == '{"mine": 1}'


def test_a_drawing_of_another_is_not_replaced(monkeypatch):
    monkeypatch.setattr(module, "load_images", None)
    Path("out").mkdir()
    Path("out/curvature.png").write_bytes(b"mine")
    with pytest.raises(UnusableInput, match="curvature.png of another origin .*choose another --out"):
        curvature("--checkpoint", checkpoint("a.pt", 1))
    assert Path("out/curvature.png").read_bytes() == b"mine"


def test_without_matplotlib_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnusableInput, match=r"guard-plugin\[bench\]"):
        curvature("--checkpoint", checkpoint("a.pt", 1))
    assert not Path("out").exists()


def test_an_out_that_cannot_be_written_is_refused():
    Path("blocked").write_text("a file")
    with pytest.raises(UnusableInput, match="Choose another --out"):
        curvature("--checkpoint", checkpoint("a.pt", 1), "--out", "blocked/out")


def test_the_bound_is_printed_per_class_with_its_notes():
    shown = bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--out", "out")
    classes = json.loads(Path("out/bound.json").read_text())["classes"]
    rows = [line.split() for line in shown.splitlines()[4 : 4 + len(classes)]]
    assert [(row[0], row[1]) for row in rows] == [(str(one["label"]), f"{one['loss']:.3g}") for one in classes]
    assert [row[9] for row in rows] == ["yes" if one["held"] else "no" for one in classes]
    assert [row[12] for row in rows] == [f"{one['quadratic']:.3g}" for one in classes]
    assert "held, Eq. 8: " in shown and "held, Eq. 7, with the gradient term: " in shown and "lower estimates" in shown


def test_the_bounds_file_holds_every_term():
    bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--out", "out")
    found = json.loads(Path("out/bound.json").read_text())
    assert (found["rho"], found["space"], found["data"]["split"]) == (0.2, "input", "train")
    assert {"loss", "gradient_term", "curvature_term", "lipschitz", "sigma", "held"} <= set(found["classes"][0])


def test_of_several_distilled_sets_one_must_be_chosen():
    with pytest.raises(UnusableInput, match="--experiment from 0 to 1"):
        bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, experiments=2)


def test_the_chosen_set_is_the_one_that_is_measured():
    file = checkpoint("a.pt", 1)
    sigmas = [
        json.loads(bound("--checkpoint", file, "--rho", 0.2, "--json", "--experiment", k, experiments=2))["classes"][0]
        for k in (0, 1)
    ]
    assert sigmas[0]["sigma"] != sigmas[1]["sigma"]


def test_files_of_no_host_are_measured_and_unknown_adapters_refused(distilled):
    torch.save((distilled.pixels(), distilled.labels), "plain.pt")
    of_none = ("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--distilled", "plain.pt", "--dataset", "digits")
    assert "held, Eq. 8: " in bound(*of_none, "--adapter", "plain")
    with pytest.raises(UnusableInput, match="unknown adapter 'plane'"):
        bound(*of_none, "--adapter", "plane")


def test_a_folder_that_is_missing_does_not_shift_the_classes():
    for name in ("0", "1", "3"):
        Path("set", name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(Path("set", name, "0.png"))
    of_none = ("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--distilled", "set", "--dataset", "digits")
    with pytest.raises(UnusableInput, match="without a gap, got 0, 1, 3"):
        bound(*of_none, "--adapter", "plain")


def test_a_set_that_there_is_not_is_refused():
    with pytest.raises(UnusableInput, match="--experiment from 0 to 0, got 1"):
        bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--experiment", 1)


def given(monkeypatch, **about: object) -> None:
    """Let the adapter have read this set, whatever lies in the file."""
    one = DistilledSet(torch.randn(20, 1, 8, 8), torch.arange(10).repeat_interleave(2), 10, **about)
    monkeypatch.setattr(module, "read_distilled", lambda hooks, adapter, path: [one])


def test_a_whitening_is_fitted_on_the_training_images(monkeypatch):
    given(monkeypatch, normalization=ZcaWhitening(), dataset="digits")
    fitted_on = []
    plain = ZcaWhitening.fitted
    monkeypatch.setattr(ZcaWhitening, "fitted", lambda self, pixels: (fitted_on.append(pixels), plain(self, pixels))[1])
    bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2)
    assert torch.equal(fitted_on[0], load_training_images("digits").pixels)


def test_a_set_that_does_not_tell_its_data_needs_dataset(monkeypatch):
    given(monkeypatch, normalization=DIGITS)
    with pytest.raises(UnusableInput, match="--dataset"):
        bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2)


def test_zca_of_a_host_that_did_not_whiten_is_refused():
    with pytest.raises(UnusableInput, match="did not whiten"):
        bound("--checkpoint", checkpoint("a.pt", 1), "--rho", 0.2, "--zca")
