import json

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge import write_model_info

KEYS = [
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "corruptions_acc",
    "corruptions_acc_3d",
    "corruptions_mce",
    "corruptions_mce_3d",
    "autoattack_acc",
    "footnote",
]


def test_a_new_file_has_all_keys_and_percentages(tmp_path):
    path = write_model_info("digits", "Linf", "Mine", clean=0.98765, robust=1 / 3, eps=8 / 255)
    assert str(path) == "model_info/digits/Linf/Mine.json"
    known = json.loads((tmp_path / path).read_text())
    assert list(known) == KEYS
    assert {key: value for key, value in known.items() if value is not None} == {
        "dataset": "digits",
        "eps": 8 / 255,
        "clean_acc": "98.77",
        "autoattack_acc": "33.33",
    }


def test_a_file_keeps_what_the_measurement_does_not_know(tmp_path):
    path = tmp_path / "model_info" / "cifar10" / "L2" / "Mine.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"link": "https://example.org", "autoattack_acc": "1.0", "external": "0.5"}))
    write_model_info("cifar10", "L2", "Mine", clean=0.5, robust=0.25, eps=0.5)
    assert json.loads(path.read_text()) == {
        "link": "https://example.org",
        "autoattack_acc": "25.0",
        "external": "0.5",
        "dataset": "cifar10",
        "eps": 0.5,
        "clean_acc": "50.0",
    }


def test_both_kinds_of_corruptions_share_a_file():
    write_model_info("imagenet", "corruptions", "Mine", clean=0.5, robust=0.4, mce=0.9)
    path = write_model_info("imagenet", "corruptions_3d", "Mine", clean=0.5, robust=0.3, mce=1.1)
    known = json.loads(path.read_text())
    assert (known["corruptions_acc"], known["corruptions_mce"]) == ("40.0", "90.0")
    assert (known["corruptions_acc_3d"], known["corruptions_mce_3d"]) == ("30.0", "110.0")


def test_what_is_not_measured_keeps_its_value(tmp_path):
    path = tmp_path / "model_info" / "cifar10" / "corruptions" / "Mine.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"eps": "8/255"}))
    write_model_info("cifar10", "corruptions", "Mine", clean=0.5, robust=0.4)
    assert json.loads(path.read_text())["eps"] == "8/255"


def test_an_unknown_mce_stays_null():
    path = write_model_info("cifar10", "corruptions", "Mine", clean=0.5, robust=0.4, mce=None)
    assert json.loads(path.read_text())["corruptions_mce"] is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("digits", "L1", "Mine"), "unknown threat model 'L1': expected one of L2, Linf, corruptions, corruptions_3d"),
        (("digits", "Linf", "../Mine"), "a name that a file can have.*'../Mine'"),
        (("..", "Linf", "Mine"), "a name that a file can have.*'..'"),
    ],
)
def test_unusable_names_are_refused(tmp_path, names, message):
    with pytest.raises(UnusableInput, match=message):
        write_model_info(*names, clean=0.5, robust=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "model_info" / "digits" / "Linf" / "Mine.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UnusableInput, match="Mine.json"):
        write_model_info("digits", "Linf", "Mine", clean=0.5, robust=0.5, eps=0.1)
    assert path.read_text() == text
