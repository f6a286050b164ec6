"""A few cases of the fuzz, and the proof that it can fail."""

import dataclasses

import pytest
import torch

from guard_plugin.penalties.fast import curvature
from tests.fuzz import file_run, host_run, network_run, reference
from tests.fuzz.__main__ import KINDS, main
from tests.fuzz.damage import damage
from tests.fuzz.host_scripts import draw_host
from tests.fuzz.networks import Described, draw, smaller
from tests.fuzz.outcome import Disagreement, generator

AGREED = Described(
    seed=1,
    shape=(2, 5, 5),
    n=3,
    classes=3,
    pieces=(("conv", 3), ("batch_norm", 4), ("activation", 5)),
    head="flatten",
    loss={"kind": "CrossEntropyLoss", "weight": [0.5, 1, 2], "label_smoothing": 0.1},
    options={"strength": 1.0, "h": 0.3, "form": "gradient"},
)


@pytest.fixture(autouse=True)
def kept_files_in_this_folder(tmp_path, monkeypatch):
    file_run._good_files()  # they outlive a test
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.long  # CI runs the fuzz itself, for a minute
@pytest.mark.parametrize(("kind", "cases"), [("networks", 20), ("hosts", 3), ("files", 5)])
def test_some_cases_of_each_kind_agree(kind, cases):
    for number in range(cases):
        assert KINDS[kind](0, number), number


def test_the_counts_are_a_table(capsys):
    assert main(["--only", "networks", "--case", "1"]) == 0
    assert "| networks | agreed | 1 |" in capsys.readouterr().out


FORMS = {
    "gradient": ({"form": "gradient"}, "penalty"),
    "loss": ({"form": "loss"}, "penalty"),
    "loss in batch statistics": ({"form": "loss", "batch_statistics": True}, "penalty_in_batch_statistics"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [{}, {"path": "reference"}, {"memory": "low"}])
def test_a_penalty_that_is_a_little_off_is_reported(form, way, monkeypatch):
    settings, formula = FORMS[form]
    if "batch_statistics" in settings and "memory" in way:
        pytest.skip("they are refused together")
    case = dataclasses.replace(AGREED, options={**AGREED.options, **settings, **way})
    assert network_run.run(case) == "agreed"
    by_formula = getattr(reference, formula)
    monkeypatch.setattr(reference, formula, lambda *args: by_formula(*args) * (1 + 1e-7))
    with pytest.raises(Disagreement, match=r"the value of the penalty is .*, by the formula"):
        network_run.run(case)


def test_a_fault_in_the_code_is_reported_and_made_smaller(monkeypatch, capsys):
    unit = curvature.unit
    monkeypatch.setattr(curvature, "unit", lambda gradient: unit(gradient) * 1.001)
    with pytest.raises(Disagreement):
        for number in range(20):
            network_run.run_case(0, number)
    assert main(["--only", "networks", "--seconds", "100", "--start", str(number)]) == 1
    printed = capsys.readouterr().out
    assert f"--only networks --case {number}" in printed
    spec = printed.split("--spec '")[1].split("'")[0]
    assert main(["--spec", spec]) == 1 and len(Described.from_json(spec).pieces) <= 2
    monkeypatch.undo()
    assert main(["--spec", spec]) == 0


def test_a_gradient_that_differs_from_its_value_is_reported(monkeypatch):
    by_formula = reference.penalty

    def another_gradient(*args):
        value = by_formula(*args)
        return value.detach() + (value - value.detach()) * (1 + 1e-6)

    monkeypatch.setattr(reference, "penalty", another_gradient)
    with pytest.raises(Disagreement, match="the gradient of trained parameter"):
        network_run.run(AGREED)


def test_a_trace_that_is_left_is_reported(monkeypatch):
    def draws(original):
        def drawing(*args, **kwargs):
            torch.rand(1)
            return original(*args, **kwargs)

        return drawing

    monkeypatch.setattr(network_run, "wrap", draws(network_run.wrap))  # before the steps: no trace
    assert network_run.run(AGREED) == "agreed"
    wrap = network_run.wrap
    monkeypatch.setattr(network_run, "wrap", lambda *args, **options: _Drawing(wrap(*args, **options)))
    with pytest.raises(Disagreement, match="the random stream of torch"):
        network_run.run(AGREED)


class _Drawing:
    """A criterion that draws a random number."""

    def __init__(self, criterion):
        self.criterion = criterion

    def __call__(self, *args):
        torch.rand(1)
        return self.criterion(*args)

    @property
    def guarded(self):
        return self.criterion.guarded


def test_a_loss_that_is_silently_left_unguarded_is_reported(monkeypatch):
    class Plain(_Drawing):
        guarded = 0

        def __call__(self, *args):
            return self.criterion.criterion(*args)

    wrap = network_run.wrap
    monkeypatch.setattr(network_run, "wrap", lambda *args, **options: Plain(wrap(*args, **options)))
    with pytest.raises(Disagreement, match="guarded rose by 0, not by 1"):
        network_run.run(AGREED)


@pytest.mark.long
def test_a_host_that_guards_another_number_of_losses_is_reported(monkeypatch):
    host = next(h for h in map(draw_host, [0] * 50, range(50)) if h.real and not h.doubtful and not h.exit_code)
    monkeypatch.setattr(host_run, "draw_host", lambda *_: dataclasses.replace(host, real=host.real + 1))
    with pytest.raises(Disagreement):
        host_run.run_case(0, 0)


def test_a_traceback_is_reported(monkeypatch):
    folder = file_run._good_files()  # made with the real commands
    monkeypatch.setattr(file_run, "main", lambda: 1 / 0)
    with pytest.raises(Disagreement, match="ZeroDivisionError"):
        file_run._check(file_run._run(folder, ["compare", "a", "b"]), "it")


def test_the_undamaged_files_are_read():
    for name, command in file_run._COMMANDS[-7:]:
        assert (file_run._good_files() / name).exists() and command.startswith(("compare", "benchmark"))


def test_cases_are_the_same_in_every_process_and_can_be_written_down():
    case = draw(3, 17)
    assert case == draw(3, 17) != draw(3, 18)
    assert Described.from_json(case.to_json()) == case
    assert all(Described.from_json(one.to_json()) == one for one in smaller(case))
    assert draw_host(3, 17) == draw_host(3, 17)


def test_files_are_damaged_in_the_same_way_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text('{"x": [1, {"y": 2}]}')
        damage(tmp_path / f"{name}.json", generator("damage", 5))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
