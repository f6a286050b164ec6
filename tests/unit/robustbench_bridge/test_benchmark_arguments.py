import json
import sys
from enum import Enum

import pytest
import torch
from torch import nn

from guard_plugin.attacks import Attack, builtin_registry
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import benchmark
from guard_plugin.robustbench_bridge import Repair, RobustBenchRun


class AutoAttack(Attack):
    """Makes the first pixel of every other image darker."""

    family = "autoattack"
    norms = ("linf", "l2")

    def _perturb(self, classifier, pixels, labels, indices):
        darker = pixels.clone()
        darker[indices % 2 == 0, 0, 0, 0] -= self.eps.value
        return darker.clamp(0)


STANDARD = {"autoattack": AutoAttack}
BOTH = {**builtin_registry(), **STANDARD}


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is above 1/2."""

    def forward(self, pixels):
        first = pixels[:, 0, 0, 0]
        return torch.stack([torch.full_like(first, 0.5), first], 1)


@pytest.fixture
def model():
    return FirstPixel().eval()


@pytest.fixture
def tensors():
    """Ten images of class 1, of which the last is seen as class 0."""
    pixels = torch.full((10, 1, 2, 2), 0.6)
    pixels[9] = 0
    return pixels, torch.ones(10, dtype=torch.int64)


@pytest.fixture
def delegated(monkeypatch):
    """The calls of robustbench, which does not run."""
    calls = []

    def run(model, run, *, device, seed):
        calls.append((run, device, seed))
        return 0.75, 0.5, (Repair("a", "b"),)

    # The function of that name hides the module.
    monkeypatch.setattr(sys.modules[benchmark.__module__], "run_robustbench", run)
    return calls


class RobustBenchsDataset(Enum):
    cifar_10 = "cifar10"


class RobustBenchsThreat(Enum):
    Linf = "Linf"


def test_a_result_unpacks_to_clean_and_worst_case(model, tensors):
    clean, robust = benchmark(model, dataset=tensors, eps=0.2, attacks="autoattack,fgsm", registry=BOTH)
    assert (clean, robust) == (0.9, 0.0)


def test_a_threat_model_means_autoattack_in_its_norm(model, tensors):
    linf = benchmark(model, dataset=tensors, threat_model="Linf", eps=0.2, registry=STANDARD)
    assert linf.robust_accuracy == {"autoattack": 0.4} and linf.repairs == ()
    l2 = benchmark(model, dataset=tensors, threat_model="L2", eps=0.5, registry=STANDARD)
    assert list(l2.robust_accuracy) == ["autoattack-l2"]


def test_results_of_any_data_set_are_written_for_robustbench(model, tmp_path):
    result = benchmark(
        digit_model(), dataset="digits", threat_model="Linf", eps="1/10", n_examples=40, registry=STANDARD,
        to_disk=True, model_name="Mine",
    )  # fmt: skip
    known = json.loads((tmp_path / "model_info/digits/Linf/Mine.json").read_text())
    written = {"dataset": "digits", "eps": 0.1, "clean_acc": str(round(result.clean_accuracy * 100, 2))}
    written["autoattack_acc"] = str(round(result.worst_case * 100, 2))
    assert {key: value for key, value in known.items() if value is not None} == written


def digit_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def test_robustbenchs_own_data_sets_with_a_threat_model_go_to_robustbench(model, delegated):
    result = benchmark(
        model, dataset="cifar10", threat_model="L2", eps="1/2", n_examples=8, data_dir="d", batch_size=4, seed=5,
        device="cpu", to_disk=True, model_name="Mine", log_path="log", aa_state_path="state",
    )  # fmt: skip
    expected = RobustBenchRun(
        "cifar10", "L2", "1/2", n_examples=8, data_dir="d", batch_size=4, to_disk=True, model_name="Mine",
        log_path="log", aa_state_path="state",
    )  # fmt: skip
    assert delegated == [(expected, torch.device("cpu"), 5)]
    assert tuple(result) == (0.75, 0.5) and result.robust_accuracy == {"autoattack-l2": 0.5}
    assert result.repairs == (Repair("a", "b"),)


def test_robustbenchs_enums_and_corruptions_are_understood(model, delegated):
    benchmark(model, dataset=RobustBenchsDataset.cifar_10, threat_model=RobustBenchsThreat.Linf, eps=8 / 255)
    result = benchmark(
        model, dataset="imagenet", threat_model="corruptions_3d", preprocessing="Res224", corruptions_data_dir="c"
    )
    assert [run.threat_model for run, *_ in delegated] == ["Linf", "corruptions_3d"]
    assert result.robust_accuracy == {"corruptions_3d": 0.5}
    assert [run.examples for run, *_ in delegated] == [10000, 5000]


def test_attacks_keep_robustbenchs_data_sets_with_guard_plugin(model, delegated, tmp_path):
    with pytest.raises(UnusableInput, match="CIFAR10 cannot be read"):
        benchmark(model, dataset="cifar10", threat_model="Linf", eps="1/255", attacks="fgsm", data_dir=tmp_path)
    assert not delegated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "cifar10", "eps": 0.1}, "RobustBench's name: give threat_model"),
        ({"dataset": "cifar10", "threat_model": "Linf"}, "Linf needs eps"),
        ({"dataset": "cifar10", "threat_model": "L1", "eps": 0.1}, "unknown threat model 'L1'"),
        ({"dataset": "cifar10", "threat_model": "Linf", "eps": 3}, "0 < eps <= 1"),
        (
            {"dataset": "cifar10", "threat_model": "corruptions", "eps": 0.1},
            "eps has no meaning for threat model corruptions",
        ),
        (
            {"dataset": "cifar10", "threat_model": "corruptions", "aa_state_path": "s"},
            "aa_state_path has no meaning for threat model corruptions",
        ),
        ({"dataset": "cifar10", "threat_model": "corruptions_3d"}, "for imagenet only"),
        ({"dataset": "cifar10", "threat_model": "Linf", "eps": 0.1, "preprocessing": "Res224"}, "is for imagenet"),
        ({"dataset": "cifar10", "threat_model": "Linf", "eps": 0.1, "corruptions_data_dir": "c"}, "no meaning"),
        ({"dataset": "cifar10", "threat_model": "Linf", "eps": 0.1, "to_disk": True}, "give model_name"),
        (
            {"dataset": "cifar10", "threat_model": "Linf", "eps": 0.1, "n_examples": 0},
            "n_examples as a whole number >= 1",
        ),
        ({"dataset": "cifar10", "threat_model": "Linf", "eps": 0.1, "registry": STANDARD}, "registry has no meaning"),
        ({"dataset": "imagenet", "threat_model": "Linf", "eps": 0.1}, "imagenet needs preprocessing"),
        ({"dataset": "imagenet", "threat_model": "Linf", "eps": 0.1, "n_examples": 5001}, "from 1 to 5000"),
        ({"dataset": "digits", "attacks": "fgsm"}, "expected eps"),
        ({"dataset": "digits", "threat_model": "corruptions"}, "corruptions are measured by robustbench alone"),
        ({"dataset": "digits", "eps": 0.1, "log_path": "l"}, "log_path has no meaning where guard-plugin measures"),
        ({"dataset": "digits", "eps": 0.1, "to_disk": True, "model_name": "Mine"}, "expected dataset as a name"),
        (
            {"dataset": "digits", "threat_model": "L2", "eps": 0.1, "attacks": "fgsm,autoattack", "registry": BOTH},
            "threat model L2 contradicts the norm of these attacks: fgsm, autoattack",
        ),
        (
            {"dataset": "digits", "threat_model": "Linf", "eps": 0.1, "attacks": "fgsm", "to_disk": True},
            "model_name, and no attacks",
        ),
    ],
)
def test_contradicting_arguments_are_refused(model, delegated, arguments, message):
    with pytest.raises(UnusableInput, match=message):
        benchmark(model, **arguments)
    assert not delegated


def test_larger_euclidean_balls_than_a_pixels_range_are_robustbenchs_custom():
    assert RobustBenchRun("imagenet", "L2", 3.0, preprocessing="Res256Crop224").radius == 3.0
    assert RobustBenchRun("cifar10", "L2", "1/2").radius == 0.5
