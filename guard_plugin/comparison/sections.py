"""The sections of the page below its verdict and its table."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from guard_plugin.comparison.beard import BeardScores, beard_scores
from guard_plugin.comparison.charts import Point, Series, curve_chart
from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.markup import DASH, Content, Markup, tag, typeset
from guard_plugin.comparison.pictures import Picture, picture_of
from guard_plugin.comparison.tables import attack_table, scrolling, settings_table

__all__ = ["beard", "curves", "ledgers", "listed", "pictures", "protocol", "section"]

_SEVERAL_EPS = "Bands are 95 % intervals at the eps that were measured; between these, lines only guide the eye."
_ONE_EPS = "Where one eps was measured, there are points with bars and no curve: name several to --eps for that."


def section(title: str, *content: Content) -> Markup:
    """A section under a heading."""
    return tag("section", tag("h2", title), *content)


def listed(lines: Sequence[str], class_: str | bool = False) -> Markup:
    """A list."""
    return tag("ul", (tag("li", line) for line in lines), class_=class_)


def curves(comparison: Comparison) -> Markup:
    """Accuracy against eps: a chart for the worst cases and for each attack, and norm."""
    charts: dict[tuple[str, str], list[Column]] = {}
    for column in sorted(comparison.columns, key=lambda column: column.kind != "worst"):
        if column.eps_value is not None:
            charts.setdefault((column.attack, (column.norm or "").capitalize()), []).append(column)
    figures = (
        tag("figure", curve_chart(f"chart-{i}", attack, norm, _series(comparison, columns)))
        for i, ((attack, norm), columns) in enumerate(charts.items(), start=1)
    )
    counts = [len(columns) for columns in charts.values()]
    told = [_SEVERAL_EPS] * (max(counts) > 1) + [_ONE_EPS] * (min(counts) == 1) + ["At eps 0: clean accuracy."]
    return section("Accuracy against eps", tag("p", typeset(" ".join(told))), tag("div", figures, class_="charts"))


def _series(comparison: Comparison, columns: Sequence[Column]) -> list[Series]:
    measured = sorted((column.eps_value or 0.0, str(column.eps), column.name) for column in columns)
    return [
        Series(
            label,
            index,
            tuple(_point(comparison, label, name, eps, value) for value, eps, name in ((0.0, "0", "clean"), *measured)),
        )
        for index, label in enumerate(comparison.benchmarks)
    ]


def _point(comparison: Comparison, label: str, column: str, eps: str, value: float) -> Point:
    entry = comparison.accuracy[column][label]
    return Point(eps, value, entry["mean"], *entry["ci95"])


def pictures(comparison: Comparison) -> Markup:
    """The distilled images side by side, or why there are none."""
    figures = [_figure(label, picture_of(one)) for label, one in comparison.benchmarks.items()]
    return section("Distilled images", tag("div", figures, class_="pictures"))


def _figure(label: str, picture: Picture | str) -> Markup:
    if isinstance(picture, str):
        return tag(
            "figure", tag("figcaption", tag("strong", label)), tag("p", f"No images: {picture}.", class_="absent")
        )
    classes = f"the first {picture.classes} of {picture.of_classes}" if picture.of_classes > picture.classes else "all"
    told = f"{classes} classes, {picture.rows} of each" + (
        f"; first of {picture.sets} sets" if picture.sets > 1 else ""
    )
    image = tag(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(picture.png).decode()}",
        alt=f"Distilled images of {label}, a column per class: {told}",
        width=picture.width,
        height=picture.height,
    )
    return tag("figure", tag("figcaption", tag("strong", label), f" {DASH} {told}"), image)


def ledgers(comparison: Comparison) -> Markup:
    """What the ledgers of the distilling runs tell."""
    found = {label: one.results.get("ledger") for label, one in comparison.benchmarks.items()}
    told = [
        f"{label}: {ledger.get('summary', 'no summary')}"
        if isinstance(ledger, Mapping)
        else f"{label}: no ledger was given (guard benchmark --ledger), so nothing here shows whether a penalty acted."
        for label, ledger in found.items()
    ]
    known = {label: _of_ledger(ledger) for label, ledger in found.items() if isinstance(ledger, Mapping)}
    table = settings_table("What the ledgers of the distilling runs say", known) if known else ""
    return section("What the penalty did", listed(told), table)


def _of_ledger(ledger: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("adapter", "script", "outcome", "penalty", "loss_calls", "penalty_value", "host", "versions")
    return {key: ledger[key] for key in keys if key in ledger}


def protocol(comparison: Comparison) -> Markup:
    """What was measured, and every setting of how."""
    shared = {key: value for key, value in comparison.protocol.items() if key not in ("attacks", "normalization")}
    # Students may learn at a rate that was learned along with the images: as these, it is the folder's own.
    shared["recipe"] = {key: value for key, value in (shared["recipe"] or {}).items() if key != "learning_rate"}
    own = {
        label: {
            **one.results["subject"],
            "normalization": one.protocol.get("normalization"),
            "learning_rate": (one.protocol["recipe"] or {}).get("learning_rate"),
        }
        for label, one in comparison.benchmarks.items()
    }
    return section(
        "Protocol",
        settings_table("What was measured", own),
        settings_table("How: the same for every folder", {"": shared}),
        attack_table(comparison.protocol["attacks"]),
        settings_table(
            "What computed it", {label: one.results["versions"] for label, one in comparison.benchmarks.items()}
        ),
    )


def beard(comparison: Comparison) -> Markup:
    """The figures of BEARD, folded away."""
    why = (
        "RR is not a level of robustness: it only tells how much the attacks differ from each other, and is 0 wherever "
        "they all do the same, on a robust model too. AE is made of seconds, which depend on the machine, and on which "
        "examples an attack skips: ours skip those that are wrong already, BEARD's do not. CREI is their mean. With "
        "one attack, RR is 0 and AE 100 whatever the model. The clean time is of one run, not the least of two."
    )
    head = tag(
        "tr",
        (
            tag("th", name, scope="col", class_="number" if name in ("RR", "AE", "CREI") else False)
            for name in ("Folder", "Ball", "Attacks", "RR", "AE", "CREI")
        ),
    )
    rows = (_beard_row(label, one) for label, scores in beard_scores(comparison).items() for one in scores)
    return section(
        "Other summaries",
        tag(
            "details",
            tag("summary", "RR, AE and CREI: for compatibility with BEARD, not for ranking"),
            tag("p", why),
            scrolling(f"BEARD's figures, times 100; {DASH} where they are not defined", head, rows),
        ),
    )


def _beard_row(label: str, one: BeardScores) -> Markup:
    figures = (DASH if value is None else f"{value:.1f}" for value in (one.rr, one.ae, one.crei))
    return tag(
        "tr",
        tag("th", label, scope="row"),
        tag("td", one.ball),
        tag("td", str(one.attacks)),
        (tag("td", figure, class_="number") for figure in figures),
    )
