"""Drawing distilled images, so that a reader can look at them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file, explain_write_errors
from guard_plugin.optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_all", "rows_of_classes", "sheet"]

_LEAST_PIXELS = 32  # width to which smaller images are enlarged
_GAP = 2  # white pixels between images
_LABEL = 16  # height of a line of text
_WHITE = 1.0
_NEEDED_BY = "drawing images"


def draw_all(sets: Mapping[str, DistilledSet], file: Path) -> None:
    """Write a PNG with the images of distilled sets, one set below the other, a column per class.

    Args:
        sets: The sets by the label above each, from top to bottom, all of the same image size and classes.
        file: Where to write the PNG.

    Raises:
        UnusableInput: If the sets do not fit together, or the file cannot be written.
    """
    shapes = {(one.num_classes, *one.images.shape[1:]) for one in sets.values()}
    if len(shapes) != 1:
        raise UnusableInput(
            f"expected distilled sets that are all of one (classes, channels, height, width), got {sorted(shapes)}: "
            f"draw each of them into a file of its own"
        )
    sheets = {label: sheet(rows_of_classes(one), one.num_classes) for label, one in sets.items()}
    image = _labelled(sheets)
    with explain_write_errors(file, "Name another file"), atomic_file(file) as opened:
        image.save(opened, format="PNG")


def _labelled(sheets: Mapping[str, Image]) -> Image:
    """Put sheets of one width below each other, each under its label."""
    first = next(iter(sheets.values()))
    height = sum(one.height + _LABEL for one in sheets.values())
    image: Image = require("PIL.Image", needed_by=_NEEDED_BY).new(first.mode, (first.width, height), "white")
    pen, top = require("PIL.ImageDraw", needed_by=_NEEDED_BY).Draw(image), 0
    for label, one in sheets.items():
        written = label.encode("latin-1", "replace").decode("latin-1")  # Pillow's own font may have no other letters
        pen.text((_GAP, top + _GAP), written, "black")
        image.paste(one, (0, top + _LABEL))
        top += one.height + _LABEL
    return image


def rows_of_classes(distilled: DistilledSet, classes: int | None = None, rows: int | None = None) -> Tensor:
    """Return the images in pixel space, ordered so that each row of a sheet holds one image of every class.

    Args:
        distilled: The set. Where its labels are soft, the likeliest class of each image counts.
        classes: How many classes to take, from the first on; all by default.
        rows: How many images to take of each class; by default as many as the smallest class has.

    Returns:
        Shape (rows * classes, channels, height, width), in [0, 1].

    Raises:
        UnusableInput: If a class has no image, or the images cannot be brought to pixel space.
    """
    wanted = range(min(classes or distilled.num_classes, distilled.num_classes))
    by_class = [torch.nonzero(distilled.hard_labels == c).flatten().tolist() for c in wanted]
    depth = min([len(members) for members in by_class] + ([rows] if rows else []))
    if not depth:
        raise UnusableInput("expected an image of every class to draw; this distilled set has classes without one")
    return distilled.pixels()[[members[i] for i in range(depth) for members in by_class]]


def sheet(images: Tensor, columns: int) -> Image:
    """Put images beside and below each other on white, and enlarge small ones so that they can be seen.

    Args:
        images: Shape (rows * columns, 1 or 3 channels, height, width), in [0, 1].
        columns: Images per row.

    Returns:
        The sheet, with 8 bits per channel: grey or RGB.

    Raises:
        UnusableInput: If the images have another number of channels, or torchvision is not installed.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UnusableInput(f"expected images with 1 or 3 channels to draw, got {channels}")
    factor = max(1, _LEAST_PIXELS // images.shape[-1])
    enlarged = images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    make_grid = require("torchvision.utils", needed_by=_NEEDED_BY).make_grid
    # make_grid returns three channels also of grey images.
    grid: Tensor = make_grid(enlarged, nrow=columns, padding=_GAP, pad_value=_WHITE)[:channels]
    levels = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
    image: Image = require("PIL.Image", needed_by=_NEEDED_BY).fromarray(levels)
    return image
