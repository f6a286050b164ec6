"""The comparison as one HTML page that needs nothing but itself: no network, no scripts."""

from importlib import resources
from pathlib import Path

from guard_plugin import __version__
from guard_plugin.comparison.charts import marker
from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.markup import Markup, tag, typeset
from guard_plugin.comparison.sections import beard, curves, ledgers, listed, pictures, protocol, section
from guard_plugin.comparison.tables import accuracy_table, cost_table
from guard_plugin.comparison.words import counted_networks, notes, verdicts
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file

__all__ = ["comparison_page", "write_page"]

# Even where text from a file got past the escaping, a browser would run and fetch nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MOST_NAMED = 2


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page.

    Raises:
        UnusableInput: If the file cannot be written.
    """
    content = comparison_page(comparison).encode()
    try:
        with atomic_file(file) as opened:
            opened.write(content)
    except OSError as error:
        raise UnusableInput(f"cannot write to {file}: {error.strerror}; name another file") from error


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML."""
    others = comparison.others
    compared = " and ".join(others) if len(others) <= _MOST_NAMED else f"{len(others)} others"
    title = f"Robustness of {compared} against {comparison.first}"
    style = resources.files("guard_plugin.comparison").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"guard-plugin {__version__}"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag(
        "div",
        _header(title, comparison),
        tag(
            "main",
            _flags(comparison),
            _verdicts(comparison),
            section(
                "Accuracy", accuracy_table(comparison), listed([typeset(line) for line in notes(comparison)], "notes")
            ),
            curves(comparison),
            pictures(comparison),
            ledgers(comparison),
            protocol(comparison),
            section("Cost", cost_table(comparison)),
            beard(comparison),
        ),
        tag("footer", f"Written by guard-plugin {__version__} (guard compare), from the records in the folders above."),
        class_="page",
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _header(title: str, comparison: Comparison) -> Markup:
    settings = comparison.protocol
    attacks = dict.fromkeys(str(attack["name"]) for attack in settings["attacks"])
    lede = (
        f"{settings['dataset']}, {settings['n_examples']} {settings.get('split', 'test')} examples; "
        f"{settings['arch']}, {counted_networks(comparison)} per folder; attacked with {', '.join(attacks)}."
    )
    return tag(
        "header",
        tag("p", "guard compare", class_="kicker"),
        tag("h1", title),
        tag("p", lede, class_="lede"),
        _legend(comparison),
    )


def _legend(comparison: Comparison) -> Markup:
    return tag(
        "ul",
        (
            tag(
                "li",
                marker(i),
                tag("span", tag("strong", label), " ", tag("span", str(one.folder.resolve()), class_="small code")),
            )
            for i, (label, one) in enumerate(comparison.benchmarks.items())
        ),
        class_="legend",
    )


def _verdicts(comparison: Comparison) -> Markup:
    told = (
        (tag("p", one.headline, class_="headline"), listed([typeset(line) for line in one.details]))
        for one in verdicts(comparison)
    )
    return tag("section", tag("h2", "Verdict"), *told, class_="verdict")


def _flags(comparison: Comparison) -> Markup:
    flags = [
        f"{label}, {column}: {reason}" for label, one in comparison.benchmarks.items() for column, reason in one.flags
    ]
    if not flags:
        return Markup()
    title = tag("h2", "Do not trust these figures as they are")
    return tag("section", title, listed(flags), class_="flags")
