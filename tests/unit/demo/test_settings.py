import pytest

from guard_plugin.demo import RecoverySettings, settings_for
from guard_plugin.errors import UnusableInput


def test_dc_recommends_a_curvature_penalty_and_given_settings_come_first():
    assert settings_for("digits", h=2.0).penalty_options() == {
        "penalty": "curvature",
        "strength": 100.0,
        "h": 2.0,
        "form": "gradient",
    }
    assert settings_for("digits", penalty="gradient_norm", strength=0.1).penalty_options() == {
        "penalty": "gradient_norm",
        "strength": 0.1,
    }


def test_for_a_recovery_the_adapter_recommends():
    assert settings_for("digits", "cda", form="loss").penalty_options() == {"penalty": "curvature", "form": "loss"}


def test_larger_data_sets_have_other_defaults_than_digits():
    assert settings_for("digits").students == 4 and settings_for("CIFAR10").students == 2
    assert settings_for("CIFAR10", "sre2l").arch == "ConvNetBN32-64-128"
    assert settings_for("CIFAR10", "sre2l", students=3).students == 3


def test_a_setting_of_another_method_is_refused():
    with pytest.raises(UnusableInput, match="--experiments is not for --method sre2l"):
        settings_for("digits", "sre2l", experiments=2)


def test_an_unknown_method_is_refused():
    with pytest.raises(UnusableInput, match="expected method sre2l or cda, got 'mtt'"):
        RecoverySettings(method="mtt")
