"""Distilled images, to look at."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file

__all__ = ["draw", "draw_all", "grid", "png_bytes", "rows_of_classes"]

_LEAST_PIXELS = 32
_GAP = 2
_WHITE = 1.0
_COLOUR_TYPES = {1: 0, 3: 2}  # PNG's: grey, RGB


def draw(above: DistilledSet, below: DistilledSet, file: Path) -> None:
    """Write a PNG with the images of two distilled sets, one above the other, a column per class.

    Args:
        above: The one on top.
        below: The other, of the same image size and classes.
        file: Where to write.

    Raises:
        UnusableInput: If the sets do not fit together, or the file cannot be written.
    """
    draw_all([above, below], file)


def draw_all(sets: Sequence[DistilledSet], file: Path) -> None:
    """Write a PNG with the images of distilled sets, one above the other, a column per class.

    Args:
        sets: From top to bottom, all of the same image size and classes.
        file: Where to write.

    Raises:
        UnusableInput: If the sets do not fit together, or the file cannot be written.
    """
    shapes = {(one.num_classes, *one.images.shape[1:]) for one in sets}
    if len(shapes) != 1:
        raise UnusableInput(
            f"one picture needs distilled sets of one (classes, channels, height, width), got {sorted(shapes)}"
        )
    classes = sets[0].num_classes
    parts: list[Tensor] = []
    for one in sets:
        rows = rows_of_classes(one)
        parts += [rows, torch.full_like(rows[:classes], _WHITE)]
    content = png_bytes(grid(torch.cat(parts[:-1]), classes))
    try:
        with atomic_file(file) as opened:
            opened.write(content)
    except OSError as error:
        raise UnusableInput(f"cannot write to {file}: {error.strerror}; name another file") from error


def rows_of_classes(distilled: DistilledSet, classes: int | None = None, rows: int | None = None) -> Tensor:
    """The images in pixel space, ordered so that each row of a grid holds one image of every class.

    Args:
        distilled: The set; of soft labels, the likeliest class counts.
        classes: Only the first so many classes.
        rows: Only so many images of each.

    Returns:
        Shape (rows * classes, channels, height, width), in [0, 1].

    Raises:
        UnusableInput: If a class has no image, or the images cannot be brought to pixel space.
    """
    labels = distilled.labels if distilled.labels.dim() == 1 else distilled.labels.argmax(dim=1)
    wanted = range(min(classes or distilled.num_classes, distilled.num_classes))
    by_class = [torch.nonzero(labels == c).flatten().tolist() for c in wanted]
    depth = min([len(members) for members in by_class] + ([rows] if rows else []))
    if not depth:
        raise UnusableInput("a picture needs an image of every class; this distilled set has classes without one")
    return distilled.pixels()[[members[i] for i in range(depth) for members in by_class]]


def grid(images: Tensor, columns: int) -> Tensor:
    """Put images beside and below each other on white; small ones are enlarged, so that 8x8 images can be seen.

    Args:
        images: Shape (rows * columns, channels, height, width), in [0, 1].
        columns: Images per row.

    Returns:
        Shape (channels, height, width), in [0, 1].
    """
    images = _enlarged(images)
    n, channels, height, width = images.shape
    rows = n // columns
    cells = torch.full((rows, columns, channels, height + _GAP, width + _GAP), _WHITE)
    cells[..., :height, :width] = images.reshape(rows, columns, channels, height, width)
    sheet = cells.permute(2, 0, 3, 1, 4).reshape(channels, rows * (height + _GAP), columns * (width + _GAP))
    return torch.nn.functional.pad(sheet, (_GAP, 0, _GAP, 0), value=_WHITE)


def png_bytes(image: Tensor) -> bytes:
    """Encode an image as PNG.

    Args:
        image: Shape (1 or 3, height, width), in [0, 1].

    Raises:
        UnusableInput: If it has another number of channels.
    """
    channels, height, width = image.shape
    if channels not in _COLOUR_TYPES:
        raise UnusableInput(f"pictures have 1 or 3 channels, got {channels}")
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).reshape(height, -1)
    # Each line of a PNG starts with its filter: 0, none.
    lines = torch.nn.functional.pad(levels, (1, 0)).contiguous().numpy().tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _enlarged(images: Tensor) -> Tensor:
    factor = max(1, _LEAST_PIXELS // images.shape[-1])
    return images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
