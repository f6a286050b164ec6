"""The pictures that SRe2L, CDA, SCDD and our own baselines of their shape recover.

``{--syn-data-path}/{--exp-name}/new{c:03d}/class{c:03d}_id{i:03d}.jpg``; five digits for the class in ImageNet-21K.
Images are in the order of their paths, which is torchvision's ``ImageFolder``'s and so that of stored soft labels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_adapters.normalizations import RECOVERY_DATASETS
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import InputSpace, Normalization

__all__ = ["read_recovered"]

_FOLDER = re.compile(r"new(\d{3}|\d{5})")
_FILE = re.compile(r"class(\d{3}|\d{5})_id(\d{3,})\.jpg")
_PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # ImageFolder takes these


def read_recovered(path: Path) -> list[DistilledSet]:
    """Read one distilled set: pictures as pixels, with their folders' classes.

    The files do not tell the data set. Once it is known, ``DistilledSet.for_dataset`` normalises as the hosts do.

    Args:
        path: The folder that holds new000 and so on.

    Raises:
        UnusableInput: If folders or files are not those of a host, are missing, or do not fit together.
    """
    folders = _class_folders(path)
    files = [(file, c) for c, folder in enumerate(folders) for file in _pictures(folder, c)]
    images = _decoded([file for file, _ in files])
    channels = images.shape[1]
    return [
        DistilledSet(
            images=images,
            labels=torch.tensor([c for _, c in files]),
            num_classes=len(folders),
            normalization=Normalization((0.0,) * channels, (1.0,) * channels),
            recipe="sre2l",
            files=tuple(file for file, _ in files),
            input_spaces=_spaces(channels, len(folders)),
        )
    ]


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
                f"expected the folders of all classes, in {path}: after {c} of them {expected}, found {folder.name}; "
                f"was the recovery stopped?"
            )
    return folders


def _pictures(folder: Path, c: int) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _PICTURES)
    for file in found:
        match = _FILE.fullmatch(file.name)
        if match is None or int(match[1]) != c or file.parent != folder:
            raise UnusableInput(
                f"expected pictures such as class{folder.name[3:]}_id000.jpg in {folder}, found "
                f"{file.relative_to(folder)}: the host's own code would train on it too; move it elsewhere"
            )
    if not found:
        raise UnusableInput(f"expected pictures such as class{folder.name[3:]}_id000.jpg in {folder}, found none")
    return found


def _decoded(files: list[Path]) -> Tensor:
    """Shape (n, channels, height, width), float32, in [0, 1]."""
    arrays = [_decode(file) for file in files]
    other = next((index for index, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if other is not None:
        raise UnusableInput(
            f"expected pictures of one size, got (height, width, channels) = {arrays[0].shape} in {files[0]} and "
            f"{arrays[other].shape} in {files[other]}: are both of one run?"
        )
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous().float() / 255


def _decode(file: Path) -> Any:
    """Shape (height, width, channels), uint8; by Pillow, as the hosts do it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UnusableInput('pictures are read by Pillow: pip install "guard-plugin[bench]"') from error
    try:
        with Image.open(file, formats=("JPEG",)) as picture:
            mode, array = picture.mode, np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableInput(f"{file} cannot be read as a JPEG picture: {error}") from error
    if mode not in ("L", "RGB"):
        raise UnusableInput(f"{file}: expected a grey or RGB picture, got mode {mode}")
    return array[:, :, None] if mode == "L" else array


def _spaces(channels: int, num_classes: int) -> Mapping[str, InputSpace]:
    """Of the data sets that such pictures may be of."""
    return {
        name: host.normalization
        for name, host in RECOVERY_DATASETS.items()
        if len(host.normalization.mean) == channels and num_classes in host.num_classes
    }
