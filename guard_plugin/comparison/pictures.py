"""The distilled images behind the benchmarks, where their files are still there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from guard_plugin.comparison.reading import Measured
from guard_plugin.distilled import DistilledSet, read_distilled, subject_of
from guard_plugin.drawing import draw_all, grid, png_bytes, rows_of_classes
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.plugins import Plugins, installed_plugins

__all__ = ["Picture", "draw_distilled", "picture_of"]

_CLASSES = 10
_ROWS = 5
_LARGEST = 64  # pixels per image on the page


@dataclass(frozen=True)
class Picture:
    """Some of the images of a distilled set.

    Args:
        png: The sheet, a column per class.
        width: Its width in pixels.
        height: Its height.
        classes: How many classes are shown.
        of_classes: Of so many.
        rows: How many images of each.
        sets: Of how many distilled sets this is the first.
    """

    png: bytes
    width: int
    height: int
    classes: int
    of_classes: int
    rows: int
    sets: int


def picture_of(one: Measured) -> Picture | str:
    """Some of its distilled images, or why there are none."""
    try:
        sets = _distilled(one)
        distilled = sets[0]
        images = rows_of_classes(distilled, _CLASSES, _ROWS)
        longest = max(images.shape[-2:])
        if longest > _LARGEST:
            size = [max(1, side * _LARGEST // longest) for side in images.shape[-2:]]
            images = torch.nn.functional.interpolate(images, size=size, mode="area")
        classes = min(_CLASSES, distilled.num_classes)
        sheet = grid(images, classes)
        return Picture(
            png_bytes(sheet),
            sheet.shape[2],
            sheet.shape[1],
            classes,
            distilled.num_classes,
            len(images) // classes,
            len(sets),
        )
    except GuardError as error:
        return str(error)


def draw_distilled(benchmarks: Sequence[Measured], file: Path) -> None:
    """Write a PNG with the images of each benchmark's first distilled set, one above the other.

    Raises:
        GuardError: If one was not distilled, its file is gone or has changed, or they do not fit together.
    """
    draw_all([_distilled(one)[0] for one in benchmarks], file)


def _distilled(one: Measured) -> list[DistilledSet]:
    """The distilled sets that were benchmarked, if they are still what they were."""
    subject = one.results["subject"]
    if subject["kind"] != "distilled":
        raise UnusableInput(f"{one.folder} is a benchmark of a {subject['kind']}: it has no distilled images")
    path = Path(subject["path"])
    if not path.exists():
        raise UnusableInput(f"the distilled images are no longer at {path} (from {Path.cwd()})")
    sets = read_distilled(_plugins().hook, subject["adapter"], path)
    if subject_of(subject["adapter"], path, sets)["sha256"] != subject["sha256"]:
        raise UnusableInput(f"{path} has changed since it was benchmarked (its SHA-256 differs)")
    return [one_set.for_dataset(subject.get("dataset") or one.protocol["dataset"]) for one_set in sets]


@lru_cache(maxsize=1)
def _plugins() -> Plugins:
    return installed_plugins()
