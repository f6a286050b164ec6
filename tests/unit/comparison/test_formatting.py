from guard_plugin.comparison.page import typeset
from guard_plugin.comparison.verdicts import points
from guard_plugin.evaluation.tables import percent


def test_percent_has_one_decimal():
    assert [percent(value) for value in (0.7678, 1.0, 0.0)] == ["76.8", "100.0", "0.0"]


def test_points_have_no_sign_at_zero():
    assert [points(value) for value in (0.0271, -0.005, -0.0001)] == ["+2.7", "-0.5", "0.0"]


def test_signs_are_set_before_numbers_only():
    assert typeset("a-b, -0.5 to +1.5, 95 %, n-1") == ("a-b, \N{MINUS SIGN}0.5 to +1.5, 95\N{NO-BREAK SPACE}%, n-1")
