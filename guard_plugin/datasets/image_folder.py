"""Folders of pictures, one per class: ImageNet and its subsets, Tiny-ImageNet, or the user's own."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guard_plugin.datasets.images import Part, Source, data_folder, fixed_order, package
from guard_plugin.datasets.pictures import read_pictures
from guard_plugin.errors import UnusableInput

__all__ = ["folder_source"]

_FILES = "train/ and val/ or test/, each with one folder of pictures per class"
_ANNOTATIONS = "val_annotations.txt"
_NAMED = 3  # of the folders that differ


def folder_source(name: str, data_dir: Path | str | None, size: int | None) -> Source:
    """Open a folder of pictures.

    Pictures are listed as torchvision's ``ImageFolder`` does, converted to RGB, and ordered by
    ``numpy.random.RandomState(0).permutation(n)``. The test split is test/, or, where there is none, val/. In
    Tiny-ImageNet's own layout, with val/images and val/val_annotations.txt, it is val/, since test/ has no labels.

    Args:
        name: "ImageFolder", or "TinyImageNet", for which the folder tiny-imagenet-200 in ``data_dir`` will do too.
        data_dir: The folder that holds train/ and so on.
        size: As for ``read_pictures``.

    Raises:
        UnusableInput: If folders are missing, or the parts' classes differ.
    """
    root = data_folder(name, data_dir, _FILES)
    published = root / "tiny-imagenet-200"
    root = published if name == "TinyImageNet" and published.is_dir() else root
    folders = {part: root / part for part in ("train", "val", "test") if (root / part).is_dir()}
    if "test" not in folders or _annotations(root / "val"):
        folders["test"] = folders.pop("val", root / "val")
    if not folders["test"].is_dir():
        raise UnusableInput(f"expected {_FILES}, in {root}; found neither val/ nor test/")
    classes = _classes(folders["test"])
    for folder in folders.values():
        _check_classes(folder, folders["test"], _classes(folder), classes)
    return {part: partial(_part, name, folder, classes, size) for part, folder in folders.items()}


def _annotations(folder: Path) -> Path | None:
    """The file that tells the classes of Tiny-ImageNet's val/, in its own layout."""
    return folder / _ANNOTATIONS if (folder / _ANNOTATIONS).is_file() and (folder / "images").is_dir() else None


def _annotated(file: Path) -> list[tuple[Path, str]]:
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line]
    if not lines or any(len(line) < 2 for line in lines):
        raise UnusableInput(f"{file}: expected lines of a picture's name, a tab and its class, as Tiny-ImageNet has")
    return [(file.parent / "images" / line[0], line[1]) for line in lines]


def _classes(folder: Path) -> list[str]:
    annotations = _annotations(folder)
    if annotations:
        return sorted({name for _, name in _annotated(annotations)})
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _check_classes(folder: Path, test: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    if len(found) < 2:
        raise UnusableInput(
            f"expected one folder per class, two or more, in {folder}; found {', '.join(found) or 'none'}"
        )
    differing = sorted(set(found) ^ set(expected))
    if differing:
        named = ", ".join(differing[:_NAMED]) + (" and more" if len(differing) > _NAMED else "")
        raise UnusableInput(
            f"expected the same classes in {folder} and {test}, got {len(found)} and {len(expected)}; in one of them "
            f"only: {named}. Their order gives the classes their numbers, so both must be complete"
        )


def _part(name: str, folder: Path, classes: Sequence[str], size: int | None) -> Part:
    package("PIL.Image", "bench")
    datasets = package("torchvision.datasets", "bench")
    files = _files(datasets, folder, classes)

    def item(number: int) -> tuple[Any, int]:
        file, label = files[number]
        return datasets.folder.default_loader(str(file)), label

    def call(number: int) -> str:
        return str(files[number][0])

    read = partial(read_pictures, item, name=name, call=call, size=size)
    return Part(fixed_order(len(files)), len(classes), read)


def _files(datasets: Any, folder: Path, classes: Sequence[str]) -> Sequence[tuple[Path | str, int]]:
    annotations = _annotations(folder)
    if annotations:
        number = {name: index for index, name in enumerate(classes)}
        return [(file, number[name]) for file, name in _annotated(annotations)]
    try:
        files: Sequence[tuple[str, int]] = datasets.ImageFolder(str(folder)).samples
    except OSError as error:
        raise UnusableInput(f"{folder} cannot be read as folders of pictures, one per class: {error}") from error
    return files
