import pytest

from guard_plugin.demo import RecoverySettings, settings_for
from guard_plugin.errors import UnusableInput


def test_dc_recommends_a_curvature_penalty_and_given_settings_come_first():
    assert settings_for("digits", "dc", h=2.0).penalty_options() == {
        "penalty": "curvature",
        "strength": 100.0,
        "h": 2.0,
        "form": "gradient",
    }
    assert settings_for("digits", "dc", penalty="gradient_norm", strength=0.1).penalty_options() == {
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
    with pytest.raises(UnusableInput, match="--lr-img is not for --method sre2l"):
        settings_for("digits", "sre2l", lr_img=2.0)


def test_a_demo_has_several_sets_per_arm_and_runs_the_papers_main_method():
    settings = settings_for("digits")
    assert settings.method == "sre2l" and settings.experiments > 1 and settings.students >= settings.experiments


def test_an_unknown_method_is_refused():
    with pytest.raises(UnusableInput, match="expected method sre2l or cda, got 'mtt'"):
        RecoverySettings(method="mtt")
