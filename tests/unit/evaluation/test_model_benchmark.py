import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.attacks import MIM, PGD, Attack, parse_eps
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import benchmark
from guard_plugin.evaluation.engine import evaluate_model

PIXELS = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
CPU = torch.device("cpu")


def measure(model, images, attacks, batch_size=64):
    return evaluate_model(lambda: model, images, attacks, batch_size=batch_size, device=CPU)


def test_accuracies_are_those_of_a_plain_loop(convnet, digits_test):
    result = benchmark(convnet, dataset="digits", eps="8/255", attacks="fgsm,pgd5", n_examples=200)
    pixels, labels = digits_test.pixels[:200], digits_test.labels[:200]
    clean = convnet(pixels).argmax(1) == labels
    adversarial = PGD(parse_eps("8/255"), steps=5)(convnet, pixels, labels, indices=torch.arange(200))
    pgd = clean & (convnet(adversarial).argmax(1) == labels)
    assert result.clean_accuracy == pytest.approx(float(clean.float().mean()))
    assert result.robust_accuracy["pgd5"] == pytest.approx(float(pgd.float().mean()))
    assert list(result.robust_accuracy) == ["fgsm", "pgd5"]
    assert result.worst_case <= min(result.robust_accuracy.values()) < result.clean_accuracy - 0.05


def test_own_tensors_and_names_agree(mlp, digits_test):
    by_name = benchmark(mlp, dataset="digits", eps=0.05, n_examples=100)
    assert benchmark(mlp, dataset=(digits_test.pixels, digits_test.labels), eps=0.05, n_examples=100) == by_name
    assert set(by_name.robust_accuracy) == {"fgsm", "pgd10"}


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_flags_do_not_depend_on_the_batch_size(request, arch, digits_test):
    model, attacks = request.getfixturevalue(arch), {"pgd": PGD(parse_eps("8/255"), steps=5)}
    few = measure(model, digits_test, attacks, 64)
    for batch_size in (1, 7):
        again = measure(model, digits_test, attacks, batch_size)
        for column, record in few.items():
            np.testing.assert_array_equal(again[column].correct, record.correct)


def test_only_clean_correct_examples_are_attacked_and_counted(mlp, digits_test):
    records = measure(mlp, digits_test, {"mim": MIM(parse_eps("8/255"), steps=5, success="last")})
    attacked = int(records["clean"].correct.sum())
    assert attacked < 500
    # Rounds of 256 examples, in passes that are filled up to a multiple of 8.
    passes = 256 + -(-(attacked - 256) // 8) * 8
    assert (records["clean"].cost.forwards, records["clean"].cost.backwards) == (504, 0)
    assert (records["mim"].cost.forwards, records["mim"].cost.backwards) == (6 * passes, 5 * passes)
    assert not (records["mim"].correct & ~records["clean"].correct).any()


def test_a_model_that_is_always_wrong_is_measured_too(digits_test):
    class Wrong(nn.Module):
        def forward(self, pixels):
            return torch.zeros(len(pixels), 11).index_fill(1, torch.tensor([10]), 2.0)

    result = benchmark(Wrong().eval(), dataset="digits", eps="1/255", n_examples=20)
    assert (result.clean_accuracy, result.worst_case) == (0, 0)


class Constant(nn.Module):
    def __init__(self, value, classes=10):
        super().__init__()
        self.value, self.classes = value, classes

    def forward(self, pixels):
        return torch.full((len(pixels), self.classes), self.value)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Constant(0.0), {}, "eval mode"),
        (Constant(float("nan")).eval(), {}, "finite logits"),
        (Constant(0.0, classes=5).eval(), {}, "labels >= 0 and < 5"),
        (Constant(0.0).eval(), {"eps": "abc"}, "fraction such as 8/255"),
        (Constant(0.0).eval(), {"eps": 0}, "finite eps > 0"),
        (Constant(0.0).eval(), {"n_examples": 501}, "from 1 to 500"),
        (Constant(0.0).eval(), {"attacks": "deepfool"}, "expected one of .*fgsm, .*pgd"),
        (Constant(0.0).eval(), {"batch_size": 0}, "batch_size as a whole number >= 1"),
        (Constant(0.0).eval(), {"dataset": (torch.rand(2, 1, 8, 8) * 3, torch.tensor([0, 1]))}, "pixels in"),
        (Constant(0.0).eval(), {"dataset": (torch.rand(2, 1, 8, 8), torch.tensor([0, -1]))}, "labels >= 0"),
    ],
)
def test_hostile_inputs_are_refused(model, options, message):
    with pytest.raises(UnusableInput, match=message):
        benchmark(model, **{"dataset": "digits", "eps": "1/255", **options})


def test_third_party_attacks_come_in_through_the_registry(mlp):
    class Nothing(Attack):
        family = "nothing"

        def _perturb(self, classifier, pixels, labels, indices):
            return pixels

    result = benchmark(
        mlp, dataset="digits", eps="1/255", attacks="nothing", n_examples=50, registry={"nothing": Nothing}
    )
    assert result.robust_accuracy == {"nothing": result.clean_accuracy}


def test_the_worst_case_is_that_of_one_ball(convnet, digits_test):
    result = benchmark(convnet, dataset="digits", eps=0.05, attacks="pgd3,fgsm,pgd3-l2", n_examples=100)
    assert list(result.worst_cases) == ["worst_case", "worst_case-l2"]
    assert (
        result.worst_case
        == result.worst_cases["worst_case"]
        <= min(result.robust_accuracy[c] for c in ("pgd3", "fgsm"))
    )
    assert result.worst_cases["worst_case-l2"] == result.robust_accuracy["pgd3-l2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": lambda pixels: pixels}, "torch.nn.Module, got function"),
        ({"dataset": (np.zeros((2, 1, 8, 8)), np.zeros(2))}, "two tensors"),
        ({"dataset": (PIXELS - 2.0**-25, torch.tensor([0, 1]))}, r"values from -2.9802322e-08 .* images.clamp\(0, 1\)"),
        ({"dataset": (PIXELS * 255, torch.tensor([0, 1]))}, "values from 0 to 255: attacks are measured in pixel"),
        ({"eps": ["1/255"]}, "one eps"),
        ({"n_examples": 1.5}, "n_examples as a whole number"),
        ({"batch_size": 2.5}, "batch_size as a whole number"),
        ({"device": "gpu0"}, "cannot compute on device 'gpu0'"),
        ({"attacks": "pgd10-transfer"}, "need a source model"),
        ({"attacks": ""}, "expected a comma list of different attacks"),
        ({"attacks": "", "threat_model": "Linf"}, "expected a comma list of different attacks"),
        ({"eps": ""}, "expected eps as a number"),
    ],
)
def test_common_mistakes_are_explained(mlp, options, message):
    with pytest.raises(UnusableInput, match=message):
        benchmark(**{"model": mlp, "dataset": "digits", "eps": 0.05, "n_examples": 20, **options})
