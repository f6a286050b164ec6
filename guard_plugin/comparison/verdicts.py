"""What a comparison says of each benchmark, in words that claim no more than was measured."""

from collections.abc import Sequence
from typing import NamedTuple

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.results_file import Column
from guard_plugin.evaluation.tables import percent

__all__ = ["Verdict", "listed", "points", "unit_noun", "verdicts"]


class Verdict(NamedTuple):
    """One sentence on a benchmark's robustness, and sentences with the figures behind it and on clean accuracy."""

    headline: str
    details: list[str]


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    """Return label -> verdict for each benchmark but the first, with which it is compared."""
    worst = [column for column in comparison.columns if column.kind == "worst"]
    flagged = {label for label, _, _ in comparison.flags}
    found = {}
    for label in comparison.others:
        alone = [one for one in (label, comparison.first) if comparison.benchmarks[one].count == 1]
        headline = _no_verdict(comparison, label, alone) if alone else _headline(comparison, label, worst)
        if flagged & {comparison.first, label}:
            headline = f"On flagged figures: {headline}"
        details = [*(_robustness(comparison, label, column) for column in worst), _clean(comparison, label)]
        found[label] = Verdict(headline, details)
    return found


def _no_verdict(comparison: Comparison, label: str, alone: Sequence[str]) -> str:
    return (
        f"No verdict on {label} against {comparison.first}: of {listed(alone)} there is one {unit_noun(comparison)} "
        f"only, and what another would give is not seen."
    )


def _headline(comparison: Comparison, label: str, worst: Sequence[Column]) -> str:
    first = comparison.first
    by_sign: dict[int, list[Column]] = {1: [], -1: [], 0: []}
    for column in worst:
        by_sign[comparison.differences[column.name][label].sign].append(column)
    undecided = by_sign[0]
    if len(undecided) == len(worst):
        where = f" at {_balls(undecided)}" if len(undecided) == 1 else " at any eps"
        return f"No difference in robustness between {label} and {first} could be shown{where}."
    claims = [
        f"{claim} than {first} at {_balls(by_sign[sign])}"
        for sign, claim in ((1, "more robust"), (-1, "less robust"))
        if by_sign[sign]
    ]
    rest = f"; at {_balls(undecided)} no difference could be shown" if undecided else ""
    return f"{label} is {' and '.join(claims)}{rest}."


def _balls(columns: Sequence[Column]) -> str:
    """Write the balls with each norm once: "eps 4/255 and 8/255 (Linf)"."""
    by_norm: dict[str, list[str]] = {}
    for column in columns:
        by_norm.setdefault(column.norm_label, []).append(str(column.eps))
    return " and ".join(f"eps {listed(eps)} ({norm})" for norm, eps in by_norm.items())


def listed(words: Sequence[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _robustness(comparison: Comparison, label: str, column: Column) -> str:
    means = [comparison.accuracy[column.name][one]["mean"] for one in (label, comparison.first)]
    text = f"Under every attack at {column.ball}: {_figures(comparison, label, column.name)}."
    return text + (" Both fail altogether: this eps cannot tell them apart." if means == [0, 0] else "")


def _clean(comparison: Comparison, label: str) -> str:
    one = comparison.differences["clean"][label]
    claim = {1: " is higher", -1: " is lower", 0: " shows no clear difference"}[one.sign] if one.is_judged else ""
    return f"Clean accuracy{claim}: {_figures(comparison, label, 'clean')}."


def _figures(comparison: Comparison, label: str, column: str) -> str:
    """Write both accuracies, and their difference with its interval."""
    mean, firsts = (comparison.accuracy[column][one]["mean"] for one in (label, comparison.first))
    one = comparison.differences[column][label]
    if one.is_judged:
        includes = ", which includes 0" if one.low <= 0 <= one.high else ""
        scope = f"{includes}; limited by the number of {one.limited_by}"
    else:
        scope = f" for one {unit_noun(comparison)} alone"
    return (
        f"{percent(mean)} % against {percent(firsts)} %, {points(one.value)} points "
        f"(95 % interval {points(one.low)} to {points(one.high)}{scope})"
    )


def unit_noun(comparison: Comparison) -> str:
    """Return what is independent of each other: a "distilled set", or a "network" that was given."""
    units = {benchmark.unit for benchmark in comparison.benchmarks.values()}
    return "distilled set" if units == {"sets"} else "network"


def points(fraction: float) -> str:
    """Write a difference in percent points, with its sign unless it is rounded to zero: "+2.7"."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text
