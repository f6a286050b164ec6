from guard_plugin.comparison.markup import Markup, tag, typeset


def test_text_and_attributes_are_escaped_and_markup_is_not():
    inner = tag("b", '<&"')
    assert inner == "<b>&lt;&amp;&quot;</b>" and isinstance(inner, Markup)
    assert tag("p", inner, ["x", ("<", inner)], title='"<') == f'<p title="&quot;&lt;">{inner}x&lt;{inner}</p>'


def test_attributes_are_spelled_as_in_html():
    assert tag("th", class_="number", aria_label="x", hidden=True, scope=False) == (
        '<th class="number" aria-label="x" hidden></th>'
    )
    assert tag("line", x1=1.0, x2=1 / 3) == '<line x1="1" x2="0.3333"/>'


def test_signs_are_set_before_numbers_only():
    assert typeset("a-b, -0.5 to +1.5, 95 %, n-1") == ("a-b, \N{MINUS SIGN}0.5 to +1.5, 95\N{NO-BREAK SPACE}%, n-1")
