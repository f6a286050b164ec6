"""Folders of images, one per class: ImageNet and its subsets, Tiny-ImageNet, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from guard_plugin.datasets.parts import SPLITS, Part, Source, data_folder, part_of_files
from guard_plugin.errors import UnusableInput, few
from guard_plugin.files import existing_file
from guard_plugin.image_files import check_class_names, rgb_image, upright
from guard_plugin.optional import require

__all__ = ["folder_source"]

_FILES = "train/ and val/ or test/, each with one folder of images per class"
_ANNOTATIONS = "val_annotations.txt"
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # not those that Pillow has a program read, as EPS


def folder_source(name: str, data_dir: Path | str | None, size: int | None, num_classes: int | None) -> Source:
    """Open folders of images.

    Files are listed as torchvision's ``ImageFolder`` does, turned upright as their EXIF data say, which it does not do,
    and converted to RGB. Classes with numbers whose order as text is another one are refused. The test split is test/,
    or val/ where there is no test/. In Tiny-ImageNet's own layout, with val/images and val/val_annotations.txt, the
    test split is val/, since test/ has no labels; ``data_dir`` may also hold that data set's folder tiny-imagenet-200.
    ``num_classes`` counts the classes where those of the last names have no folder.
    """
    root = data_folder(name, data_dir, _FILES)
    if name == "TinyImageNet" and (root / "tiny-imagenet-200").is_dir():
        root /= "tiny-imagenet-200"
    folders = {part: root / part for part in SPLITS if (root / part).is_dir()}
    if "test" not in folders or _has_annotations(root / "val"):
        folders["test"] = folders.pop("val", root / "val")
    if not folders["test"].is_dir():
        raise UnusableInput(f"expected {_FILES}, in {root}; found neither val/ nor test/")
    classes = _classes(folders["test"])
    check_class_names(classes, folders["test"])
    for folder in folders.values():
        found = _classes(folder)
        if len(found) < 2:
            raise UnusableInput(
                f"expected one folder per class, two or more, in {folder}; found {', '.join(found) or 'none'}"
            )
        differing = sorted(set(found) ^ set(classes))
        if differing:
            raise UnusableInput(
                f"expected the same classes in {folder} and {folders['test']}, got {len(found)} and {len(classes)}; in "
                f"one of them only: {few(differing)}. Their order gives the classes their numbers, so both must be "
                f"complete"
            )
    if num_classes is not None and num_classes < len(classes):
        raise UnusableInput(f"expected --num-classes >= {len(classes)}, the folders in {root}, got {num_classes}")
    total = num_classes or len(classes)
    return {part: partial(_part, name, folder, classes, total, size) for part, folder in folders.items()}


def _has_annotations(folder: Path) -> bool:
    """Tell whether a folder has the layout of val/ in Tiny-ImageNet as published."""
    return (folder / _ANNOTATIONS).is_file() and (folder / "images").is_dir()


def _annotated(folder: Path) -> list[tuple[Path, str]]:
    """Return the files that the annotations of Tiny-ImageNet list, each with the name of its class."""
    file = folder / _ANNOTATIONS
    try:
        lines = [line.split("\t") for line in existing_file(file).read_text(encoding="utf-8").splitlines() if line]
    except UnicodeDecodeError:
        lines = []
    if not lines or any(len(line) < 2 for line in lines):
        raise UnusableInput(f"{file}: expected lines of an image's name, a tab and its class, as Tiny-ImageNet has")
    return [(folder / "images" / line[0], line[1]) for line in lines]


def _classes(folder: Path) -> list[str]:
    if _has_annotations(folder):
        return sorted({name for _, name in _annotated(folder)})
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _part(name: str, folder: Path, classes: Sequence[str], num_classes: int, size: int | None) -> Part:
    loaders = require("torchvision.datasets.folder", needed_by="reading folders of images")
    pillow = require("PIL.Image", needed_by="reading folders of images")
    if _has_annotations(folder):
        files = [(str(file), classes.index(label)) for file, label in _annotated(folder)]
    else:
        try:
            files = loaders.ImageFolder(str(folder)).samples
        except OSError as error:
            raise UnusableInput(f"{folder} cannot be read as folders of images, one per class: {error}") from error

    def item(number: int) -> tuple[Any, int]:
        with pillow.open(existing_file(Path(files[number][0])), formats=_FORMATS) as image:
            return rgb_image(upright(image), files[number][0]), files[number][1]

    part = part_of_files(item, len(files), num_classes, dataset=name, name=lambda number: files[number][0], size=size)
    return replace(part, class_names=tuple(classes))
