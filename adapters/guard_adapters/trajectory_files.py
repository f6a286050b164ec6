"""The files that MTT, TESLA, FTD and DATM distil into, and our own baselines of their shape.

====================  =================================================================================================
MTT, TESLA, FTD       ``logged_files/DATASET/RUN/{images,labels}_{ITERATION,best}.pt``
FTD                   also ``ema_logged_files/DATASET/RUN/ema_{images,labels}_{ITERATION,best}.pt``
DATM                  ``logged_files/DATASET/IPC/MODEL/RUN/Normal/{images,labels,lr}_{ITERATION,best}.pt``
examples/baselines    ``SAVE_PATH/DATASET/RUN/{images,labels,lr}_{ITERATION,best}.pt``, by default in logged_files
====================  =================================================================================================

Each holds a bare tensor. MTT, TESLA and FTD learn a learning rate along with the images, and save it nowhere.

Labels are class indices, or (TESLA's ``--teacher_label``) class probabilities. DATM's are logits: its networks are
trained, in distillation and in evaluation, with ``SoftCrossEntropy``, which takes the target's softmax itself; that
softmax is what is read here, and the cross entropy with it is the host's loss.

With ``--zca`` the images are whitened. ``images_zca_ITERATION.pt`` beside them are not: those are for looking at, and
they tell that the run was one with ``--zca``. From 50 images per class on, hosts write none (without ``--force_save``),
so that no file tells.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from guard_adapters.learned_images import learned_images
from guard_adapters.normalizations import MTT_DATASETS, HostDataset
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.arrays import whole_numbers
from guard_plugin.errors import UnusableInput
from guard_plugin.files import load_untrusted
from guard_plugin.spaces import InputSpace, UndecidedZca, ZcaWhitening

__all__ = ["read_trajectory_sets"]

_IMAGES = re.compile(r"(?P<prefix>(ema_)?)images_(?P<version>best|\d+)\.pt")
_UNWHITENED = "images_zca_*.pt"
_ROOTS = ("logged_files", "ema_logged_files")
_DATM_FOLDER = "Normal"
_UNWHITENED_BELOW = 50  # images per class, from which on hosts write no images_zca_*.pt
_OURS = ("digits", "MNIST", "FashionMNIST")  # which only our baselines know; they always write images_zca_*.pt


def read_trajectory_sets(path: Path) -> list[DistilledSet]:
    """Read one distilled set: the images with the labels and, where it was saved, the learning rate beside them.

    Args:
        path: A file of images (``images_best.pt``, ``images_5000.pt``, ``ema_images_best.pt``), or the run's folder, of
            which the best images are taken, or, where none are called best, those of the highest iteration.

    Raises:
        UnusableInput: If the place, the names or the contents are not those of a host.
        UnsafeFile: If reading a file would run code.
    """
    dataset, arch, is_datm = _from_folders(path)
    file = _newest_images(path) if path.is_dir() else path
    prefix, version = _prefix_and_version(file)
    labels_file = file.with_name(f"{prefix}labels_{version}.pt")
    rate_file = file.with_name(f"lr_{version}.pt")
    images = _tensor(file)
    if not labels_file.is_file():
        raise UnusableInput(f"expected the labels of {file.name} in {labels_file}, found no such file")
    labels, num_classes = _labels(labels_file, dataset, is_datm)
    if images.dim() == 4 and len(images) != len(labels):
        raise UnusableInput(
            f"expected one label per image, got {len(images)} images in {file} and {len(labels)} labels in "
            f"{labels_file.name}: are both of one run?"
        )
    has_rate = rate_file.is_file()
    return [
        DistilledSet(
            images=learned_images(images, dataset, file),
            labels=labels,
            num_classes=num_classes,
            normalization=_input_space(file, version, dataset, len(images) / num_classes),
            dataset=dataset.name,
            arch=arch,
            learning_rate=_learning_rate(rate_file) if has_rate else None,
            recipe="datm" if is_datm else "mtt",
            files=(file, labels_file, rate_file) if has_rate else (file, labels_file),
        )
    ]


def _from_folders(path: Path) -> tuple[HostDataset, str | None, bool]:
    """Return what the names of the folders tell: data set, network's architecture, and whether DATM wrote them."""
    folders = path.absolute().parts
    roots = [index for index, name in enumerate(folders[:-1]) if name in _ROOTS]
    run = len(folders) if path.is_dir() else len(folders) - 1
    if roots:
        name, *below = folders[roots[-1] + 1 :]
    elif run >= 2 and folders[run - 2] in MTT_DATASETS:
        # Our baselines' --save_path, or a folder that was moved: DATASET/RUN.
        name, *below = folders[run - 2 :]
    else:
        raise UnusableInput(
            f"expected a path such as logged_files/DATASET/RUN/images_best.pt, which tells the data set and so the "
            f"normalisation, got {path}"
        )
    if name not in MTT_DATASETS:
        raise UnusableInput(
            f"{path}: expected one of the data sets {', '.join(MTT_DATASETS)} as the folder after logged_files (or "
            f"ema_logged_files), got {name!r}"
        )
    # DATM: logged_files/DATASET/IPC/MODEL/RUN/Normal, of which RUN may be given.
    is_datm = _DATM_FOLDER in below or (path / _DATM_FOLDER).is_dir()
    return MTT_DATASETS[name], below[1] if is_datm and len(below) >= 3 else None, is_datm


