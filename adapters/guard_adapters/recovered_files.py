"""The images that SRe2L, CDA, SCDD and our own baselines of their shape recover.

``{--syn-data-path}/{--exp-name}/new{c:03d}/class{c:03d}_id{i:03d}.jpg``; five digits for the class in ImageNet-21K.
Images are in the order of their paths, which is torchvision's ``ImageFolder``'s and so that of stored soft labels.
"""

import re
from dataclasses import replace
from pathlib import Path

from guard_adapters.normalizations import RECOVERY_DATASETS
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.plain import read_labelled_images
from guard_plugin.errors import UnusableInput

__all__ = ["read_recovered"]

# The scripts that train students for a data set, where these are not those for ImageNet.
_RECIPES = {"CIFAR10": "sre2l-cifar", "CIFAR100": "sre2l-cifar", "TinyImageNet": "sre2l-tiny"}

_FOLDER = re.compile(r"new(\d{3}|\d{5})")
_FILE = re.compile(r"class(\d{3}|\d{5})_id(\d{3,})\.jpg")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # ImageFolder takes these


def read_recovered(path: Path) -> list[DistilledSet]:
    """Read one distilled set: the images as pixels, with their folders' classes.

    The files do not tell the data set. Once it is known, ``DistilledSet.for_dataset`` normalises as the hosts do, and
    chooses the recipe.

    Args:
        path: The folder that holds new000 and so on.

    Raises:
        UnusableInput: If folders or files are not those of a host, are missing, or do not fit together.
    """
    folders = _class_folders(path)
    labels = {file: c for c, folder in enumerate(folders) for file in _image_files(folder, c)}
    pixels = read_labelled_images(labels, len(folders), "JPEG")
    spaces = {
        name: host.normalization
        for name, host in RECOVERY_DATASETS.items()
        if len(host.normalization.mean) == pixels.images.shape[1] and len(folders) in host.num_classes
    }
    return [replace(pixels, recipe="sre2l", input_spaces=spaces, recipes=_RECIPES)]


def _class_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UnusableInput(f"expected the folder that holds new000 and so on, got {path}, which is no folder")
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    strange = next((folder for folder in folders if not _FOLDER.fullmatch(folder.name)), None)
    if not folders or strange:
        raise UnusableInput(
            f"expected a folder with one folder per class, new000, new001 and so on, as recover writes it into "
            f"SYN_DATA_PATH/EXP_NAME; found {strange or 'none'} in {path}"
        )
    for c, folder in enumerate(folders):
        if int(folder.name.removeprefix("new")) != c:
            expected = f"new{c:0{len(folder.name) - 3}d}"
            raise UnusableInput(
                f"expected in {path} after {c} of them {expected}, found {folder.name}: was the recovery stopped?"
            )
    return folders


def _image_files(folder: Path, c: int) -> list[Path]:
    expected = f"expected images such as class{folder.name[3:]}_id000.jpg in {folder}"
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match is None or int(match[1]) != c or file.parent != folder:
            raise UnusableInput(
                f"{expected}, found {file.relative_to(folder)}: move it, or the host's own code trains on it too"
            )
    if not files:
        raise UnusableInput(f"{expected}, found none")
    return files
