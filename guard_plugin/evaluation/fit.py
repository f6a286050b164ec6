"""Whether distilled sets have the images and classes of the data set that students are measured on."""

from __future__ import annotations

from collections.abc import Sequence

from guard_plugin.datasets import ImageSet
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput, few
from guard_plugin.image_files import class_numbers

__all__ = ["check_classes_agree", "check_fit"]

_WITHOUT_IMAGES = (
    "If a class has no distilled image, give the set as a .npz file with images, labels (the number of each image's "
    "class in the data set) and num_classes"
)


def check_fit(sets: Sequence[DistilledSet], images: ImageSet) -> None:
    """Refuse sets whose images or classes are not those of the data set by ``UnusableInput``."""
    wanted = (*images.pixels.shape[1:], images.num_classes)
    for distilled in sets:
        check_classes_agree(distilled, images)
        found = (*distilled.images.shape[1:], distilled.num_classes)
        if found != wanted:
            raise UnusableInput(
                f"the distilled set does not fit {images.name}: expected (channels, height, width, classes) = "
                f"{wanted}, got {found}. Name the data set that was distilled{_how_to_fit(wanted, found)}"
            )


def _how_to_fit(wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    """Say which options make images fit that differ in size, or where one of the two lacks the highest classes."""
    ways = []
    if wanted[1:3] != found[1:3]:
        ways.append(f"in its size: folders of images are scaled by --dataset NAME@{found[1]}")
    if wanted[3] != found[3]:
        most = max(wanted[3], found[3])
        ways.append(f"with --num-classes {most}, if one of the two shows none of the highest classes")
    return "".join(f"; {way}" for way in ways)


def check_classes_agree(distilled: DistilledSet, images: ImageSet) -> None:
    """Refuse folders of distilled images whose names show that their classes have other numbers than the data set's.

    The order of names gives classes their numbers, so a folder that is missing shifts all that come after it; the last
    ones may be missing. Folders with numbers as names, from 0 on or from 1 to the last class, say themselves which
    classes they are, whatever the data set calls these.

    Raises:
        UnusableInput: If names on both sides differ, or numbers have a gap.
    """
    own, theirs = distilled.class_names, images.class_names
    numbers, of_data = (_numbers(names, images.num_classes) for names in (own, theirs))
    if numbers is not None and of_data is None:
        if numbers not in (list(range(len(own))), list(range(1, images.num_classes + 1))):
            raise UnusableInput(
                f"expected the folders of distilled images to be numbered as the {images.num_classes} classes of "
                f"{images.name} are, from 0 without a gap, got {', '.join(own)}: add the images of the others. "
                f"{_WITHOUT_IMAGES}"
            )
        return
    same = own[: len(theirs)] == theirs[: len(own)]
    if numbers is not None and of_data is not None:
        same = numbers[: len(of_data)] == of_data[: len(numbers)]
    if not same:
        raise UnusableInput(
            f"expected folders of distilled images with the names of the classes of {images.name}, whose order gives "
            f"them their numbers: {_differing(own, theirs)}: add or rename folders. {_WITHOUT_IMAGES}"
        )


def _numbers(names: Sequence[str], num_classes: int) -> list[int] | None:
    """Return the numbers that names consist of, if they may be those of classes; WordNet's n01440764 is none."""
    numbers = class_numbers(names)
    return None if numbers is None or max(numbers.values()) > num_classes else list(numbers.values())


def _differing(own: Sequence[str], theirs: Sequence[str]) -> str:
    wrong = {"has no folder": set(theirs) - set(own), "is no class": set(own) - set(theirs)}
    return "; ".join(f"{few(sorted(names))} {what}" for what, names in wrong.items() if names)
