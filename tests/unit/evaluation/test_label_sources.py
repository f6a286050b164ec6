"""What a teacher is fed: views come in the space of the distilled images, which need not be the teacher's."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch

from guard_plugin.comparison.protocols import differing_settings
from guard_plugin.datasets import images_from_tensors
from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import RECIPES, BenchmarkOptions, benchmark_distilled, train_student
from guard_plugin.evaluation.label_sources import label_sources
from guard_plugin.networks import build_network
from guard_plugin.plugins import installed_plugins
from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named
from guard_plugin.students import EightBitImages, ViewDrawing

ARCH = "ConvNet-d1-w8-nonorm"  # a layer that normalises would undo what the teacher is fed
USUAL, PIXELS = normalization_named("digits"), Normalization.identity(1)
HALVES = "mean=0.5;std=0.5"


@pytest.fixture(scope="module")
def pixels(distilled):
    """Real digits in 8 bits, as a folder of images holds them: pixels."""
    levels = (distilled.pixels() * 255).round() / 255
    return dataclasses.replace(distilled, images=levels, normalization=PIXELS)


@pytest.fixture(scope="module")
def normalised(pixels):
    """The same, as a host's file holds them."""
    own = Normalization((0.3,), (0.35,))
    return dataclasses.replace(pixels, images=own.to_input(pixels.images), normalization=own)


@pytest.fixture(scope="module")
def teacher(pixels, tmp_path_factory):
    """A teacher that was trained on images that are normalised as is usual."""
    network = partial(build_network, ARCH, channels=1, num_classes=10, im_size=(8, 8))
    recipe = dataclasses.replace(RECIPES["dc"], epochs=30, batch_size=20)
    usual = dataclasses.replace(pixels, images=USUAL.to_input(pixels.images), normalization=USUAL)
    trained = train_student(usual, network, recipe, seed=9)
    file = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(trained.state_dict(), file)
    return file, trained


def chosen(distilled, images, **options):
    given = {"dataset": "digits", "arch": ARCH, "attacks": "fgsm", "out": "out"} | options
    (source,) = label_sources(BenchmarkOptions(**given), [distilled], images)
    return source


@pytest.mark.parametrize(
    ("of", "option", "fed"),
    [
        ("pixels", None, USUAL),
        ("pixels", "digits", USUAL),
        ("pixels", "none", None),
        ("pixels", HALVES, Normalization((0.5,), (0.5,))),
        ("normalised", None, None),
        ("normalised", "mean=0.3;std=0.35", None),
        ("normalised", "none", PIXELS),
        ("normalised", "digits", USUAL),
    ],
)
def test_the_teacher_is_fed_as_it_was_trained(request, digits_test, teacher, of, option, fed):
    """Where it was trained as the students are (None), with the same bits that students see."""
    distilled = request.getfixturevalue(of)
    source = chosen(distilled, digits_test, teacher=teacher[0], teacher_normalization=option)
    inputs, labels = next(next(source.epochs(EightBitImages(distilled), 50, ViewDrawing(0.5), torch.device("cpu"))))
    seen = inputs if fed is None else fed.to_input(distilled.normalization.to_pixels(inputs))
    with torch.no_grad():
        assert torch.equal(labels, teacher[1](seen))
    told = {} if fed is None else {"normalization": fed.describe()}
    assert source.describe() == {"source": "teacher", "arch": ARCH, **told}


def test_the_agreement_is_that_of_the_teacher_as_it_is_fed(pixels, digits_test, teacher):
    chosen(pixels, digits_test, teacher=teacher[0]).check(pixels)
    with pytest.raises(UnusableInput, match="more often than chance"):
        chosen(pixels, digits_test, teacher=teacher[0], teacher_normalization="mean=-1000;std=10").check(pixels)


def test_the_protocol_tells_what_the_teacher_is_fed(pixels, teacher):
    def protocol(out, **options):
        shared = {"dataset": "digits", "arch": ARCH, "attacks": "fgsm", "eps": ["8/255"], "seeds": 1, "n_examples": 20}
        short = {"recipe": "sre2l", "recipe_values": {"epochs": 1}, "teacher": teacher[0]}
        return benchmark_distilled([pixels], subject={}, **shared, **short, out=Path(out), **options).results[
            "protocol"
        ]

    usual, none = protocol("usual"), protocol("none", teacher_normalization="none")
    assert usual["recipe"]["labels"]["normalization"] == USUAL.describe()
    assert "normalization" not in none["recipe"]["labels"]
    assert list(differing_settings(usual, none)) == ["recipe.labels.normalization"]
    with pytest.raises(UnusableInput, match="differs in recipe"):
        protocol("usual", teacher_normalization="none")


def test_what_is_usual_for_no_data_set_must_be_given(pixels, normalised, digits_test, teacher):
    mine = images_from_tensors(digits_test.pixels, digits_test.labels)
    with pytest.raises(UnusableInput, match="--teacher-normalization: no normalisation is usual for 'tensors'"):
        chosen(pixels, mine, teacher=teacher[0])
    chosen(pixels, mine, teacher=teacher[0], teacher_normalization=HALVES)
    chosen(normalised, mine, teacher=teacher[0])


def test_a_normalising_layer_in_the_teachers_file_must_agree(pixels, digits_test, teacher, tmp_path):
    layer = {"0.mean": torch.tensor(USUAL.mean), "0.std": torch.tensor(USUAL.std)}
    torch.save(layer | {f"1.{name}": value for name, value in teacher[1].state_dict().items()}, tmp_path / "t.pt")
    chosen(pixels, digits_test, teacher=tmp_path / "t.pt").check(pixels)
    with pytest.raises(UnusableInput, match="normalise by .*--teacher-normalization"):
        chosen(pixels, digits_test, teacher=tmp_path / "t.pt", teacher_normalization="none")


@pytest.mark.parametrize("option", ["teacher_arch", "teacher_normalization"])
def test_an_option_of_the_teacher_without_one_is_refused(pixels, digits_test, option):
    written = option.replace("_", "-")
    with pytest.raises(UnusableInput, match=f"expected a --teacher for --{written} MLP, got none"):
        label_sources(
            BenchmarkOptions(dataset="digits", arch=ARCH, attacks="fgsm", out="out", **{option: "MLP"}),
            [pixels],
            digits_test,
        )


def test_paths_may_be_texts_and_one_radius_no_list(pixels, teacher, tmp_path):
    torch.save((pixels.images, pixels.labels), "plain.pt")
    hooks = installed_plugins().hook
    (read,) = read_distilled(hooks, "plain", "plain.pt")
    given = {"dataset": "digits", "arch": ARCH, "attacks": "fgsm", "seeds": 1, "n_examples": 20}
    short = {"recipe": "sre2l", "recipe_values": {"epochs": 1}, "teacher": str(teacher[0])}
    subject = subject_of("plain", {Path("plain.pt"): [read]})
    for out, eps in (("number", 8 / 255), ("text", "8/255")):
        results = benchmark_distilled([read], subject=subject, out=out, eps=eps, **given, **short).results
        assert results["protocol"]["attacks"][0]["eps_value"] == 8 / 255 and (tmp_path / out / "results.json").exists()
    assert results["subject"]["path"] == "plain.pt"
