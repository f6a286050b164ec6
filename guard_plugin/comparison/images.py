"""The distilled images that were benchmarked, where their files still exist."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.reading import Measured
from guard_plugin.distilled import DistilledSet, read_distilled, subject_of
from guard_plugin.drawing import draw_all, rows_of_classes, sheet
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.plugins import installed_plugins

__all__ = ["ImageSheet", "draw_distilled", "image_sheet"]

_CLASSES = 10
_ROWS = 5
_LARGEST = 64  # pixels per image on the page


class ImageSheet(NamedTuple):
    """Some images of a distilled set, a column per class: the PNG in base64, its size, and what it shows."""

    png: str
    width: int
    height: int
    caption: str


def image_sheet(benchmark: Measured) -> ImageSheet | str:
    """Draw some of a benchmark's distilled images, or return the reason why that cannot be done."""
    try:
        sets = _distilled_sets(benchmark)
        images = rows_of_classes(sets[0], _CLASSES, _ROWS)
        longest = max(images.shape[-2:])
        if longest > _LARGEST:
            size = [max(1, side * _LARGEST // longest) for side in images.shape[-2:]]
            images = torch.nn.functional.interpolate(images, size=size, mode="area")
        all_classes = sets[0].num_classes
        classes = min(_CLASSES, all_classes)
        drawn = sheet(images, classes)
    except GuardError as error:
        return str(error)
    png = io.BytesIO()
    drawn.save(png, format="PNG")
    which = "all" if classes == all_classes else f"the first {classes} of {all_classes}"
    caption = f"{which} classes, {len(images) // classes} of each"
    if len(sets) > 1:
        caption += f"; first of {len(sets)} sets"
    return ImageSheet(base64.b64encode(png.getvalue()).decode(), drawn.width, drawn.height, caption)


def draw_distilled(comparison: Comparison, file: Path) -> None:
    """Write a PNG with the images of each benchmark's first distilled set, one above the other, each with its label.

    Raises:
        GuardError: If a benchmark is not one of distilled images, its file is gone or has changed, or the sets do not
            fit together.
    """
    draw_all({label: _distilled_sets(benchmark)[0] for label, benchmark in comparison.benchmarks.items()}, file)


def _distilled_sets(benchmark: Measured) -> list[DistilledSet]:
    """Read the distilled sets that were benchmarked, and refuse them if their files have changed since."""
    subject = benchmark.results["subject"]
    if subject["kind"] != "distilled":
        raise UnusableInput(f"{benchmark.folder} is a benchmark of a {subject['kind']}: it has no distilled images")
    paths = [Path(path) for path in subject.get("paths") or [subject["path"]]]
    try:
        return _read_sets(benchmark, paths)
    except OSError as error:
        where = ", ".join(map(str, paths))
        raise UnusableInput(f"the distilled images at {where} cannot be read: {error.strerror or error}") from error


def _read_sets(benchmark: Measured, paths: Sequence[Path]) -> list[DistilledSet]:
    """Read them from these paths; OSError is raised where one may not be looked at."""
    subject = benchmark.results["subject"]
    gone = [str(path) for path in paths if not path.exists()]
    if gone:
        raise UnusableInput(f"the distilled images are no longer at {', '.join(gone)}, seen from the current folder")
    found = {path: read_distilled(installed_plugins().hook, subject["adapter"], path) for path in paths}
    if subject_of(subject["adapter"], found)["sha256"] != subject["sha256"]:
        raise UnusableInput(f"{', '.join(map(str, paths))} has changed since it was benchmarked (its SHA-256 differs)")
    dataset = subject.get("dataset") or benchmark.protocol["dataset"]
    return [distilled.for_dataset(dataset) for sets in found.values() for distilled in sets]
