"""What a leaderboard says of its entries, for screen and page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guard_plugin.comparison.verdicts import points
from guard_plugin.evaluation.tables import number
from guard_plugin.leaderboard.ranking import AgainstFirst, Ranking, Row

__all__ = ["against_in_words", "interval_in_words", "notes", "sample_in_words", "setting_in_words", "version_of"]


def against_in_words(against: AgainstFirst) -> str:
    """Write how an entry stands to the first: "lower", "not told apart"."""
    return "no verdict: one set" if against.verdict == "no verdict" else against.verdict


def interval_in_words(against: AgainstFirst) -> str:
    """Write the figures behind that: "-2.7 [-4.4, -1.0]"."""
    one = against.difference
    if one:
        return f"{points(one.value)} [{points(one.low)}, {points(one.high)}]"
    return {"lower": "intervals apart", "not told apart": "intervals overlap"}.get(against.verdict, "")


def sample_in_words(row: Row) -> str:
    """Write how many sets and students there are."""
    reported = row.entry.reported
    sets = number(reported.count, "set") if reported.is_told else "sets not told"
    return f"{sets}, {number(len(reported.sets), 'student')}"


def setting_in_words(ranking: Ranking) -> str:
    """Write how all entries of a ranking were measured."""
    protocol = ranking.protocol
    recipe = protocol["recipe"] or {}
    return (
        f"{protocol['arch']} students, recipe {recipe.get('name')}, {recipe.get('epochs')} epochs; "
        f"{number(protocol['n_examples'], 'example')} of the {protocol.get('split', 'test')} split (SHA-256 "
        f"{protocol['data_sha256'][:12]}); ranked by accuracy under {ranking.ranked_by}"
    )


def notes(rankings: Sequence[Ranking]) -> list[str]:
    """Return sentences on how to read the rankings, and on what they do not show."""
    return [
        "Only entries of one table were measured in the same way, on the same images: figures of two tables do not "
        "rank methods.",
        "Accuracies are in percent, with 95 % intervals. The rank follows the mean, and a rank is no verdict.",
        'Against the first: where both have records, "lower" means that the 95 % interval of the difference in '
        "percent points, paired by example and not by distilled set, excludes 0; where one has "
        'none, that their intervals do not overlap. All others are "not told apart", marked by \N{ALMOST EQUAL TO} 1, '
        "which does not show that they are equal.",
        "The first is the best of those that were entered, in part by luck, and no interval is corrected for how many "
        "there are.",
        *_on_one_set(rankings),
        "Robust accuracy is against the attacks that were run: stronger ones can only lower it.",
        '"Verified from its records": accuracies and intervals were computed here from the outcome of each example in '
        "the entry's folder. "
        '"As reported": they are taken from a results.json alone, which was checked for contradictions; its intervals '
        "cannot be computed anew. Neither shows that an attack was run: benchmark the images again where that matters.",
        "Penalties, losses and flags are what results.json says; markers are bound to the distilled files by their "
        "SHA-256, ledgers are not.",
        *_on_versions(rankings),
    ]


def _on_one_set(rankings: Sequence[Ranking]) -> Iterator[str]:
    single = {row.entry.label for of in rankings for row in of.rows if row.entry.reported.count == 1}
    if single:
        yield (
            f"One distilled set only: {', '.join(sorted(single))}. Its figures hold for this set, and there is no "
            f"verdict: distil with 5 or more seeds, and benchmark them together (--distilled, repeated)."
        )


def _on_versions(rankings: Sequence[Ranking]) -> Iterator[str]:
    for ranking in rankings:
        found = dict.fromkeys(version_of(row) for row in ranking.rows)
        if len(found) > 1:
            yield f"{ranking.title}: the entries were computed with different versions: {', '.join(found)}."


def version_of(row: Row) -> str:
    """Write the version of what computed an entry."""
    versions = row.entry.reported.results["versions"]
    return f"guard-plugin {versions.get('guard_plugin')}, torch {versions.get('torch')}"
