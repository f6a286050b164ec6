import math

import pytest

from guard_plugin.quantities import parse_number


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" .5 ", 0.5), ("1e-3", 1e-3), ("-1/4", -0.25), ("3.", 3.0)]
)
def test_numbers_and_fractions_are_read(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "8/", "/255", "1/0", "nan", "inf", "1e999", "8/255/2", "0x10", "8 / 255"])
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        assert math.isfinite(parse_number(text))
