import math

import pytest

from guard_plugin.quantities import not_pixels, parse_number


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" .5 ", 0.5), ("1e-3", 1e-3), ("-1/4", -0.25), ("3.", 3.0)]
)
def test_numbers_and_fractions_are_read(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "8/", "/255", "1/0", "nan", "inf", "1e999", "8/255/2", "0x10", "8 / 255"])
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        assert math.isfinite(parse_number(text))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (-(2.0**-25), 1.0, "from -2.9802322e-08 to 1: they leave it by rounding alone: images.clamp"),
        (0.0, 1 + 2.0**-23, "from 0 to 1.0000001: they leave it by rounding alone: images.clamp"),
        (0.0, 1.00001, "from 0 to 1.00001: normalise"),
        (-0.1, 1.0, "from -0.1 to 1: normalise"),
        (math.nan, math.nan, "from nan to nan: normalise"),
    ],
)
def test_values_that_are_no_pixels_are_shown_with_what_exceeds(low, high, found):
    assert f"got values {found}" in not_pixels(low, high, otherwise="normalise")
