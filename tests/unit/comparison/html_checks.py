"""What a page may and may not hold, read with parsers of the standard library."""

import re
from xml.etree import ElementTree

SVG = ("svg", "title", "desc")


def parsed(page):
    """The page as a tree: it is written so that it is well-formed XML too."""
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!doctype html>"
    return ElementTree.fromstring(rest)


def custom_properties(page, dark):
    """The colours of one scheme."""
    style = parsed(page).find("head/style").text
    light, _, rest = style.partition("@media (prefers-color-scheme: dark)")
    properties = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    return (
        {**properties, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", rest.split("}")[0]))} if dark else properties
    )


def contrast(one, other):
    """WCAG 2's contrast ratio of two colours "#rrggbb"."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