def _newest_images(folder: Path) -> Path:
    """Return the best images of a run's folder, or those of the highest iteration."""
    below = folder / _DATM_FOLDER
    folder = below if below.is_dir() else folder
    found = [match for name in sorted(file.name for file in folder.iterdir()) if (match := _IMAGES.fullmatch(name))]
    if not found:
        raise UnusableInput(f"expected images_best.pt or images_ITERATION.pt in {folder}, found neither")

    def newness(match: re.Match[str]) -> tuple[float, bool]:
        return float("inf") if match["version"] == "best" else int(match["version"]), not match["prefix"]

    return folder / max(found, key=newness)[0]


def _prefix_and_version(file: Path) -> tuple[str, str]:
    match = _IMAGES.fullmatch(file.name)
    if match:
        return match["prefix"], match["version"]
    if file.match(_UNWHITENED):
        raise UnusableInput(
            f"{file.name} holds images with the whitening undone, which the host never trains networks on: give the "
            f"whitened ones, {file.name.replace('_zca', '')} (ema_images in ema_logged_files), or the run's folder"
        )
    raise UnusableInput(f"expected a run's folder, or a file named (ema_)images_VERSION.pt, got {file.name}")


def _tensor(file: Path) -> Tensor:
    content = load_untrusted(file)
    if not isinstance(content, Tensor) or content.dim() == 0:
        found = "a single number" if isinstance(content, Tensor) else type(content).__name__
        raise UnusableInput(f"{file}: expected a tensor, got {found}")
    return content.detach()


def _labels(file: Path, dataset: HostDataset, is_datm: bool) -> tuple[Tensor, int]:
    """Read class indices, shape (n,), or probabilities, shape (n, classes); and the number of classes."""
    labels, choices = _tensor(file), dataset.num_classes
    counts = " or ".join(map(str, choices))
    if labels.dim() == 2 and labels.is_floating_point():
        if labels.shape[1] not in choices:
            raise UnusableInput(
                f"{file}: expected soft labels for {counts} classes of {dataset.name}, got shape {tuple(labels.shape)}"
            )
        return labels.float().softmax(dim=1) if is_datm else labels.float(), labels.shape[1]
    whole = whole_numbers(labels) if labels.dim() == 1 and len(labels) else None
    if is_datm or whole is None:
        wanted = "logits" if is_datm else "class indices of shape (n,), or probabilities"
        raise UnusableInput(
            f"{file}: expected {wanted} of shape (n, {counts}), got shape {tuple(labels.shape)} of {labels.dtype}"
        )
    return whole, next((count for count in choices if int(whole.max()) < count), choices[-1])


def _learning_rate(file: Path) -> float:
    """Read one number, saved as a tensor or plainly."""
    content = load_untrusted(file)
    if isinstance(content, Tensor) and content.numel() == 1:
        content = content.item()
    if isinstance(content, bool) or not isinstance(content, (int, float)):
        raise UnusableInput(f"{file}: expected one number, the learned learning rate, got {type(content).__name__}")
    try:
        return float(content)
    except OverflowError as error:
        raise UnusableInput(f"{file}: the learning rate is too large an integer") from error


def _input_space(file: Path, version: str, dataset: HostDataset, images_per_class: float) -> InputSpace:
    folder = file.parent
    unwhitened = {other.stem.rpartition("_")[2] for other in folder.glob(_UNWHITENED)}
    matches = (_IMAGES.fullmatch(other.name) for other in folder.iterdir())
    iterations = {match["version"] for match in matches if match} - {"best"}
    if version in unwhitened or (unwhitened and version == "best" and iterations <= unwhitened):
        return ZcaWhitening()
    if unwhitened:  # TESLA writes all runs without a name to one folder
        why = f"{folder} has {_UNWHITENED} of some iterations and not of others: it holds several runs"
    elif images_per_class >= _UNWHITENED_BELOW and dataset.name not in _OURS:
        why = f"hosts write no {_UNWHITENED} from {_UNWHITENED_BELOW} images per class on, so {folder} does not tell"
    else:
        return dataset.normalization
    return UndecidedZca(dataset.normalization, why)
