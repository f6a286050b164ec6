"""``guard compare``."""

import json
from pathlib import Path

import click

__all__ = ["compare"]


@click.command()
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one page that needs no network to this file."
)
@click.option(
    "--png", type=click.Path(path_type=Path, dir_okay=False), help="Write the distilled images, one above the other."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("folders", metavar="DIR DIR [DIR]...", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(folders: tuple[Path, ...], html: Path | None, png: Path | None, as_json: bool) -> None:
    """Compare finished benchmarks (each DIR was an --out of guard benchmark) with the first of them.

    Prints accuracies, and differences that are paired by student and example, with 95 % intervals.
    """
    from guard_plugin import comparison

    compared = comparison.compare([comparison.read_benchmark(folder) for folder in folders])
    if html:
        comparison.write_page(compared, html)
    if png:
        comparison.draw_distilled(list(compared.benchmarks.values()), png)
    if as_json:
        click.echo(json.dumps(comparison.comparison_json(compared)))
        return
    click.echo(comparison.comparison_text(compared))
    written = [str(file) for file in (html, png) if file]
    if written:
        click.echo(f"\nfiles: {', '.join(written)}")
