"""``guard compare``."""

from __future__ import annotations

from pathlib import Path

import click

from guard_plugin.commands.options import Command, any_file, any_path, json_option, show

__all__ = ["compare"]


@click.command(cls=Command)
@click.option("--html", type=any_file, help="Write one page that needs no network to this file.")
@click.option("--png", type=any_file, help="Write the distilled images, one above the other, to this file.")
@click.option(
    "--unpaired-sets",
    is_flag=True,
    help="The DIRs' distilled sets have no seeds in common (most hosts take none): pair examples alone.",
)
@json_option
@click.argument("folders", metavar="DIR DIR [DIR]...", nargs=-1, required=True, type=any_path)
def compare(folders: tuple[Path, ...], html: Path | None, png: Path | None, unpaired_sets: bool, as_json: bool) -> None:
    """Compare finished benchmarks (each DIR was an --out of guard benchmark) with the first of them.

    Prints accuracies, and differences that are paired by distilled set and example, with 95 % intervals. A folder with
    one distilled set shows what this set is worth, not the method: there is no verdict then. Sets are paired in the
    order of --distilled: give those of one seed the same place, or pass --unpaired-sets.
    """
    from guard_plugin import comparison

    comparison.check_outputs(folders, html=html, png=png)
    benchmarks = [comparison.read_benchmark(folder) for folder in folders]
    compared = comparison.compare(benchmarks, pair_sets=not unpaired_sets)
    if html:
        comparison.write_page(compared, html)
    if png:
        comparison.draw_distilled(compared, png)
    written = [str(file) for file in (html, png) if file]
    files = f"\n\nfiles: {', '.join(written)}" if written else ""
    show(comparison.comparison_json(compared), f"{comparison.comparison_text(compared)}{files}", as_json)
